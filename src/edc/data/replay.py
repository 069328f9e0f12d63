"""Replayable augmentation: what happens to image i in epoch e follows from a seed, so labels made once fit for ever.

The observers see exactly the pixels the student will see. Nothing but the seed and the choices is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from edc.data import randaugment
from edc.data.augment import Normaliser, crop_boxes, cutmix_box, pad_crop, paste, resized_crop
from edc.data.mixing import mixup, shuffle_strips
from edc.rng import generator

if TYPE_CHECKING:
    from edc.params import RelabelRow


@dataclass(frozen=True)
class EpochDraws:
    """The augmentation of one epoch; row i belongs to image i, whatever the order.

    Attributes:
        order: (N,) the order in which images are visited.
        boxes: (N, 4) crop rectangles.
        flips: (N,) left-right mirrors.
        partners: (N,) the image that is mixed in.
        mix_boxes: (N, 4) what CutMix pastes; empty rectangles without it.
        shares: (N,) how much of the own image mixup keeps; None without it.
        offsets: (N, 2) where the padded image is cut out; None without padding.
        strips: (N, n) order of the columns and of the rows of an n by n tiling; None without shuffling.
        operations: RandAugment's draws, or None.
    """

    order: Tensor
    boxes: Tensor
    flips: Tensor
    partners: Tensor
    mix_boxes: Tensor
    shares: Tensor | None
    offsets: Tensor | None
    strips: tuple[Tensor, Tensor] | None
    operations: randaugment.Draws | None


def batches_of(order: Tensor, batch: int) -> list[Tensor]:
    """Cut an order of images into batches; a last image left alone joins the batch before, for batch norm's sake."""
    parts = list(order.split(batch))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def batch_count(images: int, batch: int) -> int:
    """How many batches :func:`batches_of` cuts: optimiser steps of one epoch."""
    return max(1, images // batch + (images % batch > 1))


class Replay:
    """Augments a condensed set the same way whenever it is asked.

    Args:
        images: uint8 (N, C, S, S) on the device that augments.
        row: the choices and the seed.
        normaliser: into the space networks see.
    """

    def __init__(self, images: Tensor, row: RelabelRow, normaliser: Normaliser) -> None:
        self.images, self.row, self.normaliser = images, row, normaliser

    def draws(self, epoch: int) -> EpochDraws:
        """Every parameter of one epoch (0-based)."""
        row, n, size = self.row, len(self.images), self.images.shape[-1]
        rng = generator(row.seed, "replay", epoch)
        order = rng.permutation(n)
        boxes = crop_boxes(rng, n, size, row.crop_scale, row.crop_ratio)
        flips = rng.random(n) < (0.5 if row.flip else 0.0)
        partners, mix = order.copy(), torch.zeros(n, 4, dtype=torch.int64)
        for start in range(0, n, row.batch):
            # One rectangle and one permutation per batch, drawn whether or not they are used.
            batch = order[start : start + row.batch]
            lam, centre = rng.random(), rng.integers(0, size, 2)
            partners[batch] = rng.permutation(batch)
            if row.mix == "cutmix":
                mix[batch] = torch.tensor(cutmix_box(lam, (int(centre[0]), int(centre[1])), size))
        shares = offsets = strips = operations = None
        device = self.images.device
        if row.mix == "mixup":
            kept = np.empty(n, dtype=np.float32)
            for start in range(0, n, row.batch):
                kept[order[start : start + row.batch]] = rng.beta(row.mixup_alpha, row.mixup_alpha)
            shares = torch.from_numpy(kept).to(device)
        if row.pad:
            offsets = torch.from_numpy(rng.integers(0, 2 * row.pad + 1, (n, 2))).to(device)
        if row.shuffle > 1:
            plain = np.broadcast_to(np.arange(row.shuffle), (n, row.shuffle))
            columns, rows = (torch.from_numpy(rng.permuted(plain, axis=1)).to(device) for _ in range(2))
            strips = (columns, rows)
        if row.randaugment is not None:
            operations = randaugment.draw(generator(row.seed, "randaugment", epoch), n, row.randaugment.ops)
        return EpochDraws(
            order=torch.from_numpy(order).to(device),
            boxes=torch.from_numpy(boxes).to(device),
            flips=torch.from_numpy(flips).to(device),
            partners=torch.from_numpy(partners).to(device),
            mix_boxes=mix.to(device),
            shares=shares,
            offsets=offsets,
            strips=strips,
            operations=operations,
        )

    def _view(self, draws: EpochDraws, index: Tensor) -> Tensor:
        """Shuffled, cropped and mirrored images, normalised."""
        pixels = self.images[index]
        if draws.operations is not None and self.row.randaugment is not None:
            pixels = randaugment.apply(pixels, draws.operations[index.cpu().numpy()], self.row.randaugment.magnitude)
        if draws.strips is not None:
            pixels = shuffle_strips(pixels, draws.strips[0][index], draws.strips[1][index])
        if draws.offsets is not None:
            pixels = pad_crop(pixels, draws.offsets[index], self.row.pad)
        if self.row.crop_scale[0] == 1:
            pixels = torch.where(draws.flips[index][:, None, None, None], pixels.flip(-1), pixels)
        else:
            pixels = resized_crop(pixels.to(torch.float32), draws.boxes[index], pixels.shape[-1], draws.flips[index])
        return self.normaliser.encode(pixels)

    def batch(self, draws: EpochDraws, index: Tensor, mix: bool = True) -> Tensor:
        """The images of one batch as networks see them.

        Args:
            draws: the epoch's parameters.
            index: (B,) which images.
            mix: mix the partner in; the hard-label and fixed-label regimes leave it out.

        Returns:
            float32 (B, C, S, S), normalised.
        """
        own = self._view(draws, index)
        if not mix or self.row.mix == "none":
            return own
        partners = draws.partners[index]
        # Inside the batch they were drawn for, partners are views already at hand.
        place = torch.full((len(self.images),), -1, device=index.device)
        place[index] = torch.arange(len(index), device=index.device)
        other = own[place[partners]] if bool((place[partners] >= 0).all()) else self._view(draws, partners)
        if draws.shares is not None:
            return mixup(own, other, draws.shares[index].view(-1, 1, 1, 1))
        return paste(own, other, draws.mix_boxes[index])

    def epoch(self, epoch: int, batch: int, mix: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch: image indices (B,) and images (B, C, S, S)."""
        draws = self.draws(epoch)
        for index in batches_of(draws.order, batch):
            yield index, self.batch(draws, index, mix)
