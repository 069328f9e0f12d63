"""Pictures from elsewhere: class folders by name or number, and parquet files in the layout of Hugging Face."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from edc.config.rows import Dataset
from edc.data.folder import class_folders
from edc.data.images import ImageSet
from edc.errors import EdcError, unknown_name
from edc.exchange.formats import decoded, read_folder
from edc.exchange.tensors import to_classes

NAMES = ("class", "index")
IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label", "labels", "class_id", "fine_label")


def from_folder(folder: Path, classes: tuple[str, ...], dataset: Dataset, names: str) -> ImageSet:
    """CLASS/*, or with ``names`` index NUMBER/*, where text may precede the number: 00000, new000, class_0."""
    return read_folder(folder, classes, dataset, class_folder_names(folder, classes, names))


def class_folder_names(folder: Path, classes: tuple[str, ...], names: str) -> Sequence[str]:
    """The folders of the classes, in label order."""
    if names == "index":
        return numbered(folder, len(classes))
    for name in class_folders(folder):
        if name not in classes:
            error = unknown_name("class folder", name, classes, str(folder))
            raise EdcError(f"{error}, or --names index" if re.fullmatch(r"\D*\d+", name) else str(error))
    return classes


def numbered(folder: Path, count: int) -> list[str]:
    """The names of class folders 0 to ``count - 1`` by the number at their end."""
    of_number: dict[int, str] = {}
    for name in class_folders(folder):
        match = re.fullmatch(r"\D*([0-9]+)", name)
        if match is None:
            raise EdcError(f"--names index: {folder / name}: no number at the end of its name")
        other = of_number.setdefault(int(match[1]), name)
        if other != name:
            raise EdcError(f"--names index: {folder}: folders {other!r} and {name!r} both have number {int(match[1])}")
    if missing := [c for c in range(count) if c not in of_number]:
        raise EdcError(f"--names index: {folder}: no folder with number {missing[0]}; expected 0 to {count - 1}")
    for number in sorted(set(of_number) - set(range(count)))[:1]:
        raise EdcError(f"--names index: {folder / of_number[number]}: number {number}; expected 0 to {count - 1}")
    return [of_number[c] for c in range(count)]


def parquet_files(data: Path) -> list[Path]:
    """The parquet files of a training part: a file, or those in a folder or its ``data``; empty for anything else."""
    if data.is_file():
        return [data]
    found = sorted([*data.glob("*.parquet"), *data.glob("data/*.parquet")])
    return [path for path in found if path.name.startswith("train")] or found


def from_parquet(
    paths: Sequence[Path], classes: tuple[str, ...], dataset: Dataset, names: str
) -> tuple[ImageSet, bool]:
    """The images of parquet files, and whether their classes are numbers: the metadata don't name them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    encoded: list[bytes] = []
    rows: list[str] = []
    labels, by_number = [], names == "index"
    for path in paths:
        try:
            schema = pq.read_schema(path)
            image = column(schema.names, (*IMAGE_COLUMNS, dataset.image_column), path)
            label = column(schema.names, (*LABEL_COLUMNS, dataset.label_column), path)
            table = pq.read_table(path, columns=[image, label])
        except (OSError, pa.ArrowException) as error:
            raise EdcError(f"{path}: not readable as parquet ({' '.join(str(error).split())})") from None
        if not pa.types.is_integer(table.schema.field(label).type) or table.column(label).null_count:
            raise EdcError(f"{path}: column {label!r} is {table.schema.field(label).type}; expected an integer per row")
        for row, entry in enumerate(table.column(image).to_pylist()):
            content = entry.get("bytes") if isinstance(entry, dict) else entry
            if not isinstance(content, bytes):
                raise EdcError(f"{path}: column {image!r}: row {row} has no bytes of a picture")
            rows.append(f"{path}: row {row}")
            encoded.append(content)
        known = None if names == "index" else class_names(schema.metadata, label, path)
        if known and not set(known) <= set(classes) and known == [str(c) for c in range(len(known))]:
            known = None
        by_number |= known is None
        numbers = to_classes(torch.tensor(table.column(label).to_pylist()), len(table), len(known or classes), path)
        if known is not None:
            for name in known:
                if name not in classes:
                    raise EdcError(f"{unknown_name('class', name, classes, str(path))}, or --names index")
            numbers = torch.tensor([classes.index(name) for name in known])[numbers]
        labels.append(numbers)
    return ImageSet(decoded(encoded, rows, dataset), torch.cat(labels), classes), by_number


def column(present: Sequence[str], names: Sequence[str], path: Path) -> str:
    """The first of some columns that a file has."""
    for name in names:
        if name in present:
            return name
    raise EdcError(f"{path}: no column {' or '.join(dict.fromkeys(names))}; found {', '.join(present)}")


def class_names(metadata: dict[bytes, bytes] | None, label: str, path: Path) -> list[str] | None:
    """Class names in the metadata of Hugging Face; None where there are none."""
    try:
        info = json.loads((metadata or {}).get(b"huggingface", b"{}")).get("info", {})
        names = info.get("features", {}).get(label, {}).get("names")
    except (ValueError, AttributeError):
        raise EdcError(f"{path}: metadata 'huggingface' is not readable; expected info.features as JSON") from None
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise EdcError(f"{path}: class names of {label!r} in the metadata are {names!r}; expected a list of strings")
    return names
