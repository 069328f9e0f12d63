"""Labelled images decoded on demand: memory grows with the batch, not with the set."""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from edc.data.crops import CropDraws
from edc.data.images import Images, Indices
from edc.data.pictures import CentreCrop, Pixels, RandomCrop, Repeated, Rows, View, available_cores
from edc.data.source import Source
from edc.errors import EdcError

STAMPS = 4096
"""Rows per task of the digest's threads."""


@dataclass(frozen=True, eq=False)
class Pool:
    """The rows of one split, ascending, from which unreadable images are replaced, and the limit of such images.

    Attributes:
        bad: the reason for each unreadable row so far.
        lock: held while `bad` is changed.
    """

    rows: Rows
    limit: int
    bad: dict[int, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class StreamedSet(Images):
    """Images decoded from their files whenever they are read.

    Up to the split's limit an unreadable image is replaced by the next readable image of its class, the same one every
    time; beyond the limit an error is raised.

    Args:
        rows: (N,), rows of the source in the order of this set.
        shape: channels, height and width; height and width are equal.
        resize: shorter side before the centre crop, pixels; None: the height.
        pool: the split the rows belong to.
    """

    def __init__(self, source: Source, rows: Rows, shape: tuple[int, int, int], resize: int | None, pool: Pool) -> None:
        self.source, self.rows, self.resize, self.pool = source, rows, resize, pool
        self.labels = torch.from_numpy(source.labels[rows])
        self.classes = source.classes
        self._shape = shape

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._shape

    @cached_property
    def digest(self) -> str:
        """sha256 over shapes, class names, labels and each picture's name in the dataset and size in bytes.

        Nothing is decoded, so a picture replaced by another one of the same size is not detected.
        """
        digest = hashlib.sha256(json.dumps(["streamed", list(self.shape), self.resize, self.classes]).encode())
        digest.update(self.labels.numpy().astype("<i8").data)

        def stamps(start: int) -> bytes:
            return json.dumps([self.source.stamp(int(row)) for row in self.rows[start : start + STAMPS]]).encode()

        with ThreadPoolExecutor(available_cores()) as threads:  # they wait for the file system
            for part in threads.map(stamps, range(0, len(self.rows), STAMPS)):
                digest.update(part)
        return digest.hexdigest()

    def select(self, indices: Indices) -> StreamedSet:
        chosen = torch.as_tensor(indices, dtype=torch.int64).numpy()
        return StreamedSet(self.source, self.rows[chosen], self.shape, self.resize, self.pool)

    def read(self, indices: Indices, crops: CropDraws | None = None, size: int | None = None) -> Tensor:
        """See :meth:`Images.read`; an EdcError where more images than the limit allows, or all of a class, are bad."""
        rows = self.rows[torch.as_tensor(indices, dtype=torch.int64, device="cpu").numpy()]
        channels, side, _ = self.shape
        size = size or side
        order = np.argsort(rows, kind="stable")
        centre = CentreCrop(channels, size, round((self.resize or side) * size / side))
        view: View = centre if crops is None else RandomCrop(channels, size, crops[order])
        # A picture that occurs several times, each with its own crop, is decoded once.
        unique, counts = np.unique(rows, return_counts=True)
        times = int(counts[0]) if len(counts) and (counts == counts[0]).all() else 1
        shape: tuple[int, ...] = (channels, size, size)
        if times == 1:
            unique = rows[order]
        else:
            view, shape = Repeated(view, times), (times, *shape)
        decoded = np.empty((len(unique), *shape), np.uint8)
        for position, reason in sorted(self.source.decode(unique, decoded, view).items()):
            self._count_unreadable(int(unique[position]), reason)
            self._replace(int(unique[position]), position, decoded, view)
        pixels = np.empty((len(rows), channels, size, size), np.uint8)
        pixels[order] = decoded.reshape(pixels.shape)
        return torch.from_numpy(pixels)

    def _count_unreadable(self, row: int, reason: str) -> None:
        """Counts an unreadable row once; raises an error beyond the limit."""
        pool = self.pool
        with pool.lock:
            new = row not in pool.bad
            pool.bad[row] = reason
            bad = dict(pool.bad)
        message = self.source.unreadable(bad, len(pool.rows), " so far")
        if len(bad) > pool.limit:
            raise EdcError(f"{message}; expected at most {pool.limit} (data.unreadable_limit in workflow/datasets)")
        if new:
            warnings.warn(f"{message}; replaced by others of their class", stacklevel=3)

    def _replace(self, row: int, position: int, out: Pixels, view: View) -> None:
        """Decodes the next readable image of the row's class in the split, cyclically, in the place of the row's."""
        label, rows = self.source.labels[row], self.pool.rows
        members = rows[self.source.labels[rows] == label]
        place = out[position : position + 1]
        for other in np.roll(members, -int(np.searchsorted(members, row)))[1:]:
            bad = self.source.decode(np.array([other]), place, lambda _, picture: view(position, picture))
            if not bad:
                return
            self._count_unreadable(int(other), bad[0])
        raise EdcError(f"{self.source.where}: class {self.classes[label]!r} has no readable image; expected at least 1")
