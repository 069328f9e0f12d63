"""RandAugment (Cubuk et al. 2020, arXiv 1909.13719) as a batched, replayable operation on uint8 tensors.

Operations and magnitudes are those of torchvision's `RandAugment` (v1), nearest interpolation, black fill. The result
is that of its tensor back end, pixel for pixel; PIL's differs by one grey level in some pixels of Color and Contrast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
_BLENDED = ("Brightness", "Color", "Contrast", "Sharpness")
_OTHERS = ("Posterize", "Solarize", "AutoContrast", "Equalize")
OPS: tuple[str, ...] = ("Identity", *_GEOMETRIC, *_BLENDED, *_OTHERS)


@dataclass(frozen=True, eq=False)
class Draws:
    """The random numbers of one RandAugment pass.

    Attributes:
        op: (n, ops), indices into `OPS`, applied from left to right.
        sign: (n, ops), True takes the negative magnitude; operations without a sign ignore it.
    """

    op: NDArray[np.int64]
    sign: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.op)

    def __getitem__(self, rows: Any) -> Draws:
        return Draws(self.op[rows], self.sign[rows])


def draw(rng: np.random.Generator, n: int, ops: int = 2) -> Draws:
    """Draws `ops` operations and signs for each of `n` images, each uniform and independent, row after row."""
    both = rng.integers(2 * len(OPS), size=(n, ops), dtype=np.int64)
    return Draws(both // 2, both % 2 == 1)


def joined(parts: Sequence[Draws]) -> Draws:
    """The draws of several sets of images, one after the other."""
    return Draws(np.concatenate([part.op for part in parts]), np.concatenate([part.sign for part in parts]))


def apply(images: Tensor, draws: Draws, magnitude: int = 9, bins: int = 31) -> Tensor:
    """Applies each image's drawn operations: uint8 (N, C, H, W), C in {1, 3}; not in place.

    An image's result is independent of the others. Images are sorted by operation, so that each runs once per round.
    The range of each operation is divided into ``bins``, of which ``magnitude`` is taken.

    Raises:
        ValueError: the images are not such a tensor, the draws do not fit, or the magnitude is out of range.
    """
    _check(images, draws, magnitude, bins)
    tables = _tables(images.shape[2], images.shape[3], magnitude, bins, images.device)
    keys = (2 * draws.op + draws.sign).T
    order = np.argsort(keys, axis=1, kind="stable")
    ranked = np.take_along_axis(keys, order, axis=1)
    # All indices of the call in one transfer: (order, way back, sorted keys) x round x image.
    sent = torch.from_numpy(np.stack([order, np.argsort(order, axis=1), ranked])).to(images.device)
    result = images.clone()
    for r, keys_of_round in enumerate(ranked):
        bounds = np.searchsorted(keys_of_round, 2 * np.arange(len(OPS) + 1)).tolist()
        result = _round(result[sent[0, r]], sent[2, r], bounds, tables)[sent[1, r]]
    return result


def _round(images: Tensor, key: Tensor, bounds: list[int], tables: _Tables) -> Tensor:
    """One operation per image, in place, on images sorted by key (2 x operation + sign): i on bounds[i] to [i + 1]."""
    first, last = 1, 1 + len(_GEOMETRIC)  # these share one gather
    start, stop = bounds[first], bounds[last]
    if start < stop:
        images[start:stop] = _gather(images[start:stop], tables.sources[key[start:stop] - 2 * first])
    for op in range(last, len(OPS)):
        start, stop = bounds[op], bounds[op + 1]
        if start < stop:
            images[start:stop] = _colour(OPS[op], images[start:stop], tables, key[start:stop])
    return images


def _check(images: Tensor, draws: Draws, magnitude: int, bins: int) -> None:
    shape = tuple(images.shape)
    if images.dtype != torch.uint8 or images.ndim != 4 or shape[1] not in (1, 3):
        raise ValueError(f"expected uint8 images of shape (N, 1 or 3, H, W), got {images.dtype} {shape}")
    if draws.op.ndim != 2 or draws.op.shape != draws.sign.shape or len(draws) != shape[0]:
        raise ValueError(f"draws {draws.op.shape} and {draws.sign.shape} do not fit {shape[0]} images")
    if draws.op.size and not 0 <= draws.op.min() <= draws.op.max() < len(OPS):
        raise ValueError(f"drawn operations must lie in 0..{len(OPS) - 1}")
    if not 0 <= magnitude < bins or bins < 2:
        raise ValueError(f"magnitude {magnitude} is not one of the bins 0..{bins - 1}")


@dataclass(frozen=True, eq=False)
class _Tables:
    """Constants that depend on sizes and magnitude only.

    Attributes:
        sources: (10, H * W) int64, per geometric operation and sign each pixel's source plus 1; 0 is black.
        blend: (28, 2) float32, per operation and sign the weights of the image and of its degenerate image.
        bits: kept by Posterize.
        threshold: grey level from which Solarize inverts.
    """

    sources: Tensor
    blend: Tensor
    bits: int
    threshold: float


@lru_cache(maxsize=16)
def _tables(height: int, width: int, magnitude: int, bins: int, device: torch.device) -> _Tables:
    def level(low: float, high: float) -> float:
        return torch.linspace(low, high, bins, dtype=torch.float32, device="cpu")[magnitude].item()

    right, down = (int(level(0.0, 150.0 / 331.0 * size)) for size in (width, height))
    sources = []
    for sign in (1.0, -1.0):
        # torchvision's inverse matrices, rounded as there; shears keep the corner, turns the middle.
        slant = math.radians(math.degrees(math.atan(sign * level(0.0, 0.3))))
        turn = math.radians(-sign * level(0.0, 30.0))
        by_x, by_y = math.tan(slant), math.sin(slant) / math.cos(slant)
        matrices = (
            (1.0, by_x, 0.5 * width + by_x * 0.5 * height - 0.5 * width, 0.0, 1.0, 0.0),
            (1.0, 0.0, 0.0, by_y, 1.0, by_y * 0.5 * width + 0.5 * height - 0.5 * height),
            (1.0, 0.0, -sign * right, 0.0, 1.0, 0.0),
            (1.0, 0.0, 0.0, 0.0, 1.0, -sign * down),
            (math.cos(turn), math.sin(turn), 0.0, -math.sin(turn), math.cos(turn), 0.0),
        )
        sources.append(torch.stack([_nearest(matrix, height, width) for matrix in matrices]))
    first, change = OPS.index(_BLENDED[0]), level(0.0, 0.9)
    blend = torch.zeros(len(OPS), 2, 2, dtype=torch.float32, device="cpu")
    for i, factor in enumerate((1.0 + change, 1.0 - change)):
        blend[first : first + len(_BLENDED), i] = torch.tensor([factor, 1.0 - factor], dtype=torch.float32)
    return _Tables(
        sources=torch.stack(sources, dim=1).flatten(0, 1).to(device),
        blend=blend.flatten(0, 1).to(device),
        bits=8 - round(magnitude / ((bins - 1) / 4)),
        threshold=level(255.0, 0.0),
    )


def _nearest(matrix: tuple[float, ...], height: int, width: int) -> Tensor:
    """(H * W) int64: each pixel's nearest source pixel plus 1, or 0 outside the image.

    Ties between two pixels hang on the last bit, so this repeats torchvision's float32 arithmetic: a matrix product
    that rounds once per multiply-add (here through float64), then `grid_sample`'s coordinates, rounded half to even.
    """
    size = torch.tensor([0.5 * width, 0.5 * height], dtype=torch.float32, device="cpu")
    by_x, by_y, shift = torch.tensor(matrix, dtype=torch.float32, device="cpu").view(2, 3).T / size
    x = torch.arange(width, dtype=torch.float32, device="cpu")[None, :, None] - (0.5 * width - 0.5)
    y = torch.arange(height, dtype=torch.float32, device="cpu")[:, None, None] - (0.5 * height - 0.5)
    grid = (y.double() * by_y.double() + (x * by_x).double()).float() + shift
    column, row = torch.round((grid + 1) * size - 0.5).long().unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return torch.where(inside, row * width + column + 1, 0).flatten()


def _gather(images: Tensor, sources: Tensor) -> Tensor:
    """Takes every pixel from its source (m, H * W); source 0 is a black pixel put before the others."""
    flat = F.pad(images.flatten(2), (1, 0))
    return flat.gather(2, sources[:, None].expand(-1, images.shape[1], -1)).view_as(images)


def _colour(name: str, images: Tensor, tables: _Tables, key: Tensor) -> Tensor:
    """One non-geometric operation on images (m, C, H, W), all with that operation, and their keys (m,)."""
    match name:
        case "Posterize":
            return images & (256 - 2 ** (8 - tables.bits))
        case "Solarize":
            return torch.where(images >= tables.threshold, 255 - images, images)
        case "AutoContrast":
            return _autocontrast(images)
        case "Equalize":
            return _equalize(images)
        case "Brightness":
            other = torch.zeros((), dtype=torch.float32, device=images.device)
        case "Color" if images.shape[1] == 3:
            other = _grey(images)
        case "Contrast":
            total = _grey(images).sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64)
            other = total.float() / torch.full_like(total, images.shape[2] * images.shape[3])
        case "Sharpness" if min(images.shape[2:]) > 2:
            other = _blurred(images)
        case _:
            return images  # Color of a grey image, Sharpness of one without inner pixels
    own, others = tables.blend[key, :, None, None, None].unbind(1)
    return (own * images + others * other).clamp_(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """(m, 1, H, W) uint8 luma, truncated; images of one channel as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.float().split(1, dim=1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).to(torch.uint8)


def _blurred(images: Tensor) -> Tensor:
    """3 x 3 mean with a centre of weight 5 (sum 13), rounded; the border pixels stay. Exact in integers."""
    wide = images.to(torch.int16)
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]
    blurred = images.clone()
    blurred[:, :, 1:-1, 1:-1] = torch.round(total.float() / 13)
    return blurred


def _autocontrast(images: Tensor) -> Tensor:
    """Stretches each channel to 0..255; a channel of one level stays."""
    low = images.amin(dim=(2, 3), keepdim=True).float()
    high = images.amax(dim=(2, 3), keepdim=True).float()
    flat = low == high
    scale = torch.where(flat, 1.0, 255 / (high - low))
    return ((images - low.masked_fill(flat, 0)) * scale).clamp_(0, 255).to(torch.uint8)


def _equalize(images: Tensor) -> Tensor:
    """Evens out each channel's histogram; a channel with under 255 pixels below its highest level stays."""
    pixels = images.flatten(2).flatten(0, 1).long()
    channels, area = pixels.shape
    levels = torch.arange(256, device=images.device)
    offset = 256 * torch.arange(channels, device=images.device)[:, None]
    slots = (pixels + offset).flatten()
    histogram = torch.zeros_like(levels).repeat(channels).scatter_add_(0, slots, torch.ones_like(slots))
    histogram = histogram.view(channels, 256)
    step = (area - histogram.gather(1, pixels.amax(dim=1, keepdim=True))) // 255
    below = F.pad(histogram.cumsum(1)[:, :-1], (1, 0))
    lookup = (below + step // 2) // step.clamp(min=1)
    lookup = torch.where(step == 0, levels, lookup.clamp(0, 255))
    return lookup.gather(1, pixels).to(torch.uint8).view_as(images)
