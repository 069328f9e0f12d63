"""What the Snakefile needs beside its rules."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import psutil  # type: ignore[import-untyped]  # Snakemake brings it along


def pass_signals_on() -> None:
    """A signal to Snakemake alone ends its jobs on this machine, too; their checkpoints are kept."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _passing_on(signal.getsignal(number)))


def _passing_on(handler: Any) -> Callable[[int, FrameType | None], None]:
    """A handler that sends the signal to all child processes before Snakemake's own handler is called."""

    def handle(number: int, frame: FrameType | None) -> None:
        for child in psutil.Process().children(recursive=True):
            child.send_signal(number)
        handler(number, frame)

    return handle
