"""First and second moments of watched tensors, and how they make up a statistics vector.

Everything that is averaged is first a plain sum over a tensor's pixels or over its images and channels: two products
with ones. One pass over the collected sums then gives the whole vector, and one pass over its gradient gives, for every
watched tensor, an affine function of it:

    dL/dx = x * (a_c + b_u) + (c_c + d_u)    for channel c and cell u,

because mean and variance are at most quadratic in x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor


def grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """A map's sides rounded up to whole cells of ``patch`` pixels."""
    return -(-height // patch) * patch, -(-width // patch) * patch


SMALL = 2**16
"""Most values of a matrix that resizes whole maps."""


def to_grid(x: Tensor, patch: int) -> Tensor:
    """Resize a map (B, C, H, W) bilinearly to whole cells; most maps already are."""
    size = grid(x.shape[-2], x.shape[-1], patch)
    return x if size == tuple(x.shape[-2:]) else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


@cache
def growth(small: int, large: int, device: torch.device) -> Tensor:
    """Bilinear resizing of one axis as a matrix (small, large): its transpose resizes, it carries gradients back.

    A product, because the library's own backward adds in no fixed order on a GPU.
    """
    identity = torch.eye(small, device=device)
    return F.interpolate(identity[None], size=large, mode="linear", align_corners=False)[0]


@cache
def growth_of_maps(small: tuple[int, int], large: tuple[int, int], device: torch.device) -> Tensor:
    """The same for whole maps, row by row: (H * W, H' * W'). One product is several times faster for small maps."""
    return torch.kron(growth(small[0], large[0], device), growth(small[1], large[1], device))


def pool(pixels: Tensor, patch: int) -> Tensor:
    """Mean over cells of a map of pixels: (..., H, W) to (..., H/P, W/P)."""
    h, w = pixels.shape[-2:]
    return pixels.reshape(*pixels.shape[:-2], h // patch, patch, w // patch, patch).mean(dim=(-3, -1))


@dataclass(frozen=True)
class Source:
    """One watched tensor (B, C, H, W), the input of one layer or of several.

    Its moments stand as ``[by channel C | by cell U]``, the cells being those of the map resized to whole ones, and
    only where a convolution reads it.

    Attributes:
        channels, height, width: C, H, W.
        patched: whether moments by cell are taken.
        patch: side of the cells, pixels.
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
        """Whether that is another size than its own."""
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

    def sums(self, x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """Sums of x and of its square over each group of images: (G * B, C, H, W) to twice (G, C + U), float32."""
        x = x.to(torch.float32)
        values = x.reshape(-1, self.height * self.width)
        if not self.patched:
            # Without a squared copy: the length of each map.
            square = torch.linalg.vector_norm(values, dim=1).square_()
            return self._by_channel(values.sum(1), groups), self._by_channel(square, groups)
        squares = values * values
        ones = values.new_ones(values.shape[1])
        by_channel = [self._by_channel(found.mv(ones), groups) for found in (values, squares)]
        if self.resized:
            values = self._grown(values)
            squares = values * values
        ones = values.new_ones(len(values) // groups)
        # One product for each group; its rows are the group's images and channels.
        by_pixel = [ones @ (found if groups == 1 else found.view(groups, len(ones), -1)) for found in (values, squares)]
        first, second = (torch.cat(pair, dim=1) for pair in zip(by_channel, map(self._pooled, by_pixel), strict=True))
        return first, second

    def _by_channel(self, rows: Tensor, groups: int) -> Tensor:
        """Sums of each image's channels (G * B * C,) to those of each group's: (G, C)."""
        return rows.view(groups, -1, self.channels).sum(1)

    def _pooled(self, by_pixel: Tensor) -> Tensor:
        """Sums by pixel (G * pixels,) to sums by cell: (G, U)."""
        (height, width), p = self.grid, self.patch
        return by_pixel.view(-1, height // p, p, width // p, p).sum((2, 4)).flatten(1)

    @property
    def _small(self) -> bool:
        return self.height * self.width * self.pixels <= SMALL

    def _grown(self, maps: Tensor) -> Tensor:
        """Maps (..., H * W) resized to whole cells: (..., pixels)."""
        size = (self.height, self.width)
        if self._small:
            return maps @ growth_of_maps(size, self.grid, maps.device)
        return to_grid(maps.reshape(1, -1, *size), self.patch).view(*maps.shape[:-1], -1)

    def _shrunk(self, maps: Tensor) -> Tensor:
        """The transpose of resizing: (..., pixels) to (..., H * W)."""
        if self._small:
            return maps @ growth_of_maps((self.height, self.width), self.grid, maps.device).T
        rows, columns = (growth(*pair, maps.device) for pair in zip((self.height, self.width), self.grid, strict=True))
        return (rows @ maps.unflatten(-1, self.grid) @ columns.T).flatten(-2)

    def pull(self, x: Tensor, gradient: Tensor, slopes: Tensor) -> Tensor:
        """A gradient of x with that of the statistics added, in a tensor of its own.

        Args:
            x: (G * B, C, H, W).
            gradient: of everything else; same shape.
            slopes: (G, 2 * C + 2 * pixels), see :meth:`Layout.slopes`: what x is multiplied with and what is added, by
                channel and by pixel.
        """
        groups, c, p = len(slopes), self.channels, self.pixels
        images = (groups, len(x) // groups, c)
        values = x.to(torch.float32).reshape(*images, -1)
        scale, shift = slopes[:, None, :c, None], slopes[:, None, c : 2 * c, None]
        if p and not self.resized:
            scale = scale + slopes[:, None, None, 2 * c : 2 * c + p]
            shift = shift + slopes[:, None, None, 2 * c + p :]
        result = torch.addcmul(shift, values, scale).view_as(x)
        if p and self.resized:
            grown = self._grown(values)
            grown = torch.addcmul(slopes[:, None, None, 2 * c + p :], grown, slopes[:, None, None, 2 * c : 2 * c + p])
            result += self._shrunk(grown).view_as(x)
        return result.add_(gradient).to(gradient.dtype)


class Layout:
    """How moments become the statistics vector (D,), and how its gradient becomes slopes of the watched tensors.

    A layer's part of the vector is ``[mean C | var C]``, behind it for a convolution ``[cell mean U | cell var U]``.
    In between, means and variances of all layers stand apart, each (D / 2,), layer after layer as ``[C | U]``.

    Args:
        sources: the watched tensors.
        parts: for every observed layer, the number of its source and whether it is a convolution.
        device: of the index tables.
    """

    def __init__(
        self, sources: Sequence[Source], parts: Sequence[tuple[int, bool]], device: torch.device | str
    ) -> None:
        self.sources, self.parts = sources, parts
        widths = [sources[n].size if patched else sources[n].channels for n, patched in parts]
        half = sum(widths)
        starts = [0, *torch.tensor([2 * (s.channels + s.pixels) for s in sources]).cumsum(0).tolist()]
        self.spans = [slice(*span) for span in pairwise(starts)]
        most = max((sum(n == i for n, _ in parts) for i in range(len(sources))), default=1)
        # For every slope, its entries in [scale | shift | 0]: where several layers read a tensor, they add up.
        users = torch.full((starts[-1], most), 2 * half)
        seen = [0] * len(sources)
        order, counts, at = [torch.empty(0, dtype=torch.int64)], [torch.empty(0)], 0
        for (number, patched), width in zip(parts, widths, strict=True):
            source, mine = sources[number], torch.arange(at, at + width)
            c, p, column, first = source.channels, source.pixels, seen[number], starts[number]
            seen[number] += 1
            order += [mine[:c], half + mine[:c], mine[c:], half + mine[c:]]
            counts.append(torch.full((c,), source.height * source.width))
            users[first : first + 2 * c, column] = torch.cat([mine[:c], half + mine[:c]])
            if patched:
                counts.append(torch.full((source.cells,), c * source.patch**2))
                cell = mine[c:].view(source.grid[0] // source.patch, -1)
                cell = cell.repeat_interleave(source.patch, 0).repeat_interleave(source.patch, 1).flatten()
                users[first + 2 * c : first + 2 * (c + p), column] = torch.cat([cell, half + cell])
            at += width
        self.order, self.users = torch.cat(order).to(device), users.to(device)
        self.per_image = torch.cat(counts).to(device, torch.float32)
        self.half = half

    def moments(self, sums: dict[int, tuple[Tensor, Tensor]], groups: int, images: int) -> tuple[Tensor, Tensor]:
        """Means and variances, each (G, D / 2).

        Args:
            sums: by number of source, see :meth:`Source.sums`; where a source is left out, zeros stand for it.
            groups, images: G, and the images of each.
        """
        none = self.per_image.new_zeros(groups, 1)
        found = []
        for moment in (0, 1):
            blocks = []
            for number, patched in self.parts:
                source = self.sources[number]
                size = source.size if patched else source.channels
                blocks.append(sums[number][moment][:, :size] if number in sums else none.expand(-1, size))
            found.append(torch.cat([none[:, :0], *blocks], dim=1))
        means, squares = found
        count = self.per_image * images
        means /= count
        variances = squares.div_(count).addcmul_(means, means, value=-1).clamp_min_(0)
        return means, variances

    def vector(self, means: Tensor, variances: Tensor) -> Tensor:
        """Means and variances (G, D / 2) as statistics vectors (G, D)."""
        return torch.cat([means, variances], dim=1)[:, self.order]

    def slopes(self, gradient: Tensor, means: Tensor, images: int) -> Tensor:
        """What the watched tensors' gradients take: for every source ``[scale C | shift C | scale | shift by pixel]``.

        Args:
            gradient: (G, D) of the statistics.
            means: (G, D / 2).
            images: of each group.
        """
        apart = torch.empty_like(gradient)
        apart[:, self.order] = gradient
        to_means, to_variances = apart.split(self.half, dim=1)
        count = self.per_image * images
        scale = 2 * to_variances / count
        shift = to_means / count - scale * means
        return torch.cat([scale, shift, scale.new_zeros(len(scale), 1)], dim=1)[:, self.users].sum(-1)
