"""How many processes share a run: those that `torchrun` started. Does not import PyTorch."""

from __future__ import annotations

import os


def processes() -> int:
    """How many processes share each run; 1 outside of `torchrun`."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """The number of this process; 0 writes."""
    return int(os.environ["RANK"]) if processes() > 1 else 0
