"""Image lists: a CSV file with a path, a label and a split (train or test) per image; pictures stay where they are.

Lists made elsewhere may be JSON lines, such as the metadata.jsonl of Hugging Face's image folders.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edc.config.rows import Dataset
from edc.data.folder import bytes_of
from edc.data.pictures import Pixels, Rows, View, decode_pictures
from edc.data.roots import resolve_root
from edc.data.source import Part, Source
from edc.errors import EdcError
from edc.storage import write_text

COLUMNS = ("path", "label", "split")
PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "target", "category", "class_id")
SPLIT_COLUMNS = ("split", "part", "subset", "set")
PARTS: dict[str, Part] = {"train": "train", "training": "train", "test": "test", "testing": "test"}
VALIDATION = ("val", "valid", "validation")
"""Names of splits, in lower case. Validation images are tested on where the list has no test images."""


def read(config: Dataset, part: Part) -> Source:
    """Lists one part of an image list; classes are the sorted labels of both parts.

    Raises:
        EdcError: `files` is missing or not such a list.
    """
    if config.files is None:
        raise EdcError(f"dataset {config.name}: no `files`; expected a CSV file with the columns {', '.join(COLUMNS)}")
    where = Path(config.files)
    rows = read_list(where)
    for number, row in enumerate(rows, start=2):
        if row[2] is None:
            raise EdcError(f"{where}: line {number}: no split; expected train or test")
    classes = tuple(sorted({label for _, label, _ in rows}))
    return listed(resolve_root(config), [(path, label) for path, label, of in rows if of == part], classes, str(where))


def listed(root: Path, entries: list[tuple[str, str]], classes: tuple[str, ...], where: str) -> Source:
    """A source of picture files.

    Args:
        root: folder that paths are relative to.
        entries: path and class name of each row.
        classes: class names in label order.
        where: the list, for messages.
    """
    place = {name: position for position, name in enumerate(classes)}

    def decode(rows: Rows, out: Pixels, view: View) -> dict[int, str]:
        return decode_pictures([root / entries[row][0] for row in rows], out, view)

    return Source(
        where=where,
        classes=classes,
        labels=np.array([place[label] for _, label in entries], np.int64),
        name=lambda row: str(root / entries[row][0]),
        decode=decode,
        stamp=lambda row: f"{Path(entries[row][0]).as_posix()} {bytes_of(root / entries[row][0])}",
    )


def read_list(path: Path) -> list[tuple[str, str, Part | None]]:
    """Path, label and part of each image of a CSV file or of JSON lines.

    The part is None where there is no column for it, and for validation images beside test images.

    Columns are recognised by :data:`PATH_COLUMNS`, :data:`LABEL_COLUMNS` and :data:`SPLIT_COLUMNS`, in any capitals.

    Raises:
        EdcError: the file cannot be read, lacks a column, or has a line without a value.
    """
    kind = "JSON lines" if path.suffix == ".jsonl" else "CSV"
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""))) if kind == "CSV" else _json_lines(text)
    except (OSError, ValueError, AttributeError, csv.Error) as error:
        raise EdcError(f"{path}: not readable as {kind} in UTF-8 ({error})") from None
    if len(lines) < 2:
        raise EdcError(f"{path}: has no rows; expected a header and a line per image")
    header = [name.strip().lower() for name in lines[0]]
    of_path, of_label, of_split = (_column(header, names) for names in (PATH_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS))
    if of_path is None or of_label is None:
        raise EdcError(f"{path}: columns {', '.join(lines[0])}; expected path and label, and split where it is given")
    rows: list[tuple[str, str, Part | None]] = []
    words: list[str] = []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        if len(line) != len(header) or not line[of_path] or not line[of_label]:
            raise EdcError(f"{path}: line {number}: {','.join(line)!r}; expected {len(header)} values")
        word = "" if of_split is None else line[of_split].strip().lower()
        if of_split is not None and word not in (*PARTS, *VALIDATION):
            names = ", ".join((*PARTS, *VALIDATION))
            raise EdcError(f"{path}: line {number}: split {line[of_split]!r}; expected one of {names}")
        words.append(word)
        rows.append((line[of_path], line[of_label], PARTS.get(word)))
    if any(word in VALIDATION for word in words) and not any(split == "test" for *_, split in rows):
        rows = [(*row[:2], "test" if word in VALIDATION else row[2]) for row, word in zip(rows, words, strict=True)]
    return rows


def is_list(path: Path) -> bool:
    """Whether a CSV file has columns of paths and labels."""
    try:
        return bool(read_list(path))
    except EdcError:
        return False


def write_list(path: Path, rows: Iterable[tuple[str, str, Part]]) -> None:
    """Write a CSV file of paths, labels and splits."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    write_text(path, text.getvalue())


def _json_lines(text: str) -> list[list[str]]:
    """The names of the first object, and every object's values of these."""
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    names = list(rows[0]) if rows else []
    return [names, *([str(row.get(name, "")) for name in names] for row in rows)]


def _column(header: list[str], names: tuple[str, ...]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)
