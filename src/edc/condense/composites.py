"""Composites of RDED (Sun et al., CVPR 2024, section 4): the crops an observer recognises best, tiled into one image.

Every candidate image gives one crop, the one whose class an observer is surest of; of those, the surest are kept and
laid out ``factor`` by ``factor``. Pixels stay uint8 throughout: only the scores are computed in normalised space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.data.crops import draw_crops
from edc.errors import EdcError
from edc.condense.initialise import pick
from edc.nets.placing import answers
from edc.nets.passes import images_at_once
from edc.data.rng import generator

if TYPE_CHECKING:
    from edc.condense.initialise import Start


def padded(crops: Tensor, size: int) -> Tensor:
    """Crops (n, C, s, s) in the middle of zeros, (n, C, size, size); an odd rest goes right and below."""
    before = (size - crops.shape[-1]) // 2
    after = size - crops.shape[-1] - before
    return F.pad(crops, (before, after, before, after))


@torch.no_grad()
def scores(scorers: Sequence[nn.Module], crops: Tensor, labels: Tensor, size: int) -> Tensor:
    """Cross-entropy of the true class for every crop, (n,); lower is better.

    Args:
        scorers: observers in eval mode; several answer with their mean logits.
        crops: float (n, C, s, s), normalised.
        labels: (n,) true classes.
        size: side of the images the observers know; crops are padded with zeros, the mean pixel, up to it.
    """
    whole = padded(crops, size)
    logits = torch.stack([answers(scorer, whole) for scorer in scorers]).mean(dim=0)
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
    """Lay crops out in images of ``factor`` by ``factor`` cells, resized by nearest neighbour.

    With n images, image i takes the crops of rank i, i + n, i + 2n, ... cell after cell, row by row, so that every
    image gets crops of every quality. Where ``size`` is no multiple of ``factor``, the first rows and columns of
    cells are one pixel larger.

    Args:
        crops: (n * factor^2, C, s, s), best first, any dtype.
        factor: cells a side.
        size: side of the images, pixels.

    Returns:
        (n, C, size, size)
    """
    cell, pixel = (part.to(crops.device) for part in _cells(factor, size, crops.shape[-1]))
    grid = crops.unflatten(0, (factor**2, -1))
    which = cell[:, None] * factor + cell[None, :]
    # Three advanced indices with slices between them put the pixel axes first.
    return grid[which, :, :, pixel[:, None], pixel[None, :]].permute(2, 3, 0, 1).contiguous()


def best_of_class(start: Start, scorers: Sequence[nn.Module], c: int, count: int) -> Tensor:
    """The ``count`` best crops of a class, best first: uint8 (count, C, S // factor, S // factor)."""
    train, choices, (_, _, size) = start.train, start.row.initialise, start.train.shape
    rng = generator(start.row.seed, "composites", c)
    members = train.by_class(c)
    members = members[torch.from_numpy(rng.permutation(len(members))[: choices.candidates])]
    per_image, side = choices.crops, size // choices.factor
    draws = draw_crops(rng, len(members) * per_image, choices.crop_scale, (1.0, 1.0))
    at_once = max(1, images_at_once(size) // per_image)
    kept, losses = [], []
    for first in range(0, len(members), at_once):
        some = members[first : first + at_once].repeat_interleave(per_image)
        rows = np.arange(first * per_image, first * per_image + len(some))
        crops = train.read(some, draws[rows], side)
        labels = torch.full((len(some),), c, device=start.device)
        loss = scores(scorers, start.normaliser.encode(crops.to(start.device)), labels, size)
        best, lowest = best_crops(loss.view(-1, per_image))
        kept.append(crops.unflatten(0, (-1, per_image))[torch.arange(len(best)), best.to(crops.device)])
        losses.append(lowest)
    order = best_images(torch.cat(losses), count)
    every = torch.cat(kept)
    return every[order.to(every.device)].cpu()


def check_candidates(start: Start) -> None:
    """Every class must have enough training images for its composites.

    Raises:
        EdcError: one has not, or the candidates are too few; names the values to change.
    """
    row, choices = start.row, start.row.initialise
    made = choices.pool or row.ipc
    needed = made * choices.factor**2
    what = f"{made} composites of {choices.factor} x {choices.factor} crops"
    cure = f"lower {'initialise.pool' if choices.pool else 'ipc'} or initialise.factor"
    if choices.pool and choices.draw == "distinct" and choices.pool < row.ipc:
        raise EdcError(f"initialise.pool = {choices.pool}: expected at least ipc = {row.ipc} where draw is 'distinct'")
    if needed > choices.candidates:
        raise EdcError(f"initialise.candidates = {choices.candidates}: {what} need {needed}; raise it, or {cure}")
    if start.train.shape[-1] < choices.factor:
        raise EdcError(f"initialise.factor = {choices.factor}: images have {start.train.shape[-1]} pixels a side")
    for c, name in enumerate(start.train.classes):
        if (found := len(start.train.by_class(c))) < needed:
            raise EdcError(f"class {name!r} has {found} training images, {what} need {needed}; {cure}")


def composites(start: Start) -> tuple[Tensor, Tensor]:
    """Composites of every class: the ``ipc`` best as ranked, or ``ipc`` drawn from a pool of them (EDC).

    As for real images, those drawn from a pool for synthesis are mirrored with probability one half.

    Returns:
        uint8 (K * IPC, C, S, S), class after class, and their classes (K * IPC,).

    Raises:
        EdcError: a class has too few candidates.
    """
    check_candidates(start)
    row, choices, size = start.row, start.row.initialise, start.train.shape[-1]
    scorers = start.scorers()
    flip = 0.5 if choices.pool and start.dataset.flip and row.optimise.iterations > 0 else 0.0
    found = []
    for c in range(len(start.train.classes)):
        crops = best_of_class(start, scorers, c, (choices.pool or row.ipc) * choices.factor**2)
        images = tile(crops, choices.factor, size)
        if choices.pool:
            rng = generator(row.seed, "initialise", c)
            images = images[torch.from_numpy(pick(rng, choices.pool, row.ipc, choices.draw))]
            mirrored = torch.from_numpy(rng.random(row.ipc) < flip)
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        found.append(images)
    labels = torch.arange(len(start.train.classes)).repeat_interleave(row.ipc)
    return torch.cat(found), labels
