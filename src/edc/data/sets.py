"""Labelled images in memory, and how a dataset is cut into train, holdout and test.

A kind of source is one function `read(config, part) -> Source` and one name in `READERS`. The function lists
labels and class names without decoding anything; rows are chosen from the labels, and only those are decoded.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pkgutil import resolve_name
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from edc.data import READERS
from edc.data.roots import DataConfig
from edc.errors import EdcError, unknown_name

Rows: TypeAlias = npt.NDArray[np.int64]
Pixels: TypeAlias = npt.NDArray[np.uint8]
Part: TypeAlias = Literal["train", "test"]
Split: TypeAlias = Literal["train", "holdout", "test"]

SUBSET, HOLDOUT, TEST_SUBSET, DIGITS_TEST = range(4)
"""Streams of `draw`: one per purpose, so that no choice depends on another one."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images with the class names they are meant by.

    Attributes:
        images: uint8 (N, C, H, W), values 0 to 255.
        labels: int64 (N,), positions in `classes`.
        classes: the K class names in label order.
    """

    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def class_hash(self) -> str:
        """The hash of the ordered class names; two sets may be used together only if it is the same."""
        return class_hash(self.classes)

    @cached_property
    def digest(self) -> str:
        """sha256 over images, their shape, labels and class names."""
        found = hashlib.sha256(json.dumps([list(self.images.shape), self.classes]).encode())
        found.update(np.ascontiguousarray(self.images.cpu().numpy()).data)
        found.update(self.labels.cpu().numpy().astype("<i8").data)
        return found.hexdigest()

    def read(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """The images at `indices` (n,), uint8 (n, C, H, W)."""
        return self.images[torch.as_tensor(indices, dtype=torch.int64, device=self.images.device)]

    def by_class(self, c: int) -> torch.Tensor:
        """Indices of the images of class `c`, int64, ascending."""
        return (self.labels == c).nonzero().flatten()

    def select(self, indices: torch.Tensor | Sequence[int]) -> ImageSet:
        """The images and labels at `indices` (n,), in that order, with the same classes."""
        chosen = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        return ImageSet(self.read(chosen), self.labels[chosen], self.classes)


@dataclass(frozen=True)
class Source:
    """One part of a dataset before anything is decoded.

    Attributes:
        where: file or folder, for messages.
        classes: class names in label order.
        labels: int64 (M,), one per row, in a fixed order.
        name: what to call a row in a message.
        decode: fills uint8 (n, C, S, S) with the n given rows (ascending), and returns the reason for each
            position that could not be read.
    """

    where: str
    classes: tuple[str, ...]
    labels: Rows
    name: Callable[[int], str]
    decode: Callable[[Rows, Pixels], dict[int, str]]


def class_hash(classes: Iterable[str]) -> str:
    """The first 16 hex digits of the sha256 of the ordered class names."""
    return hashlib.sha256(json.dumps(list(classes)).encode()).hexdigest()[:16]


def load_split(config: DataConfig, split: Split) -> ImageSet:
    """Loads one split of a dataset into memory.

    Args:
        config: the dataset's parameters.
        split: `train` (training part without the holdout), `holdout` (the part set aside) or `test`.

    Returns:
        Images of `config.channels` x `config.image_size` x `config.image_size`, in the order of the source.

    Raises:
        EdcError: the data are missing or are not what `config` says; one line: file, value, expectation.
    """
    if config.kind not in READERS:
        raise unknown_name("dataset kind", config.kind, READERS, f"dataset {config.name}")
    if split == "holdout" and not config.holdout > 0:
        raise EdcError(f"dataset {config.name}: holdout is {config.holdout}, so no image is held out; expected above 0")
    read: Callable[[DataConfig, Part], Source] = resolve_name(READERS[config.kind])
    source = read(config, "test" if split == "test" else "train")
    _check(source, config.classes)
    if split == "test":
        rows = _at_most(source.labels, config.test_per_class, config.split_seed, TEST_SUBSET)
    else:
        rows = training_rows(source.labels, split, config.holdout, config.split_seed, config.train_per_class)
    if not len(rows):
        raise EdcError(f"{source.where}: split {split!r} has no image; expected more images per class")
    return _decoded(source, rows, config, split)


def training_rows(labels: Rows, split: Split, holdout: float, seed: int, per_class: int | None = None) -> Rows:
    """The rows of `train` or `holdout`, ascending.

    Of n images of a class (after `per_class` of them were drawn) round(holdout * n) are held out, at least
    one and never all: a class of one image stays in `train`. The draw depends on seed, class and n alone: a
    class keeps its cut when another one changes, and a smaller `per_class` keeps part of what a larger keeps.

    Args:
        labels: int64 (M,) of the whole training part.
        split: `train` or `holdout`.
        holdout: fraction of each class set aside, 0 to 0.5.
        seed: `split_seed`, at least 0.
        per_class: keep at most so many training images per class first.
    """
    kept = _at_most(labels, per_class, seed, SUBSET)

    def count(n: int) -> int:
        return min(n - 1, max(1, int(holdout * n + 0.5))) if holdout > 0 else 0

    held = draw(labels[kept], count, seed, HOLDOUT)
    return kept[held] if split == "holdout" else np.delete(kept, held)


def draw(labels: Rows, count: Callable[[int], int], seed: int, stream: int) -> Rows:
    """Draws `count(n)` of the n rows of every class, ascending.

    Each class orders its rows by raw Philox words of (seed, stream, class): the same on every platform and
    under every NumPy version, which `Generator.permutation` does not promise.
    """
    taken = [np.empty(0, np.int64)]
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        key = np.random.SeedSequence(seed, spawn_key=(stream, int(c)))
        words = np.random.Philox(key).random_raw(len(rows))
        taken.append(rows[np.argsort(words, kind="stable")[: count(len(rows))]])
    return np.sort(np.concatenate(taken))


def check_same_classes(train: Sequence[str], test: Sequence[str], train_where: str, test_where: str) -> None:
    """Refuses two class lists that differ, naming the first class that does."""
    for position, (one, other) in enumerate(zip_longest(train, test)):
        if one != other:
            raise EdcError(f"{test_where}: class {position} is {other!r}; expected {one!r} as in {train_where}")


def _at_most(labels: Rows, limit: int | None, seed: int, stream: int) -> Rows:
    return np.arange(len(labels)) if limit is None else draw(labels, lambda n: min(n, limit), seed, stream)


def _check(source: Source, classes: int) -> None:
    if len(source.classes) != classes:
        raise EdcError(f"{source.where}: {len(source.classes)} classes; expected {classes}, the dataset's `classes`")
    for row in np.flatnonzero((source.labels < 0) | (source.labels >= classes))[:1]:
        raise EdcError(f"{source.name(int(row))}: label {source.labels[row]}; expected 0 to {classes - 1}")
    for c in np.flatnonzero(np.bincount(source.labels, minlength=classes) == 0)[:1]:
        raise EdcError(f"{source.where}: class {source.classes[c]!r} has no image; expected at least 1")


def _decoded(source: Source, rows: Rows, config: DataConfig, split: Split) -> ImageSet:
    shape = (len(rows), config.channels, config.image_size, config.image_size)
    if (size := int(np.prod(shape, dtype=np.int64))) > (memory := _memory()):
        knob = "test_per_class" if split == "test" else "train_per_class"
        raise EdcError(
            f"{source.where}: split {split!r} takes {size / 1e9:.1f} GB of {memory / 1e9:.1f} GB of memory; "
            f"lower image_size or {knob}"
        )
    images = np.empty(shape, np.uint8)
    bad = source.decode(rows, images)
    if bad:
        some = [f"{source.name(int(rows[i]))} ({bad[i]})" for i in sorted(bad)[:3]] + ["..."] * (len(bad) > 3)
        found = f"{source.where}: {len(bad)} of {len(rows)} images unreadable: {'; '.join(some)}"
        if len(bad) > config.unreadable_limit:
            raise EdcError(f"{found}; expected at most {config.unreadable_limit} (unreadable_limit)")
        warnings.warn(f"{found}; left out", stacklevel=3)
        good = np.delete(np.arange(len(rows)), sorted(bad))
        for c in np.setdiff1d(source.labels[rows], source.labels[rows[good]])[:1]:
            raise EdcError(f"{source.where}: class {source.classes[c]!r} has no readable image; expected at least 1")
        rows, images = rows[good], images[good]
    return ImageSet(torch.from_numpy(images), torch.from_numpy(source.labels[rows]), source.classes)


def _memory() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # not known on this platform
        return float("inf")
