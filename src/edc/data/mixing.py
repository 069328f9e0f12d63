"""Mixup and RDED's patch shuffle, every image with its own draws."""

from __future__ import annotations

import torch
from torch import Tensor


def mixup(images: Tensor, others: Tensor, share: Tensor | float) -> Tensor:
    """share * images + (1 - share) * others (Zhang et al. 2018), a new tensor.

    Args:
        images: float (N, C, H, W).
        others: same shape.
        share: weight of `images`, 0 to 1; a number or a tensor that broadcasts, such as (N, 1, 1, 1).
    """
    return share * images + (1 - share) * others


def strip_index(order: Tensor, size: int) -> Tensor:
    """Source pixel of every pixel along a side after its strips are permuted.

    Args:
        order: int (N, n), a permutation of the n strips for each image: position j shows strip ``order[:, j]``.
        size: pixels of the side. Where it is no multiple of n, the first strips are one pixel wider, like the cells
            of :func:`edc.condense.composites.tile`, and each strip keeps its width.

    Returns:
        int64 (N, size)
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
    """RDED's patch shuffle: permute each image's column strips, then its row strips.

    Of the n^2! layouts of an n by n tiling n!^2 can occur.

    Args:
        images: (N, C, H, W), any dtype.
        columns: int (N, n), see :func:`strip_index`.
        rows: int (N, n).

    Returns:
        (N, C, H, W)
    """
    height, width = images.shape[-2:]
    across, down = strip_index(columns, width), strip_index(rows, height)
    index = torch.arange(len(images), device=images.device)
    # Two advanced indices with a slice between them put the batch and pixel axes first.
    shuffled = images[index[:, None, None], :, down[:, :, None], across[:, None, :]]
    return shuffled.permute(0, 3, 1, 2).contiguous()
