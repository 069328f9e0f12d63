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
        if root.suffix.lower() not in (".csv", ".jsonl"):
            raise EdcError(f"--data {root}: is a file, but not a CSV file; expected a folder or a .csv or .jsonl file")
        return _lists(root.parent, {root: None})
    if not root.exists():
        raise EdcError(f"--data {root}: no such folder")
    base = _inner(root)
    notes = [] if base == root else [f"images are read from {base}"]
    for place in (base, base / "data"):  # the Hugging Face hub keeps them in data/
        if any(place.glob("*.parquet")):
            return _parquet(name, place, image_size, notes)
    train, tests = folder.part_folders(base)
    if train is not None and tests:
        part_lists = _part_lists(train, tests)
        return _lists(base, part_lists) if part_lists else _folder(name, base, image_size, notes)
    if train is not None and not any(_holds_files(base / other) for other in folder.class_folders(base)):
        notes = [f"images are read from {train}; there is no folder 'test' or 'val' beside it"]
        base = train
    classes = [name for name in folder.class_folders(base) if folder.pictures(base / name)]
    lists = _tables(base)
    if len(lists) == 1 and (not classes or listing.is_list(lists[0])):
        return _lists(base, {lists[0]: None})
    if not classes:
        remedy = folder.hint(folder.left_out(base))
        raise EdcError(f"--data {base}: no class folder with pictures; expected {EXPECTED}{remedy}")
    for empty in sorted(set(folder.class_folders(base)) - set(classes)):
        notes.append(f"folder {empty!r} holds no picture and is no class")
    notes += _loose(base)
    files = {name: folder.pictures(base / name) for name in classes}
    source = folder.listed(base, classes, files)
    return Layout("list", base, {}, {"all": source}, folder.left_out(base), notes)


def _folder(name: str, root: Path, image_size: int, notes: list[str]) -> Layout:
    parts: dict[str, Source] = {}
    ignored: Counter[str] = Counter()
    try:
        read = _read(name, "folder", root, image_size, {})
    except EdcError as error:
        raise EdcError(f"{error}{folder.hint(folder.left_out(root))}") from None
    for part, source in read.items():
        parts[part] = source
        ignored += folder.left_out(Path(source.where))
        notes += [f"{part} images are read from {source.where}", *_loose(Path(source.where))]
    notes += _loose(root)
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
    if unused := parquet.unused(root, split):
        notes.append(f"left out: {len(unused)} of the parquet files, such as {unused[0].name}")
    if not parquet.has_test(root):
        notes.append("there are no test-*.parquet or validation-*.parquet")
        parts = {"all": parquet.read_all(_probe(name, "parquet", root, image_size, values))}
    else:
        parts = _read(name, "parquet", root, image_size, values)
    return Layout("parquet", root, values, parts, Counter(), notes)


def _tables(root: Path) -> list[Path]:
    """Files in a folder that may list images."""
    return sorted(path for path in (*root.glob("*.csv"), *root.glob("*.jsonl")) if path.is_file())


def _part_lists(train: Path, tests: list[Path]) -> dict[Path, Part | None]:
    """The lists that Hugging Face's image folders have in their parts; empty where one part has none."""
    of_train = next(filter(listing.is_list, _tables(train)), None)
    of_test = next((path for folder in tests for path in _tables(folder) if listing.is_list(path)), None)
    return {of_train: "train", of_test: "test"} if of_train and of_test else {}


def _lists(root: Path, files: dict[Path, Part | None]) -> Layout:
    """Lists of images beside them, and the part that each has where it does not say so."""
    rows: list[tuple[str, str, Part | None]] = []
    for path, part in files.items():
        below = os.path.relpath(path.parent, root)
        for file, label, split in listing.read_list(path):
            rows.append((os.path.normpath(os.path.join(below, file)), label, part or split))
    classes = tuple(sorted({label for _, label, _ in rows}))
    where = " and ".join(map(str, files))
    notes = [f"images and classes are listed in {where}"]
    known = {os.path.normpath(root / file) for file, *_ in rows}
    if unlisted := sum(os.path.normpath(root / path) not in known for path in folder.pictures(root)):
        notes.append(f"left out, not in the list: {unlisted} pictures in {root}")
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
    probe = _probe(name, kind, root, image_size, values)
    parts: dict[str, Source] = {}
    names: tuple[Part, Part] = ("train", "test")
    for part in names:
        source: Source = resolve_name(READERS[kind])(probe, part)
        check(source, len(source.classes))
        parts[part] = source
    return parts


def _probe(name: str, kind: str, root: Path, image_size: int, values: dict[str, Any]) -> Dataset:
    """What a reader needs to list images; under a name for which no other folder can be remembered."""
    return Dataset(
        name=f"new {name}", family=f"new {name}", kind=kind, root=str(root.absolute()), image_size=image_size,
        classes=parquet.count_classes(root, values["label_column"]) if kind == "parquet" else 2,
        mean=[0.5] * 3, std=[0.5] * 3, **values,
    )  # fmt: skip


def _inner(root: Path) -> Path:
    """The folder itself, or the only folder in it, as unpacked archives have, however deep."""
    while True:
        entries = [entry for entry in root.iterdir() if not folder.is_junk(entry.name)]
        if len(entries) != 1 or not entries[0].is_dir() or _holds_files(entries[0]):
            return root
        root = entries[0]


def _loose(base: Path) -> list[str]:
    """A line on the pictures that lie beside the folders in a folder, if there are any."""
    loose = sum(suffix(entry.name) in SUFFIXES and not folder.is_junk(entry.name) for entry in base.iterdir())
    return [f"left out, in no class folder: {loose} pictures in {base}"] if loose else []


def _holds_files(root: Path) -> bool:
    """Whether pictures lie in the folder itself, so that it is a class."""
    return any(suffix(entry.name) in SUFFIXES for entry in root.iterdir() if entry.is_file())
