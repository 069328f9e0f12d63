"""Tiny-ImageNet in the original layout of Stanford's CS231n.

Expected are ROOT/wnids.txt, ROOT/train/WNID/images/*.JPEG, ROOT/val/images/*.JPEG and ROOT/val/val_annotations.txt,
whose lines begin with a file and its WNID. `val` is the test part: the official test images have no labels.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

from edc.config.rows import Dataset
from edc.data.folder import class_folders, listed, pictures
from edc.data.pictures import SUFFIXES, suffix
from edc.data.roots import resolve_root
from edc.data.source import Part, Source, check_same_classes
from edc.errors import EdcError

FOLDER = "tiny-imagenet-200"
"""Folder in the archive; the folder above it is accepted as root, too."""


def read(config: Dataset, part: Part) -> Source:
    """Lists one part; classes are the WordNet ids of wnids.txt, sorted.

    Raises:
        EdcError: files or folders are missing, or folders, annotations and wnids.txt disagree on classes or images.
    """
    root = resolve_root(config)
    if not (root / "wnids.txt").is_file() and (root / FOLDER).is_dir():
        root = root / FOLDER
    classes = tuple(sorted(_lines(root / "wnids.txt")))
    for name, following in pairwise(classes):
        if name == following:
            raise EdcError(f"{root / 'wnids.txt'}: class {name!r} occurs twice; expected every class once")
    train, val = root / "train", root / "val"
    check_same_classes(classes, class_folders(train), str(root / "wnids.txt"), str(train))
    annotated = _annotations(val, classes)
    if part == "train":
        return listed(train, classes, {name: pictures(train / name / "images") for name in classes}, "{}/images")
    files: dict[str, list[str]] = {name: [] for name in classes}
    for picture, name in sorted(annotated.items()):
        files[name].append(picture)
    return listed(val / "images", classes, files, "")


def _annotations(val: Path, classes: tuple[str, ...]) -> dict[str, str]:
    """The class of every validation image, after annotations and files are compared."""
    path, known = val / "val_annotations.txt", set(classes)
    annotated: dict[str, str] = {}
    for number, line in enumerate(_lines(path), 1):
        name, wnid, *_ = [*line.split("\t"), ""]
        if wnid not in known:
            raise EdcError(f"{path}: line {number}: class {wnid!r}; expected one of wnids.txt")
        if name in annotated:
            raise EdcError(f"{path}: line {number}: image {name!r} a second time; expected every image once")
        annotated[name] = wnid
    try:
        present = {name for name in os.listdir(val / "images") if suffix(name) in SUFFIXES}
    except OSError as error:
        raise EdcError(f"{val / 'images'}: cannot be listed ({error.strerror})") from None
    for name in sorted(present ^ annotated.keys())[:1]:
        if name in present:
            raise EdcError(f"{val / 'images' / name}: no line in {path.name}; expected one per image")
        raise EdcError(f"{val / 'images' / name}: no such file; {path.name} names it")
    return annotated


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EdcError(
            f"{path}: no such file; expected the original layout of Tiny-ImageNet (for val/CLASS/* use kind folder)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise EdcError(f"{path}: cannot be read ({error})") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
