"""The splits train, val and test of a dataset: rows are chosen from the labels, and only those are decoded."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Literal, TypeAlias

import numpy as np
import torch

from edc.config.registry import READERS
from edc.config.rows import Dataset
from edc.data.images import Images, ImageSet
from edc.data.pictures import CentreCrop, Rows
from edc.data.source import Part, Source, check, restrict
from edc.data.streamed import Pool, StreamedSet
from edc.errors import EdcError, unknown_name

Split: TypeAlias = Literal["train", "val", "test"]

SUBSET, VAL, TEST_SUBSET, DIGITS_TEST = range(4)
"""Streams of `draw`, one per purpose, so that draws are independent."""


def load_split(config: Dataset, split: Split) -> Images:
    """One split of a dataset, in memory or, where the dataset is streamed, decoded on demand.

    `train` is the training part without the held-out images, `val` the images held out.

    Raises:
        EdcError: the data are missing or differ from `config`; one line: file, value, expectation.
    """
    if split == "val" and not config.val_fraction > 0:
        raise EdcError(f"dataset {config.name}: val_fraction is 0, so no image is held out; expected above 0")
    source = source_of(config, "test" if split == "test" else "train")
    if split == "test":
        rows = _at_most(source.labels, config.test_per_class, config.split_seed, TEST_SUBSET)
    else:
        rows = training_rows(source.labels, split, config.val_fraction, config.split_seed, config.train_per_class)
    if not len(rows):
        raise EdcError(f"{source.where}: split {split!r} has no image; expected more images per class")
    if config.streamed:
        shape = (config.channels, config.image_size, config.image_size)
        return StreamedSet(source, rows, shape, config.resize, Pool(rows, config.unreadable_limit))
    return _decoded(source, rows, config, split)


def source_of(config: Dataset, part: Part) -> Source:
    """Labels and readers of all images of a part, of the dataset's classes; nothing is decoded.

    Raises:
        EdcError: an unknown kind, or the data are missing, or a class is.
    """
    if config.kind not in READERS:
        raise unknown_name("dataset kind", config.kind, READERS, f"dataset {config.name}")
    read: Callable[[Dataset, Part], Source] = resolve_name(READERS[config.kind])
    source = restrict(read(config, part), config.class_names)
    check(source, config.classes)
    return source


def training_rows(labels: Rows, split: Split, val_fraction: float, seed: int, per_class: int | None = None) -> Rows:
    """The rows of `train` or `val`, ascending.

    Of n images of a class (after `per_class` of them were drawn) round(val_fraction * n) are held out, at least
    one and never all: a class of one image stays in `train`. The draw depends on seed, class and n alone, not on other
    classes, and the images of a smaller `per_class` are among those of a larger one.
    """
    subset = _at_most(labels, per_class, seed, SUBSET)

    def count(n: int) -> int:
        return min(n - 1, max(1, int(val_fraction * n + 0.5))) if val_fraction > 0 else 0

    held_out = draw(labels[subset], count, seed, VAL)
    return subset[held_out] if split == "val" else np.delete(subset, held_out)


def draw(labels: Rows, count: Callable[[int], int], seed: int, stream: int) -> Rows:
    """Draws `count(n)` of the n rows of every class, ascending.

    Each class orders its rows by raw Philox words of (seed, stream, class): the same on every platform and
    under every NumPy version, which `Generator.permutation` does not promise.
    """
    taken = [np.empty(0, np.int64)]
    # One sort instead of a search per class, for sets of ten thousand classes and ten million images.
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    for c, rows in zip(classes, np.split(order, starts[1:]), strict=False):
        key = np.random.SeedSequence(seed, spawn_key=(stream, int(c)))
        words = np.random.Philox(key).random_raw(len(rows))
        taken.append(rows[np.argsort(words, kind="stable")[: count(len(rows))]])
    return np.sort(np.concatenate(taken))


def _at_most(labels: Rows, limit: int | None, seed: int, stream: int) -> Rows:
    return np.arange(len(labels)) if limit is None else draw(labels, lambda n: min(n, limit), seed, stream)


def _decoded(source: Source, rows: Rows, config: Dataset, split: Split) -> ImageSet:
    shape = (len(rows), config.channels, config.image_size, config.image_size)
    if (size := int(np.prod(shape, dtype=np.int64))) > (memory := _memory()):
        key = "test_per_class" if split == "test" else "train_per_class"
        raise EdcError(
            f"{source.where}: split {split!r} takes {size / 1e9:.1f} GB of {memory / 1e9:.1f} GB of memory; "
            f"lower image_size or {key}, or set streamed: true"
        )
    images = np.empty(shape, np.uint8)
    bad = source.decode(rows, images, CentreCrop(config.channels, config.image_size, config.resize))
    if bad:
        message = source.unreadable({int(rows[i]): reason for i, reason in bad.items()}, len(rows))
        if len(bad) > config.unreadable_limit:
            limit = f"{config.unreadable_limit} (data.unreadable_limit in workflow/datasets)"
            raise EdcError(f"{message}; expected at most {limit}")
        warnings.warn(f"{message}; left out", stacklevel=3)
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
