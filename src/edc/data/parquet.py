"""Parquet files in the layout of Hugging Face datasets: a struct {bytes, path} and an integer per image.

Expected are ROOT/train-*.parquet and ROOT/test-*.parquet (or validation-*), or a list of the rows of the training files
that each part has. Files are read by whole row groups: with
shuffled streaming most of what is read is not used, so an image folder is faster then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from edc.config.rows import Dataset
from edc.data.listing import read_list
from edc.data.pictures import Pixels, Rows, View, decode_pictures
from edc.data.roots import resolve_root
from edc.data.source import Part, Source, check_same_classes, subset
from edc.errors import EdcError

TRAIN_PATTERNS = ("train-*.parquet", "train*.parquet")
TEST_PATTERNS = {
    "test": ("test-*.parquet", "test*.parquet"),
    "validation": ("validation-*.parquet", "validation*.parquet", "val*.parquet"),
}
IMAGE_COLUMNS = ("img", "image", "images", "picture", "jpg", "png")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class_id", "class", "target", "cls")


def read(config: Dataset, part: Part) -> Source:
    """Reads labels and class names of one part: those of the Hugging Face metadata, otherwise "0" to "K-1".

    Raises:
        EdcError: a part is missing, a file is not readable or lacks a column, class lists of files differ,
            `class_names` choose among classes without names, or the list names a row that is not there.
    """
    root = resolve_root(config)
    train = _files(root, TRAIN_PATTERNS)
    if config.files is not None:
        source = source_of(train, train, config)
        place = {Path(source.name(row)).name: row for row in range(len(source.labels))}
        names = [path for path, _, of in read_list(Path(config.files)) if of == part]
        for name in names:
            if name not in place:
                raise EdcError(f"{config.files}: {name!r}: no such row in {root}; expected FILE: row NUMBER")
        return subset(source, np.sort(np.array([place[name] for name in names], np.int64)))
    test = _files(root, _test_patterns(config.test_split))
    source = source_of(test if part == "test" else train, train + test, config)
    if part == "test" and len(source.labels) and (source.labels == -1).all():
        raise EdcError(f"{source.where}: all labels are -1, so hidden; set data.test_split: validation (or test)")
    return source


def read_all(config: Dataset) -> Source:
    """All rows of the training files."""
    train = _files(resolve_root(config), TRAIN_PATTERNS)
    return source_of(train, train, config)


def source_of(files: list[Path], of_all: list[Path], config: Dataset) -> Source:
    """The rows of files, whose classes and those of all files are the same."""
    classes = _classes(of_all[0], config)
    for path in of_all[1:]:
        check_same_classes(classes, _classes(path, config), str(of_all[0]), str(path))
    labels = [_labels(path, config.label_column) for path in files]
    starts = np.cumsum([0] + [len(part) for part in labels])

    def place(row: int) -> tuple[Path, int]:
        number = int(np.searchsorted(starts, row, side="right")) - 1
        return files[number], row - int(starts[number])

    def name(row: int) -> str:
        path, own = place(row)
        return f"{path}: row {own}"

    def decode(rows: Rows, out: Pixels, view: View) -> dict[int, str]:
        bad: dict[int, str] = {}
        edges = np.searchsorted(rows, starts)
        for path, start, first, last in zip(files, starts, edges, edges[1:], strict=False):
            if first < last:
                part = _decode_file(path, config.image_column, rows[first:last] - start, out[first:last], first, view)
                bad |= {int(first) + position: reason for position, reason in part.items()}
        return bad

    sizes = {path: path.stat().st_size for path in files}

    def stamp(row: int) -> str:
        path, own = place(row)
        return f"{path.name} {own} {sizes[path]}"  # a row's own size is known only after reading

    where = f"{files[0]}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    return Source(where, classes, np.concatenate(labels), name, decode, stamp)


def find_columns(root: Path) -> tuple[str, str]:
    """The columns of images and of labels, by their types and usual names.

    Raises:
        EdcError: no column is recognised, or several are and none has a usual name.
    """
    path = _files(root, TRAIN_PATTERNS)[0]
    with _opened(path) as file:
        schema = file.schema_arrow
    images = [name for name in schema.names if _holds_pictures(schema.field(name).type)]
    labels = [name for name in schema.names if pa.types.is_integer(schema.field(name).type)]
    columns = ", ".join(f"{name} ({schema.field(name).type})" for name in schema.names)
    chosen = []
    for found, usual, what in ((images, IMAGE_COLUMNS, "images"), (labels, LABEL_COLUMNS, "integer labels")):
        known = [name for name in usual if name in found]
        if not known and len(found) != 1:
            raise EdcError(
                f"{path}: no column of {what} recognised among {columns}; expected one of {', '.join(usual)}"
            )
        chosen.append((known or found)[0])
    return chosen[0], chosen[1]


def labelled_split(root: Path, label: str) -> str | None:
    """ "validation", where the labels of the test files are hidden (all -1) and there are validation files."""
    test, validation = (_files(root, TEST_PATTERNS[name], required=False) for name in ("test", "validation"))
    hidden = bool(test) and all((_labels(path, label) == -1).all() for path in test)
    return "validation" if hidden and validation else None


def has_test(root: Path) -> bool:
    """Whether there are test or validation files."""
    return bool(_files(root, _test_patterns(None), required=False))


def unused(root: Path, split: str | None) -> list[Path]:
    """The parquet files that are read for neither part, sorted by name."""
    read = {*_files(root, TRAIN_PATTERNS), *_files(root, _test_patterns(split), required=False)}
    return sorted(set(root.glob("*.parquet")) - read)


def count_classes(root: Path, label: str) -> int:
    """K, from the names in the metadata, else from the largest label."""
    files = _files(root, TRAIN_PATTERNS)
    return max(2, len(_names(files[0], label) or ()), *(int(_labels(path, label).max(initial=0)) + 1 for path in files))


def _test_patterns(split: str | None) -> tuple[str, ...]:
    return TEST_PATTERNS[split] if split else TEST_PATTERNS["test"] + TEST_PATTERNS["validation"]


def _files(root: Path, patterns: tuple[str, ...], required: bool = True) -> list[Path]:
    """The files of the first pattern that has any, sorted by name."""
    for pattern in patterns:
        if files := sorted(root.glob(pattern), key=lambda path: path.name):
            return files
    if not required:
        return []
    raise EdcError(f"{root}: no file {patterns[0]}; expected train-*.parquet and test-*.parquet (or validation-*)")


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise EdcError(f"{path}: not readable as parquet ({' '.join(str(error).split())})") from None


def _classes(path: Path, config: Dataset) -> tuple[str, ...]:
    """Class names of a file, after its columns are checked."""
    image, label = config.image_column, config.label_column
    with _opened(path) as file:
        schema = file.schema_arrow
    for column in (image, label):
        if column not in schema.names:
            columns = ", ".join(schema.names)
            raise EdcError(f"{path}: no column {column!r}; expected {image!r} and {label!r}, found {columns}")
    kind = schema.field(image).type
    if not _holds_pictures(kind):
        raise EdcError(f"{path}: column {image!r} is {kind}; expected struct<bytes: binary, path: string>")
    if not pa.types.is_integer(schema.field(label).type):
        raise EdcError(f"{path}: column {label!r} is {schema.field(label).type}; expected integers")
    names = _names(path, label)
    if names is None:
        if config.class_names is not None:
            raise EdcError(f"{path}: no class names of {label!r} in the metadata; class_names needs them")
        return tuple(str(c) for c in range(config.classes))
    return names


def _holds_pictures(kind: pa.DataType) -> bool:
    """Whether a column holds encoded pictures: bytes, or a struct with bytes."""
    encoded = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    return bool(pa.types.is_binary(encoded) or pa.types.is_large_binary(encoded))


def _names(path: Path, label: str) -> tuple[str, ...] | None:
    """Class names in the Hugging Face metadata of a file."""
    with _opened(path) as file:
        schema = file.schema_arrow
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        names = features.get(label, {}).get("names")
    except (ValueError, AttributeError):
        raise EdcError(f"{path}: metadata 'huggingface' is not readable; expected info.features as JSON") from None
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(entry, str) for entry in names):
        raise EdcError(f"{path}: class names of {label!r} in the metadata are {names!r}; expected a list of strings")
    return tuple(names)


def _labels(path: Path, column: str) -> Rows:
    with _opened(path) as file:
        labels = file.read(columns=[column]).column(column)
        if labels.null_count:
            row = labels.is_null().to_numpy().argmax()
            raise EdcError(f"{path}: row {row}: no label in column {column!r}; expected an integer")
        return labels.cast(pa.int64()).to_numpy().astype(np.int64)


def _decode_file(path: Path, column: str, rows: Rows, out: Pixels, offset: int, view: View) -> dict[int, str]:
    """Decodes rows (ascending) of one file; `offset` is the view's position of the first of them."""
    bad: dict[int, str] = {}
    start = 0
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            first, last = (int(edge) for edge in np.searchsorted(rows, (start, end)))
            if first < last:
                images = file.read_row_group(group, columns=[column]).column(column).take(rows[first:last] - start)
                encoded = [entry["bytes"] if isinstance(entry, dict) else entry for entry in images.to_pylist()]
                part = decode_pictures(encoded, out[first:last], view, offset + first)
                bad |= {first + position: reason for position, reason in part.items()}
            start = end
    return bad
