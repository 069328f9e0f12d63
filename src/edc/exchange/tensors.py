"""Files of tensors from elsewhere: images, classes and soft labels under the names that other tools give them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from edc.config.rows import Dataset, twice_chance
from edc.errors import EdcError, unknown_name
from edc.nets.weights import first_line

IMAGES = ("images", "image", "x", "data")
CLASSES = ("labels", "label", "classes", "targets", "y")
SOFT_LABELS = ("static", "soft_labels", "logits")
VALUES = ("unit", "normalised")
SMALLEST = 1e-6
"""Smaller probabilities are raised to this before their logarithm is taken."""
FEW, MANY = 0.01, 0.25
"""Shares of values: with fewer outside [0, 1] images are not normalised, with more they are not pixels."""
SCALAR = resolve_name("numpy._core.multiarray:scalar")
NUMPY_SCALARS: list[Any] = [np.dtype, SCALAR, (SCALAR, "numpy.core.multiarray.scalar")]
NUMPY_SCALARS += [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")]
"""Accuracies beside the tensors of a .pt file are often NumPy scalars, which PyTorch refuses unless they are listed."""


def load_pt(path: Path) -> Any:
    """The content of a PyTorch file, without executing any code of it."""
    with torch.serialization.safe_globals(NUMPY_SCALARS):
        return torch.load(path, map_location="cpu", weights_only=True)


LOADERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": load_file,
    ".pt": load_pt,
    ".pth": load_pt,
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".npz": lambda path: dict(np.load(path, allow_pickle=False)),
}
"""By file name extension; none executes code of the file."""


def read_tensor_file(path: Path, notes: list[str] | None = None) -> dict[str, Tensor]:
    """The tensors of a file by name; under ``""`` the tensor of a file that holds one without a name.

    Of a list of pairs ``[[images, labels], ...]``, as DC's code writes it, the first pair is taken; ``notes`` says so
    where there are more. Whatever else stands beside the tensors is ignored.
    """
    if not path.is_file():
        raise EdcError(f"{path}: no such file")
    if path.suffix not in LOADERS:
        known = ", ".join((*LOADERS, ".parquet"))
        raise EdcError(f"{path}: unknown kind {path.suffix!r}; expected an image folder or {known}")
    try:
        content = LOADERS[path.suffix](path)
    except Exception as error:  # what unpicklers and parsers raise on broken files is an open list
        raise EdcError(f"{path}: not readable as {path.suffix} ({first_line(error)[:200]})") from None
    pairs = content.get("data") if isinstance(content, dict) else content
    if isinstance(pairs, (list, tuple)) and pairs and all(isinstance(pair, (list, tuple)) for pair in pairs):
        if len(pairs) > 1 and notes is not None:
            notes.append(f"{path}: the first of {len(pairs)} sets in it is taken")
        content = pairs[0]
    if isinstance(content, (tuple, list)) and len(content) == 2:
        content = {"images": content[0], "labels": content[1]}
    elif not isinstance(content, dict):
        content = {"": content}
    for name, value in content.items():
        if name in ("", *IMAGES, *CLASSES, *SOFT_LABELS) and not isinstance(value, (Tensor, np.ndarray)):
            raise EdcError(f"{path}: {name!r} is a {type(value).__name__}; expected tensors by name")
    return {
        name: torch.as_tensor(value) for name, value in content.items() if isinstance(name, str) and _numeric(value)
    }


def _numeric(value: object) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf")


def pick(tensors: dict[str, Tensor], names: Sequence[str], what: str, path: Path) -> Tensor:
    """The first tensor of some names, or the only tensor of a file without names."""
    for name in names:
        if name in tensors:
            return tensors[name]
    if set(tensors) == {""} and (what != "classes" or tensors[""].ndim <= 2):
        return tensors[""]
    present = ", ".join(repr(name) for name in sorted(tensors) if name) or "no name"
    hint = ", or --classes FILE" if what == "classes" else ""
    raise EdcError(f"{path}: no {what} in it; expected a tensor {' or '.join(map(repr, names))}, found {present}{hint}")


def to_uint8(
    images: Tensor, dataset: Dataset, values: str | None, path: Path, clip: bool = False, notes: list[str] | None = None
) -> Tensor:
    """Images (N, C, S, S), (N, S, S, C) or, with one channel, (N, S, S), as uint8 (N, C, S, S).

    Floats are in [0, 1] where ``values`` is unit, and normalised by the dataset's mean and deviation where it is that.
    With ``clip`` pixels outside [0, 1] are clipped and counted in ``notes``; without it they are refused. So are values
    that can't be what ``values`` says.
    """
    if values is not None and values not in VALUES:
        raise unknown_name("scale", values, VALUES, "--values")
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
        raise EdcError(f"{path}: images are floats; expected --values {' or '.join(VALUES)} to set their scale")
    pixels = images.to(torch.float64)
    low, high = (float(v) for v in (pixels.min(), pixels.max())) if len(pixels) else (0.0, 0.0)
    actual = f"values {low:.4g} to {high:.4g} as --values {values}"
    if values == "normalised":
        if any(dataset.mean) and outside(pixels) < FEW:
            raise EdcError(f"{path}: {actual}; normalised images have values below 0, expected --values unit")
        mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (dataset.mean, dataset.std))
        pixels = pixels * std + mean
        actual = f"values {float(pixels.min()):.4g} to {float(pixels.max()):.4g} after --values normalised"
    share = outside(pixels)
    if share and values == "unit" and low < -0.5 and high < 10 and share > MANY:
        raise EdcError(f"{path}: {actual}; expected [0, 1], or --values normalised")
    if share and not (clip and share <= MANY):  # a share that is no number counts as all
        remedy = "nothing is clipped without --clip"
        if clip:
            remedy = f"--clip is for at most {100 * MANY:.0f} % of the values, here {100 * share:.1f} % are outside"
        raise EdcError(f"{path}: {actual}; expected [0, 1], {remedy}")
    if clip and notes is not None:
        count = round(share * pixels.numel())
        notes.append(
            f"{path}: {count} of {pixels.numel()} values ({100 * share:.2g} %) were outside [0, 1] and clipped"
        )
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8)


def outside(pixels: Tensor) -> float:
    """The share of values more than half a grey level, which rounding removes, outside [0, 1]; 1 with a NaN."""
    if bool(pixels.isnan().any()):
        return 1.0
    slack = 0.5 / 255
    return float(((pixels < -slack) | (pixels > 1 + slack)).to(torch.float64).mean()) if len(pixels) else 0.0


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
