"""First and second moments of layer inputs, and the gradient that reaches an input through them.

Everything that is averaged is first a plain sum over a tensor's pixels or over its images and channels (mean and
variance from batch norm's kernel are converted back into sums). One pass over the collected sums then gives the whole
vector, and one pass over its gradient gives, for every input, an affine function of it, because mean and variance are
at most quadratic in x:

    dL/dx = x * (a_c + b_u) + (c_c + d_u)    for channel c and cell u.

Where a map is resized to whole cells first, by a matrix R, the cells' part is x R diag(b) R^T + R d instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from edc.condense.maps import Maps


def grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """A map's sides rounded up to whole cells of ``patch`` pixels."""
    return -(-height // patch) * patch, -(-width // patch) * patch


SMALL = 2**16
"""Most values of a matrix that resizes whole maps; larger maps are resized axis by axis."""


def to_grid(x: Tensor, patch: int) -> Tensor:
    """Resize a map (B, C, H, W) bilinearly to whole cells; most maps already are."""
    size = grid(x.shape[-2], x.shape[-1], patch)
    return x if size == tuple(x.shape[-2:]) else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


@cache
def resize_matrix(small: int, large: int, device: torch.device) -> Tensor:
    """Bilinear resizing of one axis as a matrix (small, large): x @ matrix resizes, the transpose is its gradient.

    A matrix product, because PyTorch's own backward pass of resizing adds in no fixed order on a GPU.
    """
    identity = torch.eye(small, device=device)
    return F.interpolate(identity[None], size=large, mode="linear", align_corners=False)[0]


@cache
def map_resize_matrix(small: tuple[int, int], large: tuple[int, int], device: torch.device) -> Tensor:
    """The same for whole maps, row by row: (H * W, H' * W'). One product is several times faster for small maps."""
    return torch.kron(resize_matrix(small[0], large[0], device), resize_matrix(small[1], large[1], device))


def pool(pixels: Tensor, patch: int) -> Tensor:
    """Mean over cells of a map of pixels: (..., H, W) to (..., H/P, W/P)."""
    h, w = pixels.shape[-2:]
    return pixels.reshape(*pixels.shape[:-2], h // patch, patch, w // patch, patch).mean(dim=(-3, -1))


class Sums(NamedTuple):
    """Sums of values and of their squares, by channel (2, G, C), and by pixel of a map in cells (2, G, pixels)."""

    by_channel: Tensor
    by_pixel: Tensor | None = None


class Averages(NamedTuple):
    """Mean and biased variance of an input without cells, by channel of its only group: (C,) each."""

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True)
class LayerInput:
    """The input (B, C, H, W) of one layer or of several.

    Its moments are taken by channel C and, where a convolution reads it (`patched`), by cell U of `patch` pixels a side
    of the map resized to whole cells.
    """

    channels: int
    height: int
    width: int
    patched: bool
    patch: int

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the map resized to whole cells."""
        return grid(self.height, self.width, self.patch)

    @property
    def resized(self) -> bool:
        """Whether the map has to be resized to whole cells."""
        return self.grid != (self.height, self.width)

    @property
    def pixels(self) -> int:
        """Pixels of the resized map; 0 without cells."""
        return self.grid[0] * self.grid[1] if self.patched else 0

    @property
    def cells(self) -> int:
        """U; 0 without cells."""
        return self.pixels // self.patch**2

    @property
    def size(self) -> int:
        """C + U."""
        return self.channels + self.cells

    def cell_of_pixel(self) -> Tensor:
        """The cell that each pixel of the resized map lies in: (pixels,)."""
        if not self.patched:
            return torch.empty(0, dtype=torch.int64)
        p = self.patch
        cells = torch.arange(self.cells).view(self.grid[0] // p, -1)
        return cells.repeat_interleave(p, 0).repeat_interleave(p, 1).flatten()

    def measure(self, maps: Maps) -> Sums | Averages:
        """The sums or averages over each group of images from which the statistics follow."""
        if not self.patched:
            return Averages(*maps.moments_by_channel()) if maps.single_kernel else Sums(maps.sums_by_channel())
        over_images = maps.over_images()
        by_channel = over_images.along(maps.pixel_axis)
        if not self.resized:
            return Sums(by_channel, over_images.along(maps.channel_axis))
        by_pixel = [self._resize(over_images.first.sum(maps.channel_axis)), self._resized_squares(maps)]
        return Sums(by_channel, torch.stack(by_pixel))

    @property
    def _small(self) -> bool:
        return self.height * self.width * self.pixels <= SMALL

    def _matrix(self, device: torch.device) -> Tensor:
        return map_resize_matrix((self.height, self.width), self.grid, device)

    def _resize(self, maps: Tensor) -> Tensor:
        """Maps (..., H * W) resized to whole cells: (..., pixels)."""
        if self._small:
            return maps @ self._matrix(maps.device)
        whole = maps.reshape(1, -1, self.height, self.width)
        return to_grid(whole, self.patch).view(*maps.shape[:-1], -1)

    def _resize_transposed(self, maps: Tensor) -> Tensor:
        """The transpose of resizing: (..., pixels) to (..., H * W)."""
        if self._small:
            return maps @ self._matrix(maps.device).T
        rows, columns = (
            resize_matrix(*pair, maps.device) for pair in zip((self.height, self.width), self.grid, strict=True)
        )
        return (rows @ maps.unflatten(-1, self.grid) @ columns.T).flatten(-2)

    def _resized_squares(self, maps: Maps) -> Tensor:
        """Sums over images and channels of the resized maps' squares: (G, pixels)."""
        if not self._small:
            resized = self._resize(maps.planar)
            return (resized * resized).sum((1, 2))
        # The square of a sum of pixels is a sum of products of pixels, and those add up before they are resized.
        matrix = self._matrix(maps.values.device)
        return (matrix * (maps.products() @ matrix)).sum(1)

    @property
    def coefficients(self) -> list[int]:
        """Lengths of the coefficients of :meth:`gradient`."""
        return [self.channels] * 2 + ([self.pixels] * 2 if self.patched else [])

    def gradient(self, maps: Maps, coefficients: Sequence[Tensor]) -> Tensor:
        """The statistics' part of the gradient, a new tensor in the memory order of `maps.values`.

        Coefficients are scale and shift by channel, (G, 1, 1, C) each, and with cells scale and shift by pixel of the
        resized map, (G, 1, 1, pixels) each.
        """
        scale, shift, *by_pixel = coefficients
        if maps.interleaved:
            by_pixel = [part.mT for part in by_pixel]
        else:
            scale, shift = scale.mT, shift.mT
        if not self.patched:
            return torch.addcmul(shift, maps.values, scale)
        if not self.resized:
            return torch.addcmul(shift + by_pixel[1], maps.values, scale + by_pixel[0])
        pixel_scale, pixel_shift = coefficients[2:]
        added = self._resize_transposed(pixel_shift)
        result = torch.addcmul(shift + (added.mT if maps.interleaved else added), maps.values, scale)
        if self._small:
            matrix = self._matrix(pixel_scale.device)
            result += maps.times((matrix * pixel_scale[:, 0]) @ matrix.T)
        else:
            part = self._resize_transposed(self._resize(maps.planar) * pixel_scale)
            result += part.mT if maps.interleaved else part
        return result
