"""The commit a run was made from, and whether the code differed from it."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from pathlib import Path

NOT_CODE = ("results", "runs", "dvc.lock", "params.yaml")
"""What the stages write, and the plan, which stands in every manifest."""


def provenance() -> dict[str, str | bool | None]:
    """``commit``, and ``dirty``: whether a file of the code was changed since; both None without a repository."""
    commit, dirty, _ = _git(Path.cwd())
    return {"commit": commit, "dirty": dirty}


def unknown_commit() -> str:
    """Why the commit is unknown, in one line; empty where it is known."""
    return _git(Path.cwd())[2]


@lru_cache
def _git(folder: Path) -> tuple[str | None, bool | None, str]:
    """The same for a process, whose code is loaded once too; last the problem."""
    exclude = [f":(exclude){path}" for path in NOT_CODE]
    command = ["git", "status", "--porcelain=v2", "--branch", "--", ".", *exclude]
    # Several workers call it at once, and none may lock the index under a user's own git.
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return None, None, " ".join(lines[:1] + [line.strip() for line in lines if "safe.directory" in line][:1])
    lines = done.stdout.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    dirty = any(not line.startswith("#") for line in lines)
    return (None, dirty, "no commit in this repository yet") if commit == "(initial)" else (commit, dirty, "")
