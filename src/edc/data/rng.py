"""Named random streams: a seed and a stream's name determine the draws, independent of their order."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *stream: str | int) -> np.random.Generator:
    """A generator for one purpose, e.g. ``generator(seed, "augment", epoch)``.

    Counter-based (Philox), keyed by the seed and the stream, so a resumed run, a student that replays labels and a test
    of one epoch get the same numbers without drawing those before.
    """
    names = [name if isinstance(name, str) else int(name) for name in stream]
    digest = hashlib.sha256(repr((int(seed), *names)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
