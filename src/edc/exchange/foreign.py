"""Condensed sets made elsewhere, as files: what is in them, checked against the dataset they stand for.

Nothing is guessed that would change a number: nothing is resized, clipped or reordered, and floats need a word on what
they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edc.data.folder import class_folders, pictures
from edc.data.images import ImageSet
from edc.errors import EdcError, unknown_name
from edc.exchange.handover import StoredLogits, decoded, is_handed_over, read_handed
from edc.config.rows import Dataset, twice_chance

NAMES = {
    "images": ("images", "image", "x"),
    "classes": ("labels", "classes", "targets", "y"),
    "labels": ("static", "soft_labels", "logits"),
}
"""What tensors are called in files of several, by what is meant."""
VALUES = ("unit", "normalised")
FLOOR = 1e-6
"""Smallest probability that becomes a logit: 0 has none."""

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Found:
    """A set made elsewhere.

    Attributes:
        images: uint8 (N, C, S, S), classes and class names, class after class.
        values: what the pixels were before: uint8, unit or normalised.
        static: soft labels as fp16 logits (N, K), or None.
        probabilities: whether those were probabilities.
        logits: labels per epoch (E, N, K), or None.
        manifest: of an exported set, else None.
    """

    images: ImageSet
    values: str
    static: Tensor | None
    probabilities: bool = False
    logits: StoredLogits | None = None
    manifest: dict[str, Any] | None = None


def read_foreign(
    data: Path,
    dataset: Dataset,
    classes: Sequence[str],
    values: str | None,
    classes_file: Path | None,
    labels: Path | None,
) -> Found:
    """Read a condensed set, whatever it came in.

    Args:
        data: an exported set, an image folder, or a file of tensors.
        dataset: what it must fit: size, channels, number of classes.
        classes: the dataset's class names in label order.
        values: what floats mean: unit is [0, 1], normalised is the dataset's mean and standard deviation taken off.
        classes_file: the images' classes (N,), where `data` holds images alone.
        labels: soft labels (N, K), where `data` has none.

    Raises:
        EdcError: one line on what does not fit: file, value, expectation.
    """
    fixed, manifest, logits, pixels = None, None, None, "uint8"
    if not data.exists():
        raise EdcError(f"--data {data}: no such file or folder")
    if values is not None and values not in VALUES:
        raise unknown_name("meaning of values", values, VALUES, "--values")
    if data.is_dir() and (values or classes_file):
        raise EdcError(f"--data {data}: a folder; --values and --classes are for files of tensors")
    if data.is_dir() and is_handed_over(data):
        handed = read_handed(data)
        same_classes(handed.images.classes, classes, str(data))
        images, classes_of, logits, manifest = (
            handed.images.images,
            handed.images.labels,
            handed.logits,
            handed.manifest,
        )
        size = [dataset.channels, dataset.image_size, dataset.image_size]
        if list(images.shape[1:]) != size:
            raise EdcError(f"{data}: images of {list(images.shape[1:])}; expected {size}, for nothing is resized")
        fixed = torch.from_numpy(handed.static.read()) if handed.static else None
    elif data.is_dir():
        images, classes_of = image_folder(data, dataset, classes)
    else:
        tensors = read_tensor_file(data)
        images, pixels = to_uint8(named(tensors, "images", data), dataset, values, data)
        given, where = (tensors, data) if classes_file is None else (read_tensor_file(classes_file), classes_file)
        classes_of = integer_classes(named(given, "classes", where), len(images), len(classes), where)
        fixed = next((tensors[name] for name in NAMES["labels"] if name in tensors), None)
    order = equal_shares(classes_of, classes, data)
    probabilities = False
    if labels is not None and fixed is not None:
        raise EdcError(f"--labels {labels}: {data} has soft labels of its own; expected one of the two")
    if labels is not None:
        given = read_tensor_file(labels)
        fixed = given["labels"] if "labels" in given else named(given, "labels", labels)
    if fixed is not None:
        if manifest is None:
            fixed, probabilities = soft_labels(fixed, classes_of, len(classes), labels or data)
        fixed = fixed[order]
    if logits is not None and not torch.equal(order, torch.arange(len(order))):
        raise EdcError(f"{data}: images are not class after class, which labels per epoch need")
    found = ImageSet(images[order].contiguous(), classes_of[order], tuple(classes))
    return Found(found, pixels, fixed, probabilities, logits, manifest)


def same_classes(found: Sequence[str], expected: Sequence[str], where: str) -> None:
    """Refuses another number of classes, or another order of them."""
    if len(found) != len(expected):
        raise EdcError(f"{where}: {len(found)} classes; expected {len(expected)}, as in the dataset")
    for c, (one, other) in enumerate(zip(found, expected, strict=True)):
        if one != other:
            raise EdcError(f"{where}: class {c} is {one!r}; expected {other!r}, as in the dataset")


def image_folder(folder: Path, dataset: Dataset, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Images and classes of FOLDER/CLASS/*, in the order of the classes, then of the files' names."""
    there = class_folders(folder)
    if len(there) != len(classes):
        raise EdcError(f"{folder}: {len(there)} classes; expected {len(classes)} folders, the dataset's classes")
    for name in there:
        if name not in classes:
            raise unknown_name("class folder", name, classes, str(folder))
    found = [pictures(folder / name) for name in classes]
    paths = [folder / name / picture for name, some in zip(classes, found, strict=True) for picture in some]
    counts = torch.tensor([len(some) for some in found])
    images = decoded(paths, [str(path) for path in paths], dataset)
    return images, torch.arange(len(classes)).repeat_interleave(counts)


def read_tensor_file(path: Path) -> Tensors:
    """The tensors of a file by name, the only one of a file without names under ``""``; no code of it is executed."""
    if not path.is_file():
        raise EdcError(f"{path}: no such file")
    if path.suffix not in LOADERS:
        raise EdcError(f"{path}: unknown kind {path.suffix!r}; expected an image folder or {', '.join(LOADERS)}")
    try:
        found = LOADERS[path.suffix](path)
    except EdcError:
        raise
    except Exception as error:  # what unpicklers and parsers raise on broken files is an open list
        why = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise EdcError(f"{path}: not readable as {path.suffix} ({why[0][:200]})") from None
    if isinstance(found, (tuple, list)) and len(found) == 2:
        found = {"images": found[0], "labels": found[1]}
    elif not isinstance(found, dict):
        found = {"": found}
    for name, value in found.items():
        if not isinstance(value, (Tensor, np.ndarray)) or not isinstance(name, str):
            raise EdcError(f"{path}: {name!r} is a {type(value).__name__}; expected tensors by name")
    return {name: torch.as_tensor(value) for name, value in found.items()}


def _safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


LOADERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": _safetensors,
    ".pt": lambda path: torch.load(path, map_location="cpu", weights_only=True),
    ".pth": lambda path: torch.load(path, map_location="cpu", weights_only=True),
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".npz": lambda path: dict(np.load(path, allow_pickle=False)),
}
"""By ending."""


def named(tensors: Tensors, what: str, path: Path) -> Tensor:
    """The images, classes or labels of a file, by one of their usual names."""
    names = NAMES[what]
    for name in names:
        if name in tensors:
            return tensors[name]
    if set(tensors) == {""} and (what != "classes" or tensors[""].ndim == 1):
        return tensors[""]
    if what == "classes":
        raise EdcError(f"{path}: no classes of the images in it; expected a tensor {names[0]!r}, or --classes FILE")
    found = ", ".join(repr(name) for name in sorted(tensors)) or "nothing"
    raise EdcError(f"{path}: no {what} in it; expected a tensor {' or '.join(map(repr, names))}, found {found}")


def to_uint8(images: Tensor, dataset: Dataset, values: str | None, path: Path) -> tuple[Tensor, str]:
    """Images as uint8 (N, C, S, S), and what their values were.

    Args:
        images: (N, C, S, S), (N, S, S, C) or, of one channel, (N, S, S); uint8, or floats.
        dataset: size, channels, mean and standard deviation.
        values: what floats mean.
        path: for messages.
    """
    channels, size = dataset.channels, dataset.image_size
    if images.ndim == 3 and channels == 1:
        images = images[:, None]
    shape = list(images.shape)
    if shape[1:] == [size, size, channels]:
        images = images.permute(0, 3, 1, 2)
    elif shape[1:] != [channels, size, size]:
        raise EdcError(
            f"{path}: images of shape {shape}; expected (N, {channels}, {size}, {size}) or (N, {size}, {size}, "
            f"{channels}), for nothing is resized"
        )
    if images.dtype == torch.uint8:
        if values is not None:
            raise EdcError(f"--values {values}: {path} holds uint8; expected no --values")
        return images, "uint8"
    if not images.is_floating_point():
        raise EdcError(f"{path}: images of dtype {str(images.dtype)[6:]}; expected uint8 or floats")
    if values is None:
        raise EdcError(f"{path}: images are floats; expected --values {' or '.join(VALUES)} to say what they mean")
    pixels = images.to(torch.float64)
    if values == "normalised":
        mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (dataset.mean, dataset.std))
        pixels = pixels * std + mean
    low, high = (float(v) for v in (pixels.min(), pixels.max())) if len(pixels) else (0.0, 0.0)
    slack = 0.5 / 255  # what rounding to a grey level forgives
    if not (low >= -slack and high <= 1 + slack):
        raise EdcError(
            f"{path}: values {low:.4g} to {high:.4g} as --values {values}; expected [0, 1], nothing is clipped"
        )
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8), values


def integer_classes(classes: Tensor, images: int, count: int, path: Path) -> Tensor:
    """Classes as int64 (N,), checked."""
    if classes.is_floating_point() or classes.dtype == torch.bool or list(classes.shape) != [images]:
        found = f"{list(classes.shape)} of {str(classes.dtype)[6:]}"
        raise EdcError(f"{path}: classes are {found}; expected one integer for each of {images} images")
    classes = classes.to(torch.int64)
    for place in ((classes < 0) | (classes >= count)).nonzero().flatten()[:1].tolist():
        raise EdcError(f"{path}: image {place} has class {int(classes[place])}; expected 0 to {count - 1}")
    return classes


def equal_shares(classes_of: Tensor, classes: Sequence[str], path: Path) -> Tensor:
    """The order that brings the images class after class; refuses classes of unequal size."""
    counts = torch.bincount(classes_of, minlength=len(classes))
    share = int(counts.max()) if len(classes_of) else 0
    for c in (counts != share).nonzero().flatten()[:1].tolist():
        most = classes[int(counts.argmax())]
        raise EdcError(
            f"{path}: class {classes[c]!r} has {int(counts[c])} images, class {most!r} has {share}; expected the same "
            "number of every class"
        )
    if not share:
        raise EdcError(f"{path}: no image in it")
    return classes_of.argsort(stable=True)


def soft_labels(labels: Tensor, classes_of: Tensor, count: int, path: Path) -> tuple[Tensor, bool]:
    """Soft labels as fp16 logits (N, K), and whether they were probabilities.

    Rows in [0, 1] that add up to 1 are probabilities. Their logarithms, less the mean of each row, are the logits.

    Raises:
        EdcError: the shape is another, a value is not finite, or they contradict the classes.
    """
    if labels.ndim == 3:
        raise EdcError(f"{path}: labels per epoch; only a folder of `edc export` tells which views they belong to")
    expected = [len(classes_of), count]
    if list(labels.shape) != expected or not labels.is_floating_point():
        found = f"{list(labels.shape)} of {str(labels.dtype)[6:]}"
        raise EdcError(f"{path}: soft labels are {found}; expected {expected} of floats, images by classes")
    values = labels.to(torch.float32)
    probabilities = bool(((values >= 0) & (values <= 1)).all() and ((values.sum(1) - 1).abs() < 1e-2).all())
    if probabilities:
        values = values.clamp_min(FLOOR).log()
        values = values - values.mean(1, keepdim=True)
    stored = labels if labels.dtype == torch.float16 and not probabilities else values.to(torch.float16)
    if not bool(stored.isfinite().all()):
        raise EdcError(f"{path}: soft labels have values that are not finite in half precision")
    right = float((values.argmax(1) == classes_of).float().mean())
    if right < twice_chance(count):
        raise EdcError(
            f"{path}: soft labels agree with the class of {100 * right:.1f} % of the images; expected at least "
            f"{100 * twice_chance(count):.1f} %: are rows or columns in another order?"
        )
    return stored, probabilities
