"""Feature maps in memory order, and the sums over them that read memory once and in order."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class OverImages(NamedTuple):
    """Sums of values and of their squares over the images of each group.

    In memory order: (G, C, H * W) each or, interleaved, (G, H * W, C). `first` of a single image is the map itself;
    `joint` holds both where they are sums of several images.
    """

    first: Tensor
    second: Tensor
    joint: Tensor | None = None

    def along(self, axis: int) -> Tensor:
        """Both summed over an axis: (2, G, the other axis)."""
        if self.joint is not None:
            return self.joint.sum(axis)
        return torch.stack([self.first.sum(axis), self.second.sum(axis)])


class Maps:
    """A layer's input (G * B, C, H, W) in memory order: channels first or, "interleaved", last; copied if in neither.

    Attributes:
        values: (G, B, C, H * W) or, interleaved, (G, B, H * W, C).
        channel_axis, pixel_axis: where channels and pixels stand once the images are summed.
    """

    def __init__(self, x: Tensor, groups: int) -> None:
        images, channels, height, width = self._shape = x.shape
        # A single channel has both orders; a slice of a map's channels has the strides of the whole map.
        self.interleaved = channels > 1 and (x.stride(1) == 1 or x.is_contiguous(memory_format=torch.channels_last))
        parts = (height * width, channels) if self.interleaved else (channels, height * width)
        ordered = x.permute(0, 2, 3, 1) if self.interleaved else x
        self.values = ordered.reshape(groups, images // groups, *parts)
        self.channel_axis, self.pixel_axis = (-1, -2) if self.interleaved else (-2, -1)

    @property
    def planar(self) -> Tensor:
        """(G, B, C, H * W)."""
        return self.values.mT if self.interleaved else self.values

    def restored(self, values: Tensor) -> Tensor:
        """Values in this order as a tensor (G * B, C, H, W)."""
        images, channels, height, width = self._shape
        if self.interleaved:
            return values.view(images, height, width, channels).permute(0, 3, 1, 2)
        return values.view(self._shape)

    @property
    def single_kernel(self) -> bool:
        """Whether batch norm's kernel takes both moments of all channels at once: one group, interleaved, on a CPU."""
        return self.interleaved and len(self.values) == 1 and not self.values.is_cuda

    def moments_by_channel(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of every channel, (C,) each, where :attr:`single_kernel`."""
        mean, variance = torch.batch_norm_update_stats(self.values.flatten(0, 2), None, None, 0.0)
        return mean, variance

    def sums_by_channel(self) -> Tensor:
        """Sums of the values and of their squares: (2, G, C)."""
        values = self.values
        if not self.interleaved:
            # Without a squared copy: the length of each map.
            rows = values.flatten(0, 2)
            square = torch.linalg.vector_norm(rows, dim=1).square_()
            return torch.stack([rows.sum(1), square]).view(2, *values.shape[:3]).sum(2)
        pixels = values.flatten(1, 2)
        return torch.stack([pixels.sum(1), (pixels * pixels).sum(1)])

    def over_images(self) -> OverImages:
        """Sums of the values and of their squares over the images of each group."""
        if self.values.shape[1] == 1:
            first = self.values[:, 0]
            return OverImages(first, first * first)
        joint = self.values.new_empty(2, len(self.values), *self.values.shape[2:])
        first, second = joint
        flat = self.values.flatten(2)
        torch.sum(flat, 1, out=first.flatten(1))
        torch.sum(flat * flat, 1, out=second.flatten(1))
        return OverImages(first, second, joint)

    def products(self) -> Tensor:
        """Products of pixels with one another, summed over images and channels: (G, H * W, H * W)."""
        if self.interleaved:
            return (self.values @ self.values.mT).sum(1)
        rows = self.values.flatten(1, 2)
        return rows.mT @ rows

    def times(self, matrix: Tensor) -> Tensor:
        """Every map times a symmetric matrix (G, H * W, H * W)."""
        if self.interleaved:
            return matrix[:, None] @ self.values
        return (self.values.flatten(1, 2) @ matrix).view(self.values.shape)
