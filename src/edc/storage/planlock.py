"""The plan does not change under a runner that works on it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edc.errors import EdcError
from edc.storage import STATE

LOCK = STATE / "locks" / "plan.lock"
BY_DVC = Path(".dvc/tmp/lock")
"""Of `dvc repro` between its stages."""


def hold_plan() -> None:
    """Keep `edc plan` from writing another plan until this process ends; several processes may do so at once."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    # Never closed: the lock falls with the process, however that ends.
    fcntl.flock(os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o666), fcntl.LOCK_SH)


@contextmanager
def replacing_plan(root: Path) -> Iterator[None]:
    """Nobody works on the plan inside the block.

    Raises:
        EdcError: somebody does.
    """
    (root / LOCK).parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for path in (root / LOCK, *([root / BY_DVC] if (root / BY_DVC).exists() else [])):
            file = stack.enter_context(path.open("a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise EdcError("params.yaml: runs of it are being made; plan once they have ended or stopped") from None
        yield
