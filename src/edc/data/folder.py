"""Image folders: ROOT/train/CLASS/* and ROOT/test/CLASS/* (or val, valid, validation); a folder's name is the class.

Hidden files and folders, and those that other systems leave behind (``__MACOSX``), are no part of a dataset.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edc.config.rows import Dataset
from edc.data.pictures import SUFFIXES, Pixels, Rows, View, decode_pictures, suffix
from edc.data.roots import resolve_root
from edc.data.source import Part, Source, check_chosen, check_same_classes
from edc.errors import EdcError

TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")
JUNK = frozenset({"__macosx", "@eadir", "thumbs.db", "desktop.ini"})
"""Names, in lower case, of what file managers and network disks leave behind."""


def read(config: Dataset, part: Part) -> Source:
    """Lists one part of an image folder, with `class_names` only those folders, in that order.

    Of several test folders the first one with the classes of `train` is used: an unlabelled `test` beside a labelled
    `val` is common.

    Raises:
        EdcError: a part or a class is missing, or the class folders of the two parts differ.
    """
    root = resolve_root(config)
    train, tests = part_folders(root)
    if train is None:
        raise EdcError(f"{root}: no folder 'train'; expected train/CLASS/* and test/CLASS/* (or val/CLASS/*)")
    if not tests:
        raise EdcError(f"{root}: no folder 'test' or 'val'; expected test/CLASS/* (or val/CLASS/*) beside train")
    chosen = config.class_names
    classes = class_folders(train) if chosen is None else tuple(chosen)
    test = next((folder for folder in tests if _has(folder, classes, exactly=chosen is None)), tests[0])
    if train.samefile(test):
        raise EdcError(f"{test}: the same folder as {train}; test accuracy would be training accuracy")
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
        stamp=lambda row: f"{Path(names[row]).as_posix()} {bytes_of(folder / names[row])}",
    )


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the folders in a folder, sorted, without hidden ones.

    Raises:
        EdcError: the folder cannot be listed, or a name is not UTF-8.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not is_junk(entry.name))
    except OSError as error:
        raise EdcError(f"{folder}: cannot be listed ({error.strerror})") from None
    for name in names:
        _check_name(folder, name)
    return tuple(names)


def part_folders(root: Path) -> tuple[Path | None, list[Path]]:
    """The folder of training images and those of test images, in any capitals, in the order they are preferred."""
    known = {name.lower(): root / name for name in class_folders(root)}
    train = next((known[name] for name in TRAIN_FOLDERS if name in known), None)
    return train, [known[name] for name in TEST_FOLDERS if name in known]


def pictures(folder: Path) -> list[str]:
    """Paths of the pictures below a class folder, at any depth, relative to it and sorted."""
    paths = [path for path in _files(folder) if suffix(path) in SUFFIXES]
    return sorted(paths, key=lambda path: path.replace(os.sep, "/"))


def left_out(folder: Path) -> Counter[str]:
    """Suffix -> number of files below a folder that are no pictures."""
    found = sorted(suffix(path) or "without suffix" for path in _files(folder) if suffix(path) not in SUFFIXES)
    return Counter(found)


def hint(ignored: Counter[str]) -> str:
    """What to install, where pictures are left out for want of a decoder."""
    return "; pip install pillow-heif to read .heic" if {".heic", ".heif"} & set(ignored) else ""


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden or left behind by another system."""
    return name.startswith(".") or name.lower() in JUNK


def _check_name(folder: Path, name: str) -> None:
    if any("\ud800" <= letter <= "\udfff" for letter in name):  # surrogates stand for other bytes
        raise EdcError(f"{folder}: {name!r}: the name is not UTF-8; rename it")
    if any(letter < " " for letter in name):
        raise EdcError(f"{folder}: {name!r}: there is a control character in the name; rename it")


def _files(folder: Path) -> Iterator[str]:
    """Paths of the files below a folder, relative to it; linked folders are followed, each folder is listed once."""
    start, seen = len(os.path.join(folder, "")), set()
    for below, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(below)) in seen:
            folders.clear()
            continue
        seen.add(real)
        # Sorted, links last, so that which of two names of a folder is listed depends on the names alone.
        folders[:] = sorted(
            (name for name in folders if not is_junk(name)), key=lambda name: (os.path.islink(f"{below}/{name}"), name)
        )
        for name in (*folders, *names):
            _check_name(Path(below), name)
        yield from (os.path.join(below[start:], name) for name in names if not is_junk(name))


def _has(folder: Path, classes: Sequence[str], exactly: bool) -> bool:
    names = class_folders(folder)
    return names == tuple(classes) if exactly else set(classes) <= set(names)


def bytes_of(path: Path) -> int:
    """Size of a picture file."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise EdcError(f"{path}: cannot be read ({error.strerror})") from None
