"""What the images of a dataset are, every one decoded once: sizes, orientation, duplicates, unreadable ones, mean.

Images are compared as networks see them, by a hash of their pixels after decoding and resizing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from edc.data.pictures import CentreCrop, Pixels, Rows, has_alpha, orientation
from edc.data.source import Source
from edc.errors import EdcError

CHUNK = 2**18
"""Pixels decoded at once, of one channel: 256 images of 32 pixels a side, at least one."""
SAMPLE = 50_000
"""Images looked at, at most: an evenly spread sample of larger datasets."""

Progress = Callable[[int], object]
"""Called with a number of images that were just decoded."""


@dataclass
class Survey:
    """What was found.

    Attributes:
        source: the images.
        rows: int64 (n,), the rows decoded, ascending; all, or a sample of a large dataset.
        hashes: of each of these rows, 16 bytes; empty where it is unreadable.
        unreadable: row -> reason.
        sizes: (width, height) -> number of images.
        turned: images with an EXIF orientation other than upright.
        transparent: images with an alpha channel.
        sums: number of pixels, and per channel the sums of values in [0, 1] and of their squares.
    """

    source: Source
    rows: Rows
    hashes: list[bytes] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    turned: int = 0
    transparent: int = 0
    sums: np.ndarray = field(default_factory=lambda: np.zeros((3, 3)))


@dataclass
class _Inspecting:
    """A centre crop that notes what is lost when a picture becomes pixels; called from several threads."""

    crop: CentreCrop
    facts: dict[int, tuple[tuple[int, int], bool, bool]]

    def __call__(self, position: int, picture: Image.Image) -> Pixels:
        self.facts[position] = (picture.size, orientation(picture) != 1, has_alpha(picture))
        return self.crop(position, picture)


def survey(source: Source, image_size: int, progress: Progress = lambda count: None) -> Survey:
    """Decode the images of a source once.

    Args:
        source: one part of a dataset.
        image_size: side in pixels every image is brought to.
        progress: called after each chunk.

    Raises:
        EdcError: no image is readable.
    """
    total = len(source.labels)
    rows = np.unique(np.linspace(0, max(total - 1, 0), min(SAMPLE, total)).astype(np.int64))
    result = Survey(source, rows)
    step = max(1, CHUNK // image_size**2)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        view = _Inspecting(CentreCrop(3, image_size), {})
        pixels = np.empty((len(part), 3, image_size, image_size), np.uint8)
        bad = source.decode(part, pixels, view)
        result.unreadable |= {int(part[position]): reason for position, reason in bad.items()}
        for position in range(len(part)):
            readable = position not in bad
            result.hashes.append(hashlib.blake2b(pixels[position], digest_size=16).digest() if readable else b"")
            if readable:
                size, turned, transparent = view.facts[position]
                result.sizes[size] += 1
                result.turned += turned
                result.transparent += transparent
        values = np.delete(pixels, sorted(bad), axis=0) / 255
        count = np.full(3, values[:, 0].size)
        result.sums += np.stack([count, values.sum(axis=(0, 2, 3)), (values**2).sum(axis=(0, 2, 3))])
        progress(len(part))
    if len(result.unreadable) == len(rows):
        reason = next(iter(result.unreadable.values()), "there is none")
        raise EdcError(f"{source.where}: none of {len(rows)} images is readable; {reason}")
    return result


def mean_and_std(result: Survey) -> tuple[list[float], list[float]]:
    """Per channel, of pixels in [0, 1]. A channel that is the same in all images is divided by one grey level."""
    count, total, squares = result.sums
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean.round(4).tolist(), np.maximum(std, 1 / 255).round(4).tolist()


def duplicates(*results: Survey) -> list[list[tuple[int, int]]]:
    """Groups of images with the same pixels, as (number of the survey, row), each with at least two."""
    groups: dict[bytes, list[tuple[int, int]]] = {}
    for number, result in enumerate(results):
        for row, digest in zip(result.rows, result.hashes, strict=True):
            if digest:
                groups.setdefault(digest, []).append((number, int(row)))
    return [group for group in groups.values() if len(group) > 1]
