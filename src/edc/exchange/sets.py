"""A condensed set with its soft labels in a folder of its own: what `edc export` writes and `edc import` keeps.

Besides the images in one of the layouts of :mod:`edc.exchange.formats` it has ``manifest.json`` and, with soft labels,
``static.npy`` (N, K) and ``logits.npy`` (E, N, K) in half precision.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from edc import __version__
from edc.config.rows import Dataset, RelabelRow
from edc.config.validation import Model, validate
from edc.data.images import ImageSet
from edc.data.replay import VIEWS
from edc.data.source import check_same_classes
from edc.errors import EdcError
from edc.exchange import ddranking, fkd
from edc.exchange.formats import LAYOUTS
from edc.storage import read_array, read_json, read_tensors, sha256, write_json, write_tensors

REMEDY = "export it, or import it, again"
NOT_REPLAYED = {"dataset", "precision", "images", "observers", "source", "ensemble", "min_accuracy"}
"""Values of a relabel row that decide how labels are made; all others decide which pixels an epoch shows."""


@dataclass(frozen=True)
class LabelledSet:
    """A condensed set that stands for a dataset, with soft labels or without.

    Attributes:
        origin: what is known of how it was made, as JSON.
        labels: fp16 logits: "static", one per image (N, K), and "logits", one per image and epoch (E, N, K).
        relabel: how labels per epoch were made; None where the set was not labelled here.
        views: of labels per epoch that came with an imported set; see :class:`~edc.data.replay.Replay`.
    """

    images: ImageSet
    dataset: Dataset
    origin: dict[str, Any]
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    relabel: RelabelRow | None = None
    views: dict[str, Tensor] = field(default_factory=dict)


class Manifest(Model):
    """``manifest.json``; see :class:`LabelledSet`. `labels` has shapes, `digest` is of images, classes and names."""

    format: Literal["edc condensed set, version 2"] = "edc condensed set, version 2"
    edc: str = __version__
    layout: Literal["folder", "parquet", "torch", "ddranking", "fkd"]
    names: Literal["class", "index", "sre2l"] = "class"
    shape: list[int]
    digest: str
    classes: list[str]
    class_hash: str
    dataset: Dataset
    origin: dict[str, Any]
    labels: dict[Literal["static", "logits"], list[int]]
    relabel: RelabelRow | None
    files: dict[str, dict[Literal["bytes", "sha256"], int | str]]


def write_set(folder: Path, layout: str, source: LabelledSet, names: str = "class") -> dict[str, Any]:
    """Write a set to an empty folder, class folders by ``names``; returns the manifest."""
    images, dataset = source.images, source.dataset.model_copy(update={"root": None})  # a path of this machine
    files = LAYOUTS[layout].write(folder, images, dataset, names)
    labels = dict(source.labels)
    if layout == "fkd":
        fkd.write(folder, source.images.images, labels.pop("logits", None), source.relabel, source.views)
    elif source.views:
        write_tensors(folder / VIEWS, source.views)
        files.append(VIEWS)
    for name, array in labels.items():
        np.save(folder / f"{name}.npy", array)
        files.append(f"{name}.npy")
    if layout == "ddranking" and "static" in source.labels:
        files.append(ddranking.write_labels(folder, source.labels["static"]))
    values = {
        "layout": layout,
        "names": names,
        "shape": list(images.images.shape),
        "digest": images.digest,
        "classes": list(images.classes),
        "class_hash": images.class_hash,
        "dataset": dataset,
        "origin": source.origin,
        "labels": {name: list(array.shape) for name, array in labels.items()},
        "relabel": source.relabel,
        "files": {n: {"bytes": (folder / n).stat().st_size, "sha256": sha256(folder / n)} for n in files},
    }
    write_json(folder / "manifest.json", manifest := Manifest.model_validate(values).model_dump(mode="json"))
    return manifest


def read_set(folder: Path) -> tuple[LabelledSet, dict[str, Any]]:
    """What :func:`write_set` wrote, and its manifest.

    Raises:
        EdcError: a file is missing or damaged, or the pixels are not those that were written.
    """
    path = folder / "manifest.json"
    try:
        values = read_json(path)
    except EdcError:
        raise EdcError(f"{path}: damaged or truncated; {REMEDY}") from None
    manifest: Manifest = validate(Manifest, values, str(path))
    for name, entry in manifest.files.items():
        if not (file := folder / name).is_file():
            raise EdcError(f"{file}: no such file; {REMEDY}")
        if {"bytes": file.stat().st_size, "sha256": sha256(file)} != entry:
            raise EdcError(f"{file}: damaged or changed since it was written; {REMEDY}")
    images = LAYOUTS[manifest.layout].read(folder, tuple(manifest.classes), manifest.dataset, manifest.names)
    if images.digest != manifest.digest:
        raise EdcError(f"{folder}: images, classes or their order changed since they were written; {REMEDY}")
    labels: dict[str, np.ndarray] = {name: read_array(folder / f"{name}.npy") for name in manifest.labels}
    views = read_tensors(folder / VIEWS) if VIEWS in manifest.files else {}
    return LabelledSet(images, manifest.dataset, manifest.origin, labels, manifest.relabel, views), values


def check_fits(images: ImageSet, dataset: Dataset, classes: Sequence[str], where: str) -> None:
    """Refuse images whose classes, their order or their size are not those of a dataset."""
    check_same_classes(classes, images.classes, f"dataset {dataset.name!r}", where)
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    if images.shape != shape:
        raise EdcError(f"{where}: images of {list(images.shape)}; expected {list(shape)}, nothing is resized")


def replay_choices(row: RelabelRow) -> dict[str, Any]:
    """The values of a relabel row that decide which pixels an epoch shows."""
    return row.model_dump(mode="json", exclude=NOT_REPLAYED)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to ``path`` when the block ends, and deleted when it fails."""
    refuse_existing(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, path)
    except OSError as error:
        raise EdcError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """Nothing is overwritten."""
    if os.path.lexists(path):
        raise EdcError(f"{path}: exists already; expected a new name, nothing is overwritten")
