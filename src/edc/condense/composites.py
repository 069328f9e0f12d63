"""Composites of RDED (Sun et al., CVPR 2024, section 4): crops with the lowest cross-entropy, tiled into one image.

Of every candidate image the crop with the lowest loss is taken; of those, the ones with the lowest losses are laid out
``factor`` by ``factor``. Pixels stay uint8 throughout: only the scores are computed in normalised space.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.condense.initialise import InitialisationInputs, pick
from edc.data.crops import draw_crops
from edc.data.rng import generator
from edc.errors import EdcError
from edc.nets.passes import images_at_once
from edc.nets.placing import compute_logits


def padded(crops: Tensor, size: int) -> Tensor:
    """Crops (n, C, s, s) in the middle of zeros, (n, C, size, size); an odd rest goes right and below."""
    before = (size - crops.shape[-1]) // 2
    after = size - crops.shape[-1] - before
    return F.pad(crops, (before, after, before, after))


@torch.no_grad()
def scores(scorers: Sequence[nn.Module], crops: Tensor, labels: Tensor, size: int) -> Tensor:
    """Cross-entropy of the true class for every normalised crop (n, C, s, s): (n,); lower is better.

    The logits of several observers, in eval mode, are averaged. Crops are padded to the observers' size with zeros, the
    mean pixel.
    """
    images = padded(crops, size)
    logits = torch.stack([compute_logits(scorer, images) for scorer in scorers]).mean(dim=0)
    return F.cross_entropy(logits, labels, reduction="none")


def best_crops(losses: Tensor) -> tuple[Tensor, Tensor]:
    """The best crop of every image: of losses (n, crops), the lowest one's position and its value, (n,) each."""
    best = losses.argmin(dim=1)
    return best, losses.gather(1, best[:, None])[:, 0]


def best_images(losses: Tensor, count: int) -> Tensor:
    """Positions of the ``count`` lowest losses of (n,), best first; equal ones keep their order."""
    return losses.argsort(stable=True)[:count]


def _cells(factor: int, size: int, source: int) -> tuple[Tensor, Tensor]:
    """For every pixel along a side of ``size``: its cell, and its pixel in a crop of side ``source``, (size,) each."""
    lengths = torch.tensor([len(part) for part in torch.arange(size).tensor_split(factor)])
    cell = torch.arange(factor).repeat_interleave(lengths)
    within = torch.arange(size) - (lengths.cumsum(0) - lengths)[cell]
    return cell, within * source // lengths[cell]


def tile(crops: Tensor, factor: int, size: int) -> Tensor:
    """Lay crops (n * factor^2, C, s, s), best first, out in images (n, C, size, size) of ``factor``^2 cells.

    With n images, image i takes the crops of rank i, i + n, i + 2n, ... cell after cell, row by row, so that every
    image gets crops of every quality. They are resized by nearest neighbour. Where ``size`` is no multiple of
    ``factor``, the first rows and columns of cells are one pixel larger.
    """
    cell, pixel = (part.to(crops.device) for part in _cells(factor, size, crops.shape[-1]))
    grid = crops.unflatten(0, (factor**2, -1))
    which = cell[:, None] * factor + cell[None, :]
    # Three advanced indices with slices between them put the pixel axes first.
    return grid[which, :, :, pixel[:, None], pixel[None, :]].permute(2, 3, 0, 1).contiguous()


def best_of_class(inputs: InitialisationInputs, scorers: Sequence[nn.Module], c: int, count: int) -> Tensor:
    """The ``count`` best crops of a class, best first: uint8 (count, C, S // factor, S // factor)."""
    train, choices, (_, _, size) = inputs.train, inputs.row.initialise, inputs.train.shape
    rng = generator(inputs.row.seed, "composites", c)
    members = train.by_class(c)
    members = members[torch.from_numpy(rng.permutation(len(members))[: choices.candidates])]
    per_image, side = choices.crops, size // choices.factor
    draws = draw_crops(rng, len(members) * per_image, choices.crop_scale, (1.0, 1.0))
    at_once = max(1, images_at_once(size) // per_image)
    best_of_images, losses = [], []
    for first in range(0, len(members), at_once):
        index = members[first : first + at_once].repeat_interleave(per_image)
        rows = np.arange(first * per_image, first * per_image + len(index))
        crops = train.read(index, draws[rows], side)
        labels = torch.full((len(index),), c, device=inputs.device)
        loss = scores(scorers, inputs.normaliser.encode(crops.to(inputs.device)), labels, size)
        best, lowest = best_crops(loss.view(-1, per_image))
        best_of_images.append(crops.unflatten(0, (-1, per_image))[torch.arange(len(best)), best.to(crops.device)])
        losses.append(lowest)
    order = best_images(torch.cat(losses), count)
    candidates = torch.cat(best_of_images)
    return candidates[order.to(candidates.device)].cpu()


def check_candidates(inputs: InitialisationInputs) -> None:
    """Refuse too few training images of a class, or too few candidates; the error names the values to change."""
    row, choices = inputs.row, inputs.row.initialise
    count = choices.pool or row.ipc
    needed = count * choices.factor**2
    what = f"{count} composites of {choices.factor} x {choices.factor} crops"
    remedy = f"lower {'initialise.pool' if choices.pool else 'ipc'} or initialise.factor"
    if choices.pool and choices.draw == "distinct" and choices.pool < row.ipc:
        raise EdcError(f"initialise.pool = {choices.pool}: expected at least ipc = {row.ipc} where draw is 'distinct'")
    if needed > choices.candidates:
        raise EdcError(f"initialise.candidates = {choices.candidates}: {what} need {needed}; raise it, or {remedy}")
    if inputs.train.shape[-1] < choices.factor:
        raise EdcError(f"initialise.factor = {choices.factor}: images have {inputs.train.shape[-1]} pixels a side")
    for c, name in enumerate(inputs.train.classes):
        if (images := len(inputs.train.by_class(c))) < needed:
            raise EdcError(f"class {name!r} has {images} training images, {what} need {needed}; {remedy}")


def composites(inputs: InitialisationInputs) -> tuple[Tensor, Tensor]:
    """Composites of every class: the ``ipc`` best, or ``ipc`` drawn from a pool of the best (EDC).

    Like real images, those drawn from a pool for synthesis are mirrored with probability one half. Returns uint8 (K *
    IPC, C, S, S), class after class, and their classes (K * IPC,).

    Raises:
        EdcError: a class has too few candidates.
    """
    check_candidates(inputs)
    row, choices, size = inputs.row, inputs.row.initialise, inputs.train.shape[-1]
    scorers = inputs.scorers()
    flip = 0.5 if choices.pool and inputs.dataset.flip and row.optimise.iterations > 0 else 0.0
    composites_of_classes = []
    for c in range(len(inputs.train.classes)):
        crops = best_of_class(inputs, scorers, c, (choices.pool or row.ipc) * choices.factor**2)
        images = tile(crops, choices.factor, size)
        if choices.pool:
            rng = generator(row.seed, "initialise", c)
            images = images[torch.from_numpy(pick(rng, choices.pool, row.ipc, choices.draw))]
            mirrored = torch.from_numpy(rng.random(row.ipc) < flip)
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        composites_of_classes.append(images)
    labels = torch.arange(len(inputs.train.classes)).repeat_interleave(row.ipc)
    return torch.cat(composites_of_classes), labels
