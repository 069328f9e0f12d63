"""Which code and which locked data a run was made from: commit, dirty tree, dvc.lock."""

from __future__ import annotations

import hashlib
import os
import subprocess
from functools import lru_cache
from pathlib import Path

UNKNOWN = "none"


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


def _dvc_lock() -> str:
    try:
        return hashlib.sha256(Path("dvc.lock").read_bytes()).hexdigest()[:12]
    except OSError:
        return UNKNOWN
