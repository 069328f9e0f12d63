"""Replayable augmentation: that of image i in epoch e follows from a seed, for teachers and students alike."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edc.config.rows import RelabelRow
from edc.data import dsa, randaugment
from edc.data.augment import Normaliser, cutmix_box, mixup, pad_crop, paste, resized_crop, shuffle_strips
from edc.data.crops import draw_crops, tile_regions
from edc.data.rng import generator
from edc.nets.passes import images_at_once

VIEWS = "views.safetensors"
"""File of views that came with an imported set, beside its labels."""
ON_GPU = 8
"""How many times as many images a GPU augments at once: its operations take as long for 25 as for 4,000."""


@dataclass(frozen=True)
class EpochDraws:
    """The augmentation of one epoch, in the CPU's memory; row i belongs to image i, whatever the order.

    Attributes:
        order: (N,) in which images are visited.
        partners: (N,) the image that is mixed in.
        mix_boxes: (N, 4) rectangles that CutMix pastes; empty without it.
        shares: (N,) weight of the image itself in mixup.
        offsets: (N, 2) of the crop in the padded image.
        strips: (N, n) order of the columns and of the rows of an n by n tiling.
        dsa: (N, 13) of :mod:`edc.data.dsa`.
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
    dsa: Tensor | None

    def own_shares(self, size: int) -> Tensor:
        """Share of a mixed view that is the image itself (N,): of its area ``size * size`` after CutMix, as clipped."""
        if self.shares is not None:
            return self.shares
        box = self.mix_boxes
        return 1 - ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])).to(torch.float32) / size**2


def batches_of(order: Tensor, batch: int) -> list[Tensor]:
    """Split an order of images into batches; a single last image joins the batch before, as batch norm needs two."""
    parts = list(order.split(batch))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def part_sizes(images: int, parts: int) -> list[int]:
    """Images of each part of a batch: as equal as they can be, and two at least, as batch norm needs two."""
    count = max(1, min(parts, images // 2))
    return [images // count + (i < images % count) for i in range(count)]


def batch_count(images: int, batch: int) -> int:
    """How many batches :func:`batches_of` cuts: optimiser steps of one epoch."""
    return max(1, images // batch + (images % batch > 1))


class Replay:
    """The repeatable augmentation of a condensed set, uint8 (N, C, S, S) on the device that augments.

    ``views`` are those that came with an imported set, by their names in :class:`EpochDraws`, (E, N, ...) each; they
    take the place of the draws, again and again where there are more epochs.
    """

    def __init__(
        self, images: Tensor, row: RelabelRow, normaliser: Normaliser, views: Mapping[str, Tensor] | None = None
    ) -> None:
        self.images, self.row, self.normaliser, self.views = images, row, normaliser, views
        self._cache: dict[tuple[int, int, bool], list[tuple[Tensor, Tensor]]] = {}

    def draws(self, epoch: int) -> EpochDraws:
        """Every parameter of one epoch (0-based)."""
        if self.views:
            missing = ("shares", "offsets", "strips", "operations", "dsa")
            stored: dict[str, Any] = dict.fromkeys(missing)
            for name, values in self.views.items():
                of_epoch = values[epoch % len(values)]
                stored[name] = of_epoch.long() if of_epoch.dtype == torch.int32 else of_epoch
            return EpochDraws(**stored)
        row, n, size = self.row, len(self.images), self.images.shape[-1]
        rng = generator(row.seed, "replay", epoch)
        order = rng.permutation(n)
        crops = draw_crops(rng, n, row.crop_scale, row.crop_ratio)
        boxes = tile_regions(generator(row.seed, "tiles", epoch), n, size, row.tiles)
        if row.crop_scale[0] < 1:
            inside = crops.boxes(boxes[:, 2], boxes[:, 3])
            inside[:, :2] += boxes[:, :2]
            boxes = inside
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
        if row.mix == "mixup":
            lam_of_image = np.empty(n, dtype=np.float32)
            for start in range(0, n, row.batch):
                lam_of_image[order[start : start + row.batch]] = rng.beta(row.mixup_alpha, row.mixup_alpha)
            shares = torch.from_numpy(lam_of_image)
        if row.pad:
            offsets = torch.from_numpy(rng.integers(0, 2 * row.pad + 1, (n, 2)))
        if row.shuffle > 1:
            plain = np.broadcast_to(np.arange(row.shuffle), (n, row.shuffle))
            columns, rows = rng.permuted(plain, axis=1), rng.permuted(plain, axis=1)
            strips = torch.from_numpy(columns), torch.from_numpy(rows)
        if row.randaugment is not None:
            operations = randaugment.draw(generator(row.seed, "randaugment", epoch), n, row.randaugment.ops)
        of_dsa = dsa.draw(generator(row.seed, "dsa", epoch), n, size) if row.dsa else None
        drawn = [torch.from_numpy(values) for values in (order, boxes, flips, partners)]
        return EpochDraws(drawn[0], drawn[1], drawn[2], drawn[3], mix, shares, offsets, strips, operations, of_dsa)

    def _view(self, parts: Sequence[tuple[EpochDraws, Tensor]]) -> Tensor:
        """Shuffled, cropped and mirrored images, normalised: for every part those at its (B,) indices."""
        row, pixels = self.row, self.images[self._send([index for _, index in parts])]
        if row.randaugment is not None:
            drawn = [draws.operations[index.numpy()] for draws, index in parts if draws.operations is not None]
            pixels = randaugment.apply(pixels, randaugment.joined(drawn), row.randaugment.magnitude)
        if row.shuffle > 1:
            orders = [[order[index] for order in draws.strips] for draws, index in parts if draws.strips is not None]
            pixels = shuffle_strips(pixels, *(self._send(order) for order in zip(*orders, strict=True)))
        if row.pad:
            offsets = [draws.offsets[index] for draws, index in parts if draws.offsets is not None]
            pixels = pad_crop(pixels, self._send(offsets), row.pad)
        flips = self._send([draws.flips[index] for draws, index in parts])
        if row.crop_scale[0] == 1 and row.tiles == 1:
            pixels = torch.where(flips[:, None, None, None], pixels.flip(-1), pixels)
        else:
            boxes = self._send([draws.boxes[index] for draws, index in parts])
            pixels = resized_crop(pixels.to(torch.float32), boxes, pixels.shape[-1], flips)
        views = self.normaliser.encode(pixels)
        if row.dsa:
            views = dsa.apply(views, self._send([draws.dsa[index] for draws, index in parts if draws.dsa is not None]))
        return views

    def _send(self, parts: Sequence[Tensor]) -> Tensor:
        """Tensors of the CPU, concatenated on the device of the images."""
        return torch.cat(list(parts)).to(self.images.device)

    def batch(self, parts: Sequence[tuple[EpochDraws, Tensor]], mix: bool = True) -> Tensor:
        """Augmented images, float32 (sum of B, C, S, S), normalised.

        Args:
            parts: an epoch's draws and which of its images, (B,) on the CPU; several are augmented together.
            mix: apply CutMix or mixup; false under hard and static labels.
        """
        views = self._view(parts)
        if not mix or self.row.mix == "none":
            return views
        # Where all partners are among the images, their views are computed already.
        if (partners := self._partners(parts)) is not None:
            other = views[partners.to(views.device)]
        else:
            other = self._view([(draws, draws.partners[index]) for draws, index in parts])
        if self.row.mix == "mixup":
            shares = self._send([draws.shares[index] for draws, index in parts if draws.shares is not None])
            return mixup(views, other, shares.view(-1, 1, 1, 1))
        return paste(views, other, self._send([draws.mix_boxes[index] for draws, index in parts]))

    def _partners(self, parts: Sequence[tuple[EpochDraws, Tensor]]) -> Tensor | None:
        """Position of each image's partner among the images; None if one is missing."""
        places, offset = [], 0
        for draws, index in parts:
            place = torch.full((len(self.images),), -1)
            place[index] = torch.arange(offset, offset + len(index))
            places.append(place[draws.partners[index]])
            offset += len(index)
        positions = torch.cat(places)
        return positions if bool((positions >= 0).all()) else None

    def epoch(self, epoch: int, batch: int, mix: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch: image indices (B,) and images (B, C, S, S), both on the device.

        Of a small set several epochs are augmented at once and cached. They are divided the same way wherever a reader
        begins, so that the last bits are the same.
        """
        if (epoch, batch, mix) not in self._cache:
            self._cache.clear()
            most = images_at_once(self.images.shape[-1]) * (ON_GPU if self.images.is_cuda else 1)
            together = most // len(self.images)
            if together > 1:
                # No epoch with labels together with one after the last of them.
                begin, end = (0, self.row.epochs) if epoch < self.row.epochs else (self.row.epochs, sys.maxsize)
                first = epoch - (epoch - begin) % together
                self._make(range(first, min(first + together, end)), batch, mix)
        if (epoch, batch, mix) in self._cache:
            yield from self._cache[epoch, batch, mix]
            return
        draws = self.draws(epoch)
        for index in batches_of(draws.order, batch):
            yield index.to(self.images.device), self.batch([(draws, index)], mix)

    def clear_cache(self) -> None:
        """Drop the augmented epochs."""
        self._cache.clear()

    def _make(self, epochs: range, batch: int, mix: bool) -> None:
        """Augment whole epochs together."""
        parts = [(draws, draws.order) for draws in map(self.draws, epochs)]
        views = self.batch(parts, mix).split(len(self.images))
        orders = self._send([order for _, order in parts]).split(len(self.images))
        for epoch, order, view in zip(epochs, orders, views, strict=True):
            index = batches_of(order, batch)
            cut = view.split([len(part) for part in index])
            self._cache[epoch, batch, mix] = list(zip(index, cut, strict=True))
