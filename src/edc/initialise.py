"""Where the pixels of a condensed set start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from edc.errors import EdcError
from edc.rng import generator

if TYPE_CHECKING:
    from edc.data.sets import ImageSet
    from edc.params import SynthesizeRow


def avoiding_probabilities(drawn: np.ndarray) -> np.ndarray:
    """softmax(-times drawn): candidates drawn before become unlikely, the rule of EDC's ImageNet-10 code."""
    weight = np.exp(-(drawn - drawn.min()))
    return weight / weight.sum()


def pick(rng: np.random.Generator, candidates: int, count: int, draw: str) -> np.ndarray:
    """Which of the candidates a class starts from, int64 (count,).

    Args:
        rng: source of the draws.
        candidates: number of training images of the class.
        count: how many to draw.
        draw: "independent" draws may repeat, "softmin" draws avoid repeats, "distinct" draws never repeat.
    """
    if draw != "softmin":
        return rng.choice(candidates, count, replace=draw == "independent")
    drawn, picks = np.ones(candidates), np.empty(count, dtype=np.int64)
    for i in range(count):
        picks[i] = rng.choice(candidates, p=avoiding_probabilities(drawn))
        drawn[picks[i]] += 1
    return picks


def real_images(train: ImageSet, row: SynthesizeRow, flip: bool) -> tuple[Tensor, Tensor]:
    """Random training images of every class.

    Args:
        train: the training images.
        row: how many, whether repeats may occur, and the seed.
        flip: mirror each with probability one half.

    Returns:
        uint8 (K * IPC, C, S, S), class after class, and their classes (K * IPC,).

    Raises:
        EdcError: a class has fewer images than asked for without repeats.
    """
    picks, mirrored = [], []
    for c, name in enumerate(train.classes):
        members = train.by_class(c)
        rng = generator(row.seed, "initialise", c)
        draw = row.initialise.draw
        if draw == "distinct" and len(members) < row.ipc:
            raise EdcError(f"class {name!r} has {len(members)} training images, {row.ipc} distinct ones were asked for")
        picks.append(members[torch.from_numpy(pick(rng, len(members), row.ipc, draw))])
        mirrored.append(torch.from_numpy(rng.random(row.ipc) < (0.5 if flip else 0)))
    index = torch.cat(picks)
    images = train.read(index)
    images = torch.where(torch.cat(mirrored)[:, None, None, None], images.flip(-1), images)
    return images, train.labels[index]


def class_major(classes: int, ipc: int, group: int) -> list[Tensor]:
    """Indices of the images matched together: class after class, cut into groups of ``group`` (0: all)."""
    return list(torch.arange(classes * ipc).split(group or classes * ipc))


def noise(train: ImageSet, row: SynthesizeRow) -> tuple[Tensor, Tensor]:
    """Standard normal noise in normalised space, (K * IPC, C, S, S), as SRe2L and G-VBSM start from."""
    count, classes = len(train.classes) * row.ipc, len(train.classes)
    rng = generator(row.seed, "initialise")
    images = torch.from_numpy(rng.standard_normal((count, *train.images.shape[1:]), dtype=np.float32))
    return images, torch.arange(classes).repeat_interleave(row.ipc)


def initial_images(train: ImageSet, row: SynthesizeRow, flip: bool) -> tuple[Tensor, Tensor]:
    """Initial images and their classes by the recipe's choice: uint8 pixels, or normalised floats for noise."""
    if row.initialise.method == "noise":
        return noise(train, row)
    # A set that stays as drawn keeps the pictures as they are; only synthesis starts from mirrored ones.
    return real_images(train, row, flip and row.optimise.iterations > 0)
