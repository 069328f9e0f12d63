"""Which code and which locked data a run was made from: commit, dirty tree, dvc.lock."""

from __future__ import annotations

import hashlib
import os
import subprocess
from functools import lru_cache
from pathlib import Path

UNKNOWN = "none"
NOTE = ".edc-commit"
"""Commit and "true"/"false" for a dirty tree, two lines: what a copy without its repository was copied from."""


def provenance() -> dict[str, str]:
    """The tags `edc.commit`, `edc.dirty` and `edc.dvc_lock` of the working directory."""
    commit, dirty = _git(os.getcwd())
    return {"edc.commit": commit, "edc.dirty": dirty, "edc.dvc_lock": _dvc_lock()}


@lru_cache
def _git(folder: str) -> tuple[str, str]:
    """Commit and "true"/"false" for a dirty tree, asked once per process: its code was loaded once too.

    What the stages themselves write (results/, dvc.lock) does not count as dirty, or every stage of a
    pipeline after the first would; an edited params.yaml does.
    """
    noted = _noted(folder)
    if noted is not None:
        return noted
    command = [
        "git",
        "status",
        "--porcelain=v2",
        "--branch",
        "--",
        ".",
        ":(exclude)dvc.lock",
        ":(exclude)results",
    ]
    try:
        # No optional locks: several stages ask at once, and none may stand in the way of a user's own git.
        answer = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            stdin=subprocess.DEVNULL,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN, UNKNOWN
    heads = [line.split()[2] for line in answer if line.startswith("# branch.oid ")]
    changed = any(not line.startswith("#") for line in answer)
    return (heads[0] if heads and heads[0] != "(initial)" else UNKNOWN), str(changed).lower()


def note(folder: Path = Path(".")) -> None:
    """Write down the commit of a checkout that is about to be copied without its repository."""
    (folder / NOTE).write_text("\n".join(_git(str(folder.absolute()))) + "\n", encoding="ascii")


def _noted(folder: str) -> tuple[str, str] | None:
    """What stands in the note; it counts only where there is no repository to ask."""
    if Path(folder, ".git").exists():
        return None
    try:
        commit, dirty = Path(folder, NOTE).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return (commit, dirty) if dirty in ("true", "false") else None


def _dvc_lock() -> str:
    try:
        return hashlib.sha256(Path("dvc.lock").read_bytes()).hexdigest()[:12]
    except OSError:
        return UNKNOWN
