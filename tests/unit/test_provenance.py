"""Commit and dirty flag of a repository."""

import subprocess
from pathlib import Path

import pytest

from edc.storage.provenance import _git, provenance


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("code.py", "params.yaml", "dvc.lock", "results/runs.csv", "runs/a/manifest.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_only_changed_code_is_dirty(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    for name in ("params.yaml", "dvc.lock", "results/runs.csv", "runs/a/manifest.json"):
        (checkout / name).write_text("2")
    (checkout / "results/new.csv").write_text("")
    assert _git.__wrapped__(checkout) == (commit, False)
    (checkout / "code.py").write_text("2")
    assert _git.__wrapped__(checkout) == (commit, True)


def test_new_file_of_code_is_dirty(checkout):
    (checkout / "more.py").write_text("")
    assert _git.__wrapped__(checkout)[1] is True


def test_without_a_repository_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance() == {"commit": None, "dirty": None}
