"""Named random streams: a seed and a stream's name determine the draws, independent of their order."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *stream: str | int) -> np.random.Generator:
    """A generator for one purpose, e.g. ``generator(seed, "augment", epoch)``: no epoch needs the draws of another."""
    names = [name if isinstance(name, str) else int(name) for name in stream]
    digest = hashlib.sha256(repr((int(seed), *names)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
