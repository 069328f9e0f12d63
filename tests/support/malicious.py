"""An object whose pickle executes code when it is read."""

from __future__ import annotations

from pathlib import Path


class Malicious:
    """Unpickling it leaves a file.

    Args:
        trace: the file.
    """

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))
