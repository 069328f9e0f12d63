"""Batched augmentation, every image with its own draws. Boxes are ``(top, left, height, width)`` in source pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edc.data.crops import crop_boxes as crop_boxes


def _interpolation(start: Tensor, length: Tensor, size: int, full: int, mirror: Tensor | None) -> Tensor:
    """Rows of bilinear weights that resize ``[start, start + length)`` of an axis of ``full`` pixels to ``size``.

    (N, size, full); half-pixel centres, edges of the interval repeated: what cropping first and resizing then gives.
    """
    centre = torch.arange(size, device=start.device, dtype=torch.float32) + 0.5
    if mirror is not None:
        centre = torch.where(mirror[:, None], size - centre, centre)
    length = length.to(torch.float32)[:, None]
    position = (centre * (length / size) - 0.5).clamp_min(0).minimum(length - 1) + start[:, None]
    pixels = torch.arange(full, device=start.device, dtype=torch.float32)
    return (1 - (position[:, :, None] - pixels).abs()).clamp_min_(0)


def resized_crop(images: Tensor, boxes: Tensor, size: int, flips: Tensor | None = None) -> Tensor:
    """Crop float images (N, C, H, W) to their boxes (N, 4), resize bilinearly to ``size``, mirror where `flips` is set.

    The size is at least the boxes' sides, so no antialiasing is needed.
    """
    height, width = images.shape[-2:]
    rows = _interpolation(boxes[:, 0], boxes[:, 2], size, height, None)
    columns = _interpolation(boxes[:, 1], boxes[:, 3], size, width, flips)
    return rows[:, None] @ images @ columns.transpose(1, 2)[:, None]


def shared_crop(images: Tensor, box: Sequence[int], flip: bool) -> Tensor:
    """One box and one flip for the whole batch (N, C, H, W), as in synthesis; differentiable."""
    top, left, height, width = (int(v) for v in box)
    size = images.shape[-2:]
    part = images[..., top : top + height, left : left + width]
    if part.shape[-2:] != size:
        part = F.interpolate(part, size=size, mode="bilinear", align_corners=False)
    return part.flip(-1) if flip else part


def pad_crop(images: Tensor, offsets: Tensor, pad: int, flips: Tensor | None = None) -> Tensor:
    """Zero-pad (N, C, H, W) by ``pad`` pixels, crop the original size at each image's offset, mirror by `flips` (N,).

    Offsets are int (N, 2), top and left, 0 to 2 * pad.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, (pad, pad, pad, pad)) if pad else images
    rows = torch.arange(height, device=images.device)[None, :] + offsets[:, :1]
    columns = torch.arange(width, device=images.device)[None, :].expand(n, -1)
    if flips is not None:
        columns = torch.where(flips[:, None], width - 1 - columns, columns)
    return _pixels_at(padded, rows, columns + offsets[:, 1:])


def cutmix_box(lam: float, centre: tuple[int, int], size: int) -> tuple[int, int, int, int]:
    """The rectangle CutMix pastes (Yun et al. 2019): first row and column, last row and column + 1.

    ``lam`` is the share of the image that is not replaced, before the rectangle is clipped to the image.
    """
    half = int(size * math.sqrt(1 - lam)) // 2
    x, y = centre
    return max(x - half, 0), max(y - half, 0), min(x + half, size), min(y + half, size)


def paste(images: Tensor, others: Tensor, boxes: Tensor) -> Tensor:
    """Replace each box (N, 4), as of :func:`cutmix_box`, of ``images`` (N, C, H, W) by that of ``others``."""
    rows = torch.arange(images.shape[-2], device=images.device)
    columns = torch.arange(images.shape[-1], device=images.device)
    inside_rows = (rows >= boxes[:, :1]) & (rows < boxes[:, 2:3])
    inside_columns = (columns >= boxes[:, 1:2]) & (columns < boxes[:, 3:4])
    mask = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return torch.where(mask, others, images)


def cutout_boxes(rng: np.random.Generator, n: int, size: int, share: float) -> Tensor:
    """A square of ``share`` of the side for each image (DeVries and Taylor 2017): (n, 4) as of :func:`cutmix_box`.

    Its centre is anywhere in the image, so that it may reach beyond.
    """
    side = int(size * share + 0.5)
    first = rng.integers(0, size + 1 - side % 2, (n, 2)) - side // 2
    return torch.from_numpy(np.concatenate([first, first + side], axis=1))


def mixup(images: Tensor, others: Tensor, share: Tensor | float) -> Tensor:
    """share * images + (1 - share) * others (Zhang et al. 2018); a share for each image is (N, 1, 1, 1)."""
    return share * images + (1 - share) * others


def strip_index(order: Tensor, size: int) -> Tensor:
    """Source pixel (N, size) of every pixel along a side after its strips are permuted.

    Position j of image i shows strip ``order[i, j]``; order is (N, n). Where the size is no multiple of n, the first
    strips are a pixel wider, like the cells of :func:`edc.condense.composites.tile`, and each strip keeps its width.
    """
    strips = torch.arange(size).tensor_split(order.shape[1])
    widths = torch.tensor([len(strip) for strip in strips], device=order.device)
    moved = widths[order]
    ends = moved.cumsum(dim=1)
    pixels = torch.arange(size, device=order.device)
    place = (pixels[None, :, None] >= ends[:, None, :]).sum(dim=2)
    # A strip's pixels move from its new start to its old one.
    shift = (widths.cumsum(0) - widths)[order] - (ends - moved)
    return pixels + shift.gather(1, place)


def shuffle_strips(images: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """RDED's patch shuffle: permute each image's column strips, then its row strips, as of :func:`strip_index`.

    Of the n^2! layouts of an n by n tiling n!^2 can occur.
    """
    across, down = strip_index(columns, images.shape[3]), strip_index(rows, images.shape[2])
    return _pixels_at(images, down, across)


def _pixels_at(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels (N, C, h, w) of images in their own rows (N, h) and columns (N, w)."""
    index = torch.arange(len(images), device=images.device)
    # Two advanced indices with a slice between them put the batch and pixel axes first.
    pixels = images[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2).contiguous()


class Normaliser:
    """Conversion between uint8 pixels and inputs of networks, by mean and deviation per channel of pixels in [0, 1]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> None:
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        self.low = -self.mean / self.std
        self.high = (1 - self.mean) / self.std

    def encode(self, pixels: Tensor) -> Tensor:
        """uint8 (N, C, H, W) to normalised float32."""
        return (pixels.to(torch.float32) / 255 - self.mean) / self.std

    def clamp_(self, images: Tensor) -> Tensor:
        """Clamp every channel to the range of real pixels, in place."""
        return images.clamp_(self.low, self.high)

    def decode(self, images: Tensor) -> Tensor:
        """Normalised float32 to uint8, rounded down as EDC does."""
        return ((images * self.std + self.mean).clamp(0, 1) * 255).to(torch.uint8)
