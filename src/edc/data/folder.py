"""Image folders: ROOT/train/CLASS/* and ROOT/test/CLASS/* (or val, validation); a folder's name is the class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edc.config.rows import Dataset
from edc.data.pictures import Pixels, Rows, View, decode_pictures
from edc.data.roots import resolve_root
from edc.data.source import Part, Source, check_chosen, check_same_classes
from edc.errors import EdcError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
TEST_FOLDERS = ("test", "val", "validation")


def read(config: Dataset, part: Part) -> Source:
    """Lists one part of an image folder, with `class_names` only those folders, in that order.

    Of several test folders the first one with the classes of `train` is used: an unlabelled `test` beside a labelled
    `val` is common.

    Raises:
        EdcError: a part or a class is missing, or the class folders of the two parts differ.
    """
    root = resolve_root(config)
    train = root / "train"
    if not train.is_dir():
        raise EdcError(f"{root}: no folder 'train'; expected train/CLASS/* and test/CLASS/* (or val/CLASS/*)")
    tests = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    if not tests:
        raise EdcError(f"{root}: no folder 'test' or 'val'; expected test/CLASS/* (or val/CLASS/*) beside train")
    chosen = config.class_names
    classes = class_folders(train) if chosen is None else tuple(chosen)
    test = next((folder for folder in tests if _has(folder, classes, exactly=chosen is None)), tests[0])
    for folder in (train, test):
        names = class_folders(folder)
        if not names:
            raise EdcError(f"{folder}: no class folder; expected one folder per class")
        if chosen is not None:
            check_chosen(chosen, names, str(folder), "class folder")
    if chosen is None:
        check_same_classes(classes, class_folders(test), str(train), str(test))
    folder = test if part == "test" else train
    return listed(folder, classes, {name: pictures(folder / name) for name in classes})


def listed(folder: Path, classes: Sequence[str], files: dict[str, list[str]], inside: str = "{}") -> Source:
    """A source of picture files by class; ``inside``: a class's folder below `folder`, as a format of its name."""
    # Strings, because a Path for each of ten million pictures would take gigabytes.
    names = [os.path.join(inside.format(name), path) for name in classes for path in files[name]]

    def decode(rows: Rows, out: Pixels, view: View) -> dict[int, str]:
        return decode_pictures([folder / names[row] for row in rows], out, view)

    return Source(
        where=str(folder),
        classes=tuple(classes),
        labels=np.repeat(np.arange(len(classes), dtype=np.int64), [len(files[name]) for name in classes]),
        name=lambda row: str(folder / names[row]),
        decode=decode,
        stamp=lambda row: f"{Path(names[row]).as_posix()} {_bytes(folder / names[row])}",
    )


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the folders in a folder, sorted, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != "."))
    except OSError as error:
        raise EdcError(f"{folder}: cannot be listed ({error.strerror})") from None


def pictures(folder: Path) -> list[str]:
    """Paths of the pictures below a class folder, at any depth, relative to it and sorted."""
    start = len(os.path.join(folder, ""))
    paths = [
        os.path.join(below[start:], name) for below, _, names in os.walk(folder) for name in names if is_picture(name)
    ]
    return sorted(paths, key=lambda path: path.replace(os.sep, "/"))


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its suffix, and not hidden."""
    return name[0] != "." and os.path.splitext(name)[1].lower() in SUFFIXES


def _has(folder: Path, classes: Sequence[str], exactly: bool) -> bool:
    names = class_folders(folder)
    return names == tuple(classes) if exactly else set(classes) <= set(names)


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise EdcError(f"{path}: cannot be read ({error.strerror})") from None
