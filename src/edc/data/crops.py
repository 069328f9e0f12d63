"""Random boxes (top, left, height, width) by torchvision's RandomResizedCrop rule, drawn before sizes are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

RATIO, TRIES = (3 / 4, 4 / 3), 10


@dataclass(frozen=True, eq=False)
class CropDraws:
    """The random numbers of n crops.

    Attributes:
        area, aspect: (n, tries), shares of the picture's area, and width / height.
        place: (n, 2), vertical and horizontal position in [0, 1), from topmost and leftmost.
        ratio: smallest and largest width / height, for pictures that no try fits.
    """

    area: npt.NDArray[np.float64]
    aspect: npt.NDArray[np.float64]
    place: npt.NDArray[np.float64]
    ratio: tuple[float, float] = RATIO

    def __len__(self) -> int:
        return len(self.area)

    def __getitem__(self, rows: Any) -> CropDraws:
        index = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        return CropDraws(self.area[index], self.aspect[index], self.place[index], self.ratio)

    def boxes(self, heights: npt.ArrayLike, widths: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Each picture's box (n, 4): its first try that fits, else the largest centred one of an allowed ratio.

        Heights and widths of the pictures are one number for all, or (n,).
        """
        n = len(self)
        full_h = np.broadcast_to(np.asarray(heights, np.int64), (n,))
        full_w = np.broadcast_to(np.asarray(widths, np.int64), (n,))
        area = self.area * full_h[:, None] * full_w[:, None]
        width = np.rint(np.sqrt(area * self.aspect)).astype(np.int64)
        height = np.rint(np.sqrt(area / self.aspect)).astype(np.int64)
        fits = (width > 0) & (width <= full_w[:, None]) & (height > 0) & (height <= full_h[:, None])
        first = fits.argmax(axis=1)
        rows = np.arange(n)
        width, height = width[rows, first], height[rows, first]
        top = np.floor(self.place[:, 0] * (full_h - height + 1)).astype(np.int64)
        left = np.floor(self.place[:, 1] * (full_w - width + 1)).astype(np.int64)
        boxes = np.stack([top, left, height, width], axis=1)
        for row in np.flatnonzero(~fits.any(axis=1)):
            boxes[row] = _largest(int(full_h[row]), int(full_w[row]), self.ratio)
        return boxes


def draw_crops(rng: np.random.Generator, n: int, scale: Sequence[float], ratio: Sequence[float] = RATIO) -> CropDraws:
    """Draws of area = U(scale) and aspect ratio = exp U(log ratio), `TRIES` for each of `n` pictures, and a place."""
    return CropDraws(
        area=rng.uniform(scale[0], scale[1], (n, TRIES)),
        aspect=np.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1]), (n, TRIES))),
        place=rng.random((n, 2)),
        ratio=(ratio[0], ratio[1]),
    )


def crop_boxes(
    rng: np.random.Generator, n: int, size: int, scale: Sequence[float], ratio: Sequence[float] = RATIO
) -> npt.NDArray[np.int64]:
    """Boxes (n, 4) of random area and aspect ratio in `n` square images of side `size`, see :func:`draw_crops`."""
    return draw_crops(rng, n, scale, ratio).boxes(size, size)


def tile_regions(rng: np.random.Generator, n: int, size: int, tiles: int) -> npt.NDArray[np.int64]:
    """Boxes (n, 4): whole images of side `size` with probability 1 / tiles^2, else a cell of a `tiles` by `tiles` one.

    Where `size` is no multiple of `tiles`, the first cells are a pixel larger.
    """
    lengths = np.array([len(part) for part in np.array_split(np.arange(size), tiles)])
    starts = lengths.cumsum() - lengths
    row, column = rng.integers(tiles, size=(2, n))
    cells = np.stack([starts[row], starts[column], lengths[row], lengths[column]], axis=1)
    return np.where(rng.random((n, 1)) < 1 / tiles**2, [0, 0, size, size], cells)


def crop_and_resize(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Crop uint8 images (N, C, H, W) to their boxes (N, 4) and resize bilinearly with antialiasing to (size, size).

    Within one grey level of Pillow, which rounds between the two directions.
    """
    height, width = images.shape[-2:]
    rows = _triangles(boxes[:, 0], boxes[:, 2], size, height)
    columns = _triangles(boxes[:, 1], boxes[:, 3], size, width)
    resized = rows[:, None] @ images.to(torch.float32) @ columns.transpose(1, 2)[:, None]
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def _triangles(start: Tensor, length: Tensor, size: int, full: int) -> Tensor:
    """Weights (N, size, full) that resize ``[start, start + length)`` of an axis of ``full`` pixels to ``size``.

    Triangles as wide as a pixel of the coarser of the two grids, cut off at the interval's ends, with sum 1.
    """
    scale = (length.to(torch.float32) / size)[:, None]
    centre = start[:, None] + (torch.arange(size, device=start.device, dtype=torch.float32) + 0.5) * scale
    pixels = torch.arange(full, device=start.device, dtype=torch.float32) + 0.5
    weights = (1 - (centre[:, :, None] - pixels).abs() / scale.clamp_min(1)[:, :, None]).clamp_min_(0)
    inside = (pixels > start[:, None]) & (pixels < (start + length)[:, None])
    weights = weights * inside[:, None]
    return weights / weights.sum(dim=2, keepdim=True)


def _largest(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """The largest centred rectangle of an allowed ratio."""
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w
