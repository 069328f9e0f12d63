"""Initial images of synthesis: real images or noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edc.config.registry import INITIALISE, implementation
from edc.config.rows import Dataset, SynthesizeRow
from edc.data.augment import Normaliser
from edc.data.images import Images
from edc.data.rng import generator
from edc.errors import EdcError


def avoiding_probabilities(drawn: np.ndarray) -> np.ndarray:
    """softmax(-times drawn), the rule of EDC's ImageNet-10 code: repeats become unlikely."""
    weight = np.exp(-(drawn - drawn.min()))
    return weight / weight.sum()


def pick(rng: np.random.Generator, candidates: int, count: int, draw: str) -> np.ndarray:
    """Random positions among a class's candidates, int64 (count,).

    "independent" draws may repeat, "softmin" draws avoid repeats, "distinct" draws never repeat.
    """
    if draw != "softmin":
        return rng.choice(candidates, count, replace=draw == "independent")
    drawn, picks = np.ones(candidates), np.empty(count, dtype=np.int64)
    for i in range(count):
        picks[i] = rng.choice(candidates, p=avoiding_probabilities(drawn))
        drawn[picks[i]] += 1
    return picks


@dataclass(frozen=True)
class InitialisationInputs:
    """What an initialisation may use; `scorers` loads the observers, frozen, in eval mode."""

    train: Images
    row: SynthesizeRow
    dataset: Dataset
    normaliser: Normaliser
    device: torch.device
    scorers: Callable[[], list[nn.Module]]


def real_images(inputs: InitialisationInputs) -> tuple[Tensor, Tensor]:
    """Random training images of every class, mirrored with probability one half if they are to be optimised.

    Raises:
        EdcError: a class has fewer images than asked for without repeats.
    """
    train, row = inputs.train, inputs.row
    picks, mirrored = [], []
    for c, name in enumerate(train.classes):
        members = train.by_class(c)
        rng = generator(row.seed, "initialise", c)
        draw = row.initialise.draw
        if draw == "distinct" and len(members) < row.ipc:
            raise EdcError(f"class {name!r} has {len(members)} training images, {row.ipc} distinct ones were asked for")
        picks.append(members[torch.from_numpy(pick(rng, len(members), row.ipc, draw))])
        # A set of real images is not mirrored; only the start of synthesis is.
        flip = inputs.dataset.flip and row.optimise.iterations > 0
        mirrored.append(torch.from_numpy(rng.random(row.ipc) < (0.5 if flip else 0)))
    index = torch.cat(picks)
    images = train.read(index)
    images = torch.where(torch.cat(mirrored)[:, None, None, None], images.flip(-1), images)
    return images, train.labels[index]


def noise(inputs: InitialisationInputs) -> tuple[Tensor, Tensor]:
    """Standard normal noise in normalised space, (K * IPC, C, S, S), the start of SRe2L and G-VBSM."""
    classes = inputs.dataset.classes
    rng = generator(inputs.row.seed, "initialise")
    shape = (classes * inputs.row.ipc, inputs.dataset.channels, *[inputs.dataset.image_size] * 2)
    images = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    return images, torch.arange(classes).repeat_interleave(inputs.row.ipc)


def initial_images(inputs: InitialisationInputs) -> tuple[Tensor, Tensor]:
    """Initial images and their classes (N,), class after class: uint8 (N, C, S, S), or normalised floats."""
    return implementation(INITIALISE, inputs.row.initialise.method)(inputs)


def groups_of(classes: int, ipc: int, group: int, rounds: int) -> list[Tensor]:
    """Indices of the images matched together; the set lies class after class.

    A group of 0 is a whole round. Rounds are passes over all classes: 1 keeps the set class after class (EDC, G-VBSM),
    0 takes one image of every class a round (SRe2L, CDA), 10 is G-VBSM's order on Tiny-ImageNet.
    """
    index = torch.arange(classes * ipc).view(classes, ipc)
    parts = index.tensor_split(min(rounds or ipc, ipc), dim=1)
    return [piece for part in parts for piece in part.reshape(-1).split(group or part.numel())]
