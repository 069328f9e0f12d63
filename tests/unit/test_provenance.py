"""Commit and dirty flag of a repository."""

import os
import subprocess
from pathlib import Path

from edc.storage.provenance import _git, provenance, unknown_commit


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_only_changed_or_new_code_is_dirty(tmp_path):
    for name in ("code.py", "params.yaml", "dvc.lock", "results/runs.csv", "runs/a/manifest.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    for name in ("params.yaml", "dvc.lock", "results/runs.csv", "runs/a/manifest.json"):
        (tmp_path / name).write_text("2")
    (tmp_path / "results/new.csv").write_text("")
    assert _git.__wrapped__(tmp_path) == (commit, False, "")
    (tmp_path / "more.py").write_text("")
    assert _git.__wrapped__(tmp_path) == (commit, True, "")
    (tmp_path / "more.py").unlink()
    (tmp_path / "code.py").write_text("2")
    assert _git.__wrapped__(tmp_path) == (commit, True, "")


def test_without_a_repository_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance() == {"commit": None, "dirty": None}
    assert "not a git repository" in unknown_commit()


def test_a_repository_of_another_user_is_told_from_none(tmp_path, monkeypatch):
    git(tmp_path, "init", "--quiet")
    assert _git.__wrapped__(tmp_path) == (None, False, "no commit in this repository yet")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    commit, dirty, problem = _git.__wrapped__(tmp_path)
    assert (commit, dirty) == (None, None)
    assert "dubious ownership" in problem
    assert "git config --global --add safe.directory" in problem
    assert "\n" not in problem
