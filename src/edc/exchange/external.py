"""Condensed sets from elsewhere: an export, pictures or tensors, checked against the dataset they stand for.

Nothing is resized, clipped, reordered or left out unless an option says so, and what was is in the set's notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edc.config.rows import Dataset
from edc.data.images import ImageSet
from edc.errors import EdcError, unknown_name
from edc.exchange import fkd
from edc.exchange.foreign import NAMES, class_folder_names, from_folder, from_parquet, parquet_files
from edc.exchange.sets import LabelledSet, check_fits, read_set
from edc.exchange.tensors import CLASSES, IMAGES, SOFT_LABELS, pick, read_tensor_file, to_classes, to_logits, to_uint8


@dataclass(frozen=True)
class Options:
    """How a set from elsewhere is read.

    Attributes:
        labels: a file of soft labels (N, K), logits or probabilities, or a folder of FKD labels.
        values: what floats mean: unit or normalised.
        classes_file: the images' classes, where the set's file holds images alone.
        names: class: folders or metadata name the classes; index: they are numbers in label order.
        clip: clip float pixels to [0, 1].
        ipc: only the first images of every class.
    """

    labels: Path | None = None
    values: str | None = None
    classes_file: Path | None = None
    names: str = "class"
    clip: bool = False
    ipc: int | None = None


DEFAULTS = Options()


def read_external(
    data: Path,
    dataset: Dataset,
    classes: tuple[str, ...],
    options: Options = DEFAULTS,
    of: tuple[str, tuple[str, ...]] | None = None,
) -> LabelledSet:
    """A condensed set of any kind that fits the dataset, whose ``classes`` are in label order; class after class.

    Args:
        of: the dataset whose classes the set has, where they are more than ``classes``: its name, its class names.

    Raises:
        EdcError: file, value and what was expected, of the first thing that does not fit.
    """
    if not data.exists():
        raise EdcError(f"--data {data}: no such file or folder")
    if options.names not in NAMES:
        raise unknown_name("kind of names", options.names, NAMES, "--names")
    tensors = not data.is_dir() and data.suffix != ".parquet"
    if not tensors and (options.values or options.classes_file or options.clip):
        raise EdcError(f"--data {data}: pictures; --values, --classes and --clip are for files of tensors")
    if (data / "manifest.json").exists():
        if of or options.ipc or options.names != "class":
            raise EdcError(f"--data {data}: an edc export; --names, --ipc and --classes-of are for other sets")
        source = replace(read_set(data)[0], dataset=dataset)  # class after class
        check_fits(source.images, dataset, classes, str(data))
        return with_labels(source, options.labels, data)
    notes: list[str] = []
    origin: dict[str, Any] = {"file": data.name}
    name, all_classes = of or (dataset.name, classes)
    soft, numbered, paths = None, True, [] if tensors else parquet_files(data)
    if tensors:
        images, soft = from_tensors(data, dataset, all_classes, options, notes)
        origin["values"] = options.values or "uint8"
    elif paths:
        images, numbered = from_parquet(paths, all_classes, dataset, options.names)
    else:
        images, numbered = from_folder(data, all_classes, dataset, options.names), options.names == "index"
    if numbered:
        notes.append(order_assumed(data, all_classes, name))
    source = LabelledSet(images, dataset, origin | {"numbered": numbered, "notes": notes})
    if soft is not None:
        source = replace(source, labels={"static": to_logits(soft, images.labels, len(all_classes), data).numpy()})
    per_epoch = options.labels is not None and options.labels.is_dir()
    if not per_epoch:
        source = with_labels(source, options.labels, data)
    elif tensors or paths or of or options.ipc:
        raise EdcError(
            f"--labels {options.labels}: FKD labels belong to the views of all images of class folders; expected such "
            "a folder as --data, without --ipc and --classes-of"
        )
    if of:
        source = restricted(source, classes, f"--classes-of {name}")
        notes.append(f"{data}: {len(source.images)} of {len(images)} images are of the classes of {dataset.name!r}")
    source = selected(source, class_order(source.images.labels, classes, data, options.ipc))
    return with_fkd(source, options, data) if per_epoch else source


def with_fkd(source: LabelledSet, options: Options, data: Path) -> LabelledSet:
    """A set read from class folders with the FKD labels of a folder; its static labels are the means over the views."""
    assert options.labels is not None
    images = source.images
    folders = class_folder_names(data, images.classes, options.names)
    # ImageFolder counts the images of one folder after another, in the order of the folders' names.
    order = torch.cat([images.by_class(c) for c in sorted(range(len(folders)), key=folders.__getitem__)])
    labels = fkd.read(options.labels, images.labels, order, source.dataset)
    static = np.stack([labels.logits[:, i].mean(0, dtype=np.float32) for i in range(len(images))]).astype(np.float16)
    note = f"{options.labels}: labels of {labels.row.epochs} epochs; the static label of an image is the mean over them"
    origin = source.origin | {"notes": [*source.origin["notes"], note]}
    arrays = {"static": static, "logits": labels.logits}
    return replace(source, labels=arrays, relabel=labels.row, views=labels.views, origin=origin)


def from_tensors(
    data: Path, dataset: Dataset, classes: tuple[str, ...], options: Options, notes: list[str]
) -> tuple[ImageSet, Tensor | None]:
    """Images, and soft labels if there are any; for images alone the file of classes has their classes.

    Where a file has (N, K) floats for classes, they are soft labels, and the class is the largest.
    """
    content = read_tensor_file(data, notes)
    images = to_uint8(pick(content, IMAGES, "images", data), dataset, options.values, data, options.clip, notes)
    path, of_classes = data, content
    if options.classes_file:
        path, of_classes = options.classes_file, read_tensor_file(options.classes_file)
    labels = pick(of_classes, CLASSES, "classes", path)
    soft = next((content[name] for name in SOFT_LABELS if name in content), None)
    if labels.ndim == 2 and labels.is_floating_point() and soft is None:
        soft, labels = labels, labels.argmax(1)
    return ImageSet(images, to_classes(labels, len(images), len(classes), path), classes), soft


def order_assumed(data: Path, classes: Sequence[str], name: str) -> str:
    """A note on what numbers are taken for."""
    shown = [f"{c} = {classes[c]}" for c in range(len(classes)) if c < 3 or c == len(classes) - 1]
    if len(classes) > 4:
        shown.insert(3, "...")
    return f"{data}: classes are numbers, taken in the order of {name!r}: {', '.join(shown)}"


def with_labels(source: LabelledSet, path: Path | None, data: Path) -> LabelledSet:
    """A set with the soft labels (N, K) of a file, in the order of its images; as it is where there is no file."""
    if path is None:
        return source
    if source.labels:
        raise EdcError(f"--labels {path}: {data} has soft labels of its own; expected one of the two")
    images, soft = source.images, pick(read_tensor_file(path), ("labels", *SOFT_LABELS), "labels", path)
    return replace(source, labels={"static": to_logits(soft, images.labels, len(images.classes), path).numpy()})


def restricted(source: LabelledSet, classes: tuple[str, ...], where: str) -> LabelledSet:
    """The images of some of a set's classes, and the columns of these in its soft labels."""
    known = {name: c for c, name in enumerate(source.images.classes)}
    for name in classes:
        if name not in known:
            raise unknown_name("class", name, known, where)
    columns = torch.tensor([known[name] for name in classes])
    place = torch.full((len(known),), -1)
    place[columns] = torch.arange(len(classes))
    labels = {key: array[:, columns.numpy()] for key, array in source.labels.items()}
    images = source.images
    kept = replace(source, images=ImageSet(images.images, place[images.labels], classes), labels=labels)
    return selected(kept, (kept.images.labels >= 0).nonzero().flatten())


def selected(source: LabelledSet, order: Tensor) -> LabelledSet:
    """The images at ``order``, with their soft labels."""
    labels: dict[str, Any] = {key: array[order.numpy()] for key, array in source.labels.items()}
    return replace(source, images=source.images.select(order), labels=labels)


def class_order(labels: Tensor, classes: Sequence[str], path: Path, ipc: int | None = None) -> Tensor:
    """The order that sorts images with classes ``labels`` (N,) by class, int64 (N,); all need the same number.

    With ``ipc`` that of the first so many images of every class.
    """
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    if not (most := max(counts)):
        raise EdcError(f"{path}: no image in it")
    least = min(counts)
    name, largest = classes[counts.index(least)], classes[counts.index(most)]
    if ipc is not None and least < ipc:
        raise EdcError(f"--ipc {ipc}: {path}: class {name!r} has {least} images; expected at least {ipc}")
    if ipc is None and least < most:
        actual = f"class {name!r} has {least} images, class {largest!r} has {most}"
        remedy = f", or --ipc {least} for the first of each" if least else ""
        raise EdcError(f"{path}: {actual}; expected the same number of every class{remedy}")
    order = labels.argsort(stable=True)
    return order if ipc is None else torch.cat([part[:ipc] for part in order.split(counts)])
