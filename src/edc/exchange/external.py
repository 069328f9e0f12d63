"""Condensed sets from elsewhere: an export, an image folder or tensors, checked against the dataset they stand for.

Nothing is guessed that would change a number: nothing is resized or clipped, and the meaning of floats is an option.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from edc.config.rows import Dataset
from edc.data.folder import class_folders
from edc.data.images import ImageSet
from edc.errors import EdcError, unknown_name
from edc.exchange import tensors
from edc.exchange.formats import read_folder
from edc.exchange.sets import LabelledSet, check_fits, read_set


def read_external(
    data: Path,
    dataset: Dataset,
    classes: tuple[str, ...],
    values: str | None = None,
    classes_file: Path | None = None,
    labels: Path | None = None,
) -> LabelledSet:
    """Read a condensed set of any kind; its images class after class.

    Args:
        dataset: what it must fit: size, channels, number of classes.
        classes: the dataset's class names in label order.
        data, values, classes_file, labels: see :func:`edc.exchange.importing.import_set`.

    Raises:
        EdcError: file, value and what was expected, of the first thing that does not fit.
    """
    if not data.exists():
        raise EdcError(f"--data {data}: no such file or folder")
    if data.is_dir() and (values or classes_file):
        raise EdcError(f"--data {data}: a folder; --values and --classes are for files of tensors")
    soft = None
    if not data.is_dir():
        images, soft = from_tensors(data, dataset, classes, values, classes_file)
        source = LabelledSet(images, dataset, {"file": data.name, "values": values or "uint8"})
    elif (data / "manifest.json").exists():
        source = replace(read_set(data)[0], dataset=dataset)  # class after class
        check_fits(source.images, dataset, classes, str(data))
    else:
        source = LabelledSet(from_folder(data, dataset, classes), dataset, {"file": data.name})
    if labels is not None:
        if soft is not None or source.labels:
            raise EdcError(f"--labels {labels}: {data} has soft labels of its own; expected one of the two")
        soft = tensors.pick(tensors.read_tensor_file(labels), ("labels", *tensors.SOFT_LABELS), "labels", labels)
    if source.labels:
        return source
    order = class_order(source.images.labels, classes, data)
    if soft is not None:
        logits = tensors.to_logits(soft, source.images.labels, len(classes), labels or data)
        source = replace(source, labels={"static": logits[order].numpy()})
    return replace(source, images=source.images.select(order))


def from_folder(data: Path, dataset: Dataset, classes: tuple[str, ...]) -> ImageSet:
    """FOLDER/CLASS/*, every class one of the dataset's."""
    for name in class_folders(data):
        if name not in classes:
            raise unknown_name("class folder", name, classes, str(data))
    return read_folder(data, classes, dataset)


def from_tensors(
    data: Path, dataset: Dataset, classes: tuple[str, ...], values: str | None, classes_file: Path | None
) -> tuple[ImageSet, Tensor | None]:
    """Images, and soft labels if there are any; for images alone ``classes_file`` has their classes."""
    content = tensors.read_tensor_file(data)
    images = tensors.to_uint8(tensors.pick(content, tensors.IMAGES, "images", data), dataset, values, data)
    path, of_classes = (classes_file, tensors.read_tensor_file(classes_file)) if classes_file else (data, content)
    labels = tensors.pick(of_classes, tensors.CLASSES, "classes", path)
    labels = tensors.to_classes(labels, len(images), len(classes), path)
    soft = next((content[name] for name in tensors.SOFT_LABELS if name in content), None)
    return ImageSet(images, labels, classes), soft


def class_order(labels: Tensor, classes: Sequence[str], path: Path) -> Tensor:
    """The order that sorts images with classes ``labels`` (N,) by class, int64 (N,).

    Raises:
        EdcError: classes have different numbers of images, or there is no image.
    """
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    most = max(counts)
    if not most:
        raise EdcError(f"{path}: no image in it")
    for name, count in zip(classes, counts, strict=True):
        if count != most:
            actual = f"class {name!r} has {count} images, class {classes[counts.index(most)]!r} has {most}"
            raise EdcError(f"{path}: {actual}; expected the same number of every class")
    return labels.argsort(stable=True)
