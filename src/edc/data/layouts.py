"""Which layout a folder of images has: train and test folders, class folders alone, parquet files, or a CSV list."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from edc.config.registry import READERS
from edc.config.rows import Dataset
from edc.data import folder, listing, parquet
from edc.data.pictures import SUFFIXES, suffix
from edc.data.source import Part, Source, check
from edc.errors import EdcError

EXPECTED = "CLASS/*, train/CLASS/* and test/CLASS/*, parquet files, or a CSV file with the columns path and label"


@dataclass(frozen=True)
class Layout:
    """How a dataset is read.

    Attributes:
        kind: of reader.
        root: the folder images are in.
        values: keys of the dataset file that belong to the reader.
        parts: what is given as train and test; one part, "all", where there is no split yet.
        ignored: suffix -> number of files that are no pictures.
        notes: what was decided, for the user.
    """

    kind: str
    root: Path
    values: dict[str, Any]
    parts: dict[str, Source]
    ignored: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def detect(name: str, root: Path, image_size: int) -> Layout:
    """Recognise the layout and list its images; nothing is decoded.

    Args:
        name: of the dataset.
        root: a folder, or a CSV file beside the images.
        image_size: side in pixels.

    Raises:
        EdcError: no layout fits, or the folder cannot be read as the one that does.
    """
    root = Path(os.path.expanduser(root))
    if root.is_file():
        if root.suffix.lower() != ".csv":
            raise EdcError(f"--data {root}: is a file, but not a CSV file; expected a folder or a .csv file")
        return _list(root)
    if not root.exists():
        raise EdcError(f"--data {root}: no such folder")
    base = _inner(root)
    notes = [] if base == root else [f"images are read from {base}"]
    for place in (base, base / "data"):  # the Hugging Face hub keeps them in data/
        if any(place.glob("*.parquet")):
            return _parquet(name, place, image_size, notes)
    train, tests = folder.part_folders(base)
    if train is not None and tests:
        return _folder(name, base, image_size, notes)
    if train is not None and not any(_holds_files(base / other) for other in folder.class_folders(base)):
        notes = [f"images are read from {train}; there is no folder 'test' or 'val' beside it"]
        base = train
    classes = [name for name in folder.class_folders(base) if folder.pictures(base / name)]
    lists = sorted(path for path in base.glob("*.csv") if path.is_file())
    if len(lists) == 1 and (not classes or listing.is_list(lists[0])):
        return _list(lists[0])
    if not classes:
        raise EdcError(f"--data {base}: no class folder with pictures; expected {EXPECTED}")
    for empty in sorted(set(folder.class_folders(base)) - set(classes)):
        notes.append(f"folder {empty!r} holds no picture and is no class")
    if loose := sum(suffix(entry.name) in SUFFIXES for entry in base.iterdir() if entry.is_file()):
        notes.append(f"left out, in no class folder: {loose} pictures in {base}")
    files = {name: folder.pictures(base / name) for name in classes}
    source = folder.listed(base, classes, files)
    return Layout("list", base, {}, {"all": source}, folder.left_out(base), notes)


def _folder(name: str, root: Path, image_size: int, notes: list[str]) -> Layout:
    parts: dict[str, Source] = {}
    ignored: Counter[str] = Counter()
    for part, source in _read(name, "folder", root, image_size, {}).items():
        parts[part] = source
        ignored += folder.left_out(Path(source.where))
        notes.append(f"{part} images are read from {source.where}")
    used = {Path(source.where).name for source in parts.values()}
    for other in sorted(set(folder.class_folders(root)) - used):
        notes.append(f"left out: folder {other!r} beside the training and test images")
    return Layout("folder", root, {}, parts, ignored, notes)


def _parquet(name: str, root: Path, image_size: int, notes: list[str]) -> Layout:
    image, label = parquet.find_columns(root)
    values: dict[str, Any] = {"image_column": image, "label_column": label}
    notes.append(f"columns {image!r} (images) and {label!r} (classes) of the parquet files")
    if split := parquet.labelled_split(root, label):
        values["test_split"] = split
        notes.append(f"the labels of 'test' are hidden, so {split!r} is tested on")
    elif parquet.has_both(root):
        notes.append("left out: 'validation' files; students are tested on 'test'")
    return Layout("parquet", root, values, _read(name, "parquet", root, image_size, values), Counter(), notes)


def _list(path: Path) -> Layout:
    rows, root = listing.read_list(path), path.parent
    classes = tuple(sorted({label for _, label, _ in rows}))
    where, notes = str(path), [f"images and classes are listed in {path}"]
    splits = {split for *_, split in rows}
    if splits == {None} or splits == {"train"}:
        parts = {"all": listing.listed(root, [row[:2] for row in rows], classes, where)}
    else:
        if unused := sum(split is None for *_, split in rows):
            notes.append(f"left out: {unused} validation images; students are tested on the test images")
        parts = {
            part: listing.listed(root, [row[:2] for row in rows if row[2] == part], classes, where)
            for part in ("train", "test")
        }
    return Layout("list", root, {}, parts, Counter(), notes)


def _read(name: str, kind: str, root: Path, image_size: int, values: dict[str, Any]) -> dict[str, Source]:
    """Both parts, by the reader of their kind, which checks that they fit each other."""
    # A name for which no other folder can be remembered.
    probe = Dataset(
        name=f"new {name}", family=f"new {name}", kind=kind, root=str(root.absolute()), image_size=image_size,
        classes=parquet.count_classes(root, values["label_column"]) if kind == "parquet" else 2,
        mean=[0.5] * 3, std=[0.5] * 3, **values,
    )  # fmt: skip
    parts: dict[str, Source] = {}
    names: tuple[Part, Part] = ("train", "test")
    for part in names:
        source: Source = resolve_name(READERS[kind])(probe, part)
        check(source, len(source.classes))
        parts[part] = source
    return parts


def _inner(root: Path) -> Path:
    """The folder itself, or the only folder in it, as unpacked archives have, however deep."""
    while True:
        entries = [entry for entry in root.iterdir() if not folder.is_junk(entry.name)]
        if len(entries) != 1 or not entries[0].is_dir() or _holds_files(entries[0]):
            return root
        root = entries[0]


def _holds_files(root: Path) -> bool:
    """Whether pictures lie in the folder itself, so that it is a class."""
    return any(suffix(entry.name) in SUFFIXES for entry in root.iterdir() if entry.is_file())
