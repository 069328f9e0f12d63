"""Condensed sets from elsewhere: an export, an image folder or tensors, checked against the dataset they stand for.

Nothing is guessed that would change a number: nothing is resized or clipped, and the meaning of floats is an option.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from edc.config.rows import Dataset, twice_chance
from edc.data.folder import class_folders
from edc.data.images import ImageSet
from edc.errors import EdcError, unknown_name
from edc.exchange.formats import read_folder
from edc.exchange.sets import LabelledSet, check_fits, read_set
from edc.nets.weights import first_line

IMAGES = ("images", "image", "x")
CLASSES = ("labels", "classes", "targets", "y")
SOFT_LABELS = ("static", "soft_labels", "logits")
VALUES = ("unit", "normalised")
SMALLEST = 1e-6
"""Smaller probabilities are raised to this before their logarithm is taken."""

LOADERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": load_file,
    **dict.fromkeys((".pt", ".pth"), lambda path: torch.load(path, map_location="cpu", weights_only=True)),
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".npz": lambda path: dict(np.load(path, allow_pickle=False)),
}
"""By file name extension; none executes code of the file."""


def read_external(
    data: Path,
    dataset: Dataset,
    classes: tuple[str, ...],
    values: str | None = None,
    classes_file: Path | None = None,
    labels: Path | None = None,
) -> LabelledSet:
    """A condensed set of any kind that fits the dataset, whose ``classes`` are in label order; class after class.

    The other arguments are those of :func:`edc.exchange.importing.import_set`.

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
        for name in class_folders(data):
            if name not in classes:
                raise unknown_name("class folder", name, classes, str(data))
        source = LabelledSet(read_folder(data, classes, dataset), dataset, {"file": data.name})
    if labels is not None:
        if soft is not None or source.labels:
            raise EdcError(f"--labels {labels}: {data} has soft labels of its own; expected one of the two")
        soft = pick(read_tensor_file(labels), ("labels", *SOFT_LABELS), "labels", labels)
    if source.labels:
        return source
    order = class_order(source.images.labels, classes, data)
    if soft is not None:
        logits = to_logits(soft, source.images.labels, len(classes), labels or data)
        source = replace(source, labels={"static": logits[order].numpy()})
    return replace(source, images=source.images.select(order))


def from_tensors(
    data: Path, dataset: Dataset, classes: tuple[str, ...], values: str | None, classes_file: Path | None
) -> tuple[ImageSet, Tensor | None]:
    """Images, and soft labels if there are any; for images alone ``classes_file`` has their classes."""
    content = read_tensor_file(data)
    images = to_uint8(pick(content, IMAGES, "images", data), dataset, values, data)
    path, of_classes = (classes_file, read_tensor_file(classes_file)) if classes_file else (data, content)
    labels = pick(of_classes, CLASSES, "classes", path)
    labels = to_classes(labels, len(images), len(classes), path)
    soft = next((content[name] for name in SOFT_LABELS if name in content), None)
    return ImageSet(images, labels, classes), soft


def class_order(labels: Tensor, classes: Sequence[str], path: Path) -> Tensor:
    """The order that sorts images with classes ``labels`` (N,) by class, int64 (N,); all need the same number."""
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    if not (most := max(counts)):
        raise EdcError(f"{path}: no image in it")
    for name, count in zip(classes, counts, strict=True):
        if count != most:
            actual = f"class {name!r} has {count} images, class {classes[counts.index(most)]!r} has {most}"
            raise EdcError(f"{path}: {actual}; expected the same number of every class")
    return labels.argsort(stable=True)


def read_tensor_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; under ``""`` the tensor of a file that holds one without a name."""
    if not path.is_file():
        raise EdcError(f"{path}: no such file")
    if path.suffix not in LOADERS:
        raise EdcError(f"{path}: unknown kind {path.suffix!r}; expected an image folder or {', '.join(LOADERS)}")
    try:
        content = LOADERS[path.suffix](path)
    except Exception as error:  # what unpicklers and parsers raise on broken files is an open list
        raise EdcError(f"{path}: not readable as {path.suffix} ({first_line(error)[:200]})") from None
    if isinstance(content, (tuple, list)) and len(content) == 2:
        content = {"images": content[0], "labels": content[1]}
    elif not isinstance(content, dict):
        content = {"": content}
    for name, value in content.items():
        if not isinstance(value, (Tensor, np.ndarray)) or not isinstance(name, str):
            raise EdcError(f"{path}: {name!r} is a {type(value).__name__}; expected tensors by name")
    return {name: torch.as_tensor(value) for name, value in content.items()}


def pick(tensors: dict[str, Tensor], names: Sequence[str], what: str, path: Path) -> Tensor:
    """The first tensor of some names, or the only tensor of a file without names."""
    for name in names:
        if name in tensors:
            return tensors[name]
    if set(tensors) == {""} and (what != "classes" or tensors[""].ndim == 1):
        return tensors[""]
    present = ", ".join(repr(name) for name in sorted(tensors) if name) or "no name"
    hint = ", or --classes FILE" if what == "classes" else ""
    raise EdcError(f"{path}: no {what} in it; expected a tensor {' or '.join(map(repr, names))}, found {present}{hint}")


def to_uint8(images: Tensor, dataset: Dataset, values: str | None, path: Path) -> Tensor:
    """Images (N, C, S, S), (N, S, S, C) or, with one channel, (N, S, S), as uint8 (N, C, S, S).

    Floats are in [0, 1] where ``values`` is unit, and normalised by the dataset's mean and deviation where it is that.
    """
    if values is not None and values not in VALUES:
        raise unknown_name("meaning of values", values, VALUES, "--values")
    channels, size = dataset.channels, dataset.image_size
    if images.ndim == 3 and channels == 1:
        images = images[:, None]
    shape = list(images.shape)
    if shape[1:] == [size, size, channels]:
        images = images.permute(0, 3, 1, 2)
    elif shape[1:] != [channels, size, size]:
        expected = f"(N, {channels}, {size}, {size}) or (N, {size}, {size}, {channels})"
        raise EdcError(f"{path}: images of shape {shape}; expected {expected}, nothing is resized")
    if images.dtype == torch.uint8:
        if values is not None:
            raise EdcError(f"--values {values}: {path} holds uint8; expected no --values")
        return images
    if not images.is_floating_point():
        raise EdcError(f"{path}: images of dtype {str(images.dtype)[6:]}; expected uint8 or floats")
    if values is None:
        raise EdcError(f"{path}: images are floats; expected --values {' or '.join(VALUES)} to say what they mean")
    pixels = images.to(torch.float64)
    if values == "normalised":
        mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (dataset.mean, dataset.std))
        pixels = pixels * std + mean
    low, high = (float(v) for v in (pixels.min(), pixels.max())) if len(pixels) else (0.0, 0.0)
    slack = 0.5 / 255  # half a grey level: removed by rounding
    if not (low >= -slack and high <= 1 + slack):
        actual = f"values {low:.4g} to {high:.4g} as --values {values}"
        raise EdcError(f"{path}: {actual}; expected [0, 1], nothing is clipped")
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8)


def to_classes(classes: Tensor, images: int, count: int, path: Path) -> Tensor:
    """Classes of N images as int64 (N,), each from 0 to ``count - 1``."""
    if classes.is_floating_point() or classes.dtype == torch.bool or list(classes.shape) != [images]:
        actual = f"{list(classes.shape)} of {str(classes.dtype)[6:]}"
        raise EdcError(f"{path}: classes are {actual}; expected one integer for each of {images} images")
    for i in ((classes < 0) | (classes >= count)).nonzero().flatten()[:1].tolist():
        raise EdcError(f"{path}: image {i} has class {int(classes[i])}; expected 0 to {count - 1}")
    return classes.to(torch.int64)


def to_logits(labels: Tensor, classes: Tensor, count: int, path: Path) -> Tensor:
    """Soft labels (N, K) as fp16 logits; of probabilities they are the logarithms less the row's mean.

    Rows in [0, 1] that add up to 1 are taken for probabilities. Labels that contradict the images' classes (N,) are
    refused.
    """
    if labels.ndim == 3:
        raise EdcError(f"{path}: labels per epoch; they need the augmentation they belong to, as in an `edc export`")
    expected = [len(classes), count]
    if list(labels.shape) != expected or not labels.is_floating_point():
        actual = f"{list(labels.shape)} of {str(labels.dtype)[6:]}"
        raise EdcError(f"{path}: soft labels are {actual}; expected {expected} of floats, images by classes")
    values = labels.to(torch.float32)
    if bool(((values >= 0) & (values <= 1)).all() and ((values.sum(1) - 1).abs() < 1e-2).all()):
        values = values.clamp_min(SMALLEST).log()
        values = values - values.mean(1, keepdim=True)
    stored = values.to(torch.float16)
    if not bool(stored.isfinite().all()):
        raise EdcError(f"{path}: soft labels have values that are not finite in half precision")
    agreement, least = float((values.argmax(1) == classes).float().mean()), twice_chance(count)
    if agreement < least:
        raise EdcError(
            f"{path}: soft labels agree with the class of {100 * agreement:.1f} % of the images; expected at least "
            f"{100 * least:.1f} %: are rows or columns in another order?"
        )
    return stored
