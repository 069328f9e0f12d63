"""CIFAR-10 and CIFAR-100 in torchvision's layout, which compares every file with its MD5 sum; nothing is downloaded."""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np

from edc.config.rows import Dataset
from edc.data.pictures import decode_arrays
from edc.data.roots import resolve_root
from edc.data.source import Part, Source
from edc.errors import EdcError, unknown_name

SOURCES = ("CIFAR10", "CIFAR100")


def read(config: Dataset, part: Part) -> Source:
    """Loads one part of a torchvision set; the root holds `cifar-10-batches-py`, or is that folder itself.

    Raises:
        EdcError: unknown source, or files that are missing or are not the official ones.
    """
    where = f"dataset {config.name}"
    if config.source not in SOURCES:
        raise unknown_name("torchvision source", str(config.source), SOURCES, where)
    root = resolve_root(config)
    from torchvision import datasets

    kind = getattr(datasets, config.source)
    if root.name == kind.base_folder:
        root = root.parent
    folder = root / kind.base_folder
    if not folder.is_dir():
        raise EdcError(f"{root}: no folder {kind.base_folder!r}; expected the files of torchvision's {config.source}")
    try:
        raw = kind(str(root), train=part == "train", download=False)
    except (RuntimeError, OSError):
        raise EdcError(f"{folder}: files missing or damaged; expected the official ones of {config.source}") from None
    return Source(
        where=f"{folder}, {part} part",
        classes=tuple(raw.classes),
        labels=np.asarray(raw.targets, np.int64),
        name=lambda row: f"{folder}, {part} image {row}",
        decode=partial(decode_arrays, raw.data),
        stamp=lambda row: hashlib.sha256(raw.data[row].tobytes()).hexdigest(),
    )
