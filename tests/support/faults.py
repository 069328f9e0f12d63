"""A disk without space, and an object whose pickle executes code when it is read."""

import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes inside the block, which fails like a disk without space.

    Python must not write bytecode meanwhile: it would be cut off, and found damaged in every later process.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = bytecode


class Malicious:
    """Unpickling it leaves the file ``trace``."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))
