"""How means and variances of layer inputs make up a statistics vector, and its gradient theirs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, islice

import torch
from torch import Tensor

from edc.condense.moments import Averages, LayerInput, Sums


class Layout:
    """How moments become the statistics vector (D,), and its gradient the coefficients of the inputs' gradients.

    A layer's part of the vector is ``[mean C | var C]``, behind it for a convolution ``[cell mean U | cell var U]``. In
    between, means and variances of all layers stand apart, each (D / 2,), layer after layer as ``[C | U]``.

    Args:
        parts: for every measured layer, the number of its input and whether it is a convolution.
        device: of the index tables.
    """

    def __init__(
        self, inputs: Sequence[LayerInput], parts: Sequence[tuple[int, bool]], device: torch.device | str
    ) -> None:
        self.inputs = inputs
        widths = [inputs[n].size if patched else inputs[n].channels for n, patched in parts]
        self.half = half = sum(widths)
        # All inputs' sums stand as [by channel | by cell], input after input in both.
        channels = _starts([item.channels for item in inputs])
        cells = _starts([item.cells for item in inputs])
        starts = _starts([sum(item.coefficients) for item in inputs])
        most = max((sum(n == i for n, _ in parts) for i in range(len(inputs))), default=1)
        # For every coefficient, its entries in [scale | shift | 0]: those of several layers with one input add up.
        users = torch.full((starts[-1], most), 2 * half)
        columns = [0] * len(inputs)
        empty = torch.empty(0, dtype=torch.int64)
        order, counts, picked, start = [empty], [torch.empty(0)], [empty], 0
        for (number, patched), width in zip(parts, widths, strict=True):
            item, place = inputs[number], torch.arange(start, start + width)
            c, p, column, first = item.channels, item.pixels, columns[number], starts[number]
            columns[number] += 1
            order += [place[:c], half + place[:c], place[c:], half + place[c:]]
            picked.append(torch.arange(channels[number], channels[number] + c))
            counts.append(torch.full((c,), item.height * item.width))
            users[first : first + 2 * c, column] = torch.cat([place[:c], half + place[:c]])
            if patched:
                picked.append(channels[-1] + torch.arange(cells[number], cells[number] + item.cells))
                counts.append(torch.full((item.cells,), c * item.patch**2))
                cell = place[c:][item.cell_of_pixel()]
                users[first + 2 * c : first + 2 * (c + p), column] = torch.cat([cell, half + cell])
            start += width
        # The index that sorts the pixels of all inputs by cell.
        by_cell, first = [empty], 0
        for item in inputs:
            by_cell.append(first + item.cell_of_pixel().argsort(stable=True))
            first += item.pixels
        self._by_cell, self._picked = torch.cat(by_cell).to(device), torch.cat(picked).to(device)
        self.order, self.users = torch.cat(order).to(device), users.to(device)
        self.per_image = torch.cat(counts).to(device, torch.float32)
        self._lengths = [length for item in inputs for length in item.coefficients]

    def moments(self, measured: dict[int, Sums | Averages], groups: int, images: int) -> tuple[Tensor, Tensor]:
        """Means and variances (G, D / 2) of groups of images, measured by input; zeros where one is left out."""
        none = self.per_image.new_zeros(2, groups, 1)
        by_channel, by_pixel = [none[..., :0]], [none[..., :0]]
        sums = self._summed(measured, images)
        for number, item in enumerate(self.inputs):
            if number in sums:
                channels, pixels = sums[number]
                by_channel.append(channels)
                if pixels is not None:
                    by_pixel.append(pixels)
            else:
                by_channel.append(none.expand(-1, -1, item.channels))
                by_pixel.append(none.expand(-1, -1, item.pixels))
        cells = _pick(torch.cat(by_pixel, dim=2), self._by_cell)
        if cells.shape[2]:
            cells = cells.unflatten(2, (-1, self.inputs[0].patch ** 2)).sum(3)
        means, squares = _pick(torch.cat([*by_channel, cells], dim=2), self._picked)
        count = self.per_image * images
        means = means / count
        variances = (squares / count).addcmul_(means, means, value=-1).clamp_min_(0)
        return means, variances

    def _summed(self, measured: dict[int, Sums | Averages], images: int) -> dict[int, Sums]:
        """All as sums; the averages of many layers are converted together, which takes fewer calls."""
        sums = {number: item for number, item in measured.items() if isinstance(item, Sums)}
        averages = {number: item for number, item in measured.items() if isinstance(item, Averages)}
        if not averages:
            return sums
        means, variances = map(list, zip(*averages.values(), strict=True))
        counts = [self.inputs[number].height * self.inputs[number].width * images for number in averages]
        first = torch._foreach_mul(means, counts)
        second = torch._foreach_mul(torch._foreach_addcmul(variances, means, means), counts)
        both = torch.stack([torch.cat(first), torch.cat(second)])[:, None]
        parts = both.split([self.inputs[number].channels for number in averages], dim=2)
        return sums | {number: Sums(part) for number, part in zip(averages, parts, strict=True)}

    def vector(self, means: Tensor, variances: Tensor) -> Tensor:
        """Means and variances (G, D / 2) as statistics vectors (G, D)."""
        return _pick(torch.cat([means, variances], dim=1), self.order)

    def coefficients(self, gradient: Tensor, means: Tensor, images: int) -> list[list[Tensor]]:
        """Coefficients of :meth:`LayerInput.gradient` for every input, from gradient (G, D), means (G, D / 2)."""
        ordered = torch.empty_like(gradient)
        ordered[:, self.order] = gradient
        to_means, to_variances = ordered.split(self.half, dim=1)
        count = self.per_image * images
        scale = 2 * to_variances / count
        shift = to_means / count - scale * means
        entries = torch.cat([scale, shift, scale.new_zeros(len(scale), 1)], dim=1)
        added = _pick(entries, self.users.flatten()).view(-1, *self.users.shape).sum(-1)
        pieces = iter(added[:, None, None].split(self._lengths, dim=-1))
        return [list(islice(pieces, len(item.coefficients))) for item in self.inputs]


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """Entries of the last dimension; `gather` is several times faster than indexing."""
    return values.gather(-1, index.expand(*values.shape[:-1], -1))


def _starts(lengths: Sequence[int]) -> list[int]:
    """Start of each of several consecutive pieces, and the end of the last one."""
    return list(accumulate(lengths, initial=0))
