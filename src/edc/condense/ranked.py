"""Coresets by score: real images that observers find easy, hard, or of every difficulty.

Scores need no training history, unlike forgetting or AUM. EL2N averages networks early in training (Paul et al.,
NeurIPS 2021); here the observers score as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edc.condense.initialise import InitialisationInputs
from edc.data.rng import generator
from edc.errors import EdcError
from edc.nets.passes import images_at_once
from edc.nets.placing import compute_logits


def difficulty(probabilities: np.ndarray, label: int, score: str) -> np.ndarray:
    """A score of every image of one class.

    Args:
        probabilities: (n, K) mean over the observers.
        label: the class.
        score: "loss", -log p_y; "el2n", ||p - onehot(y)||; "entropy", -sum p log p; "margin", p_y - the largest other.

    Returns:
        (n,)
    """
    true = probabilities[:, label]
    if score == "loss":
        return -np.log(true)
    if score == "el2n":
        return np.linalg.norm(probabilities - np.eye(probabilities.shape[1])[label], axis=1)
    if score == "entropy":
        return -(probabilities * np.log(np.maximum(probabilities, np.finfo(float).tiny))).sum(axis=1)
    return true - np.delete(probabilities, label, axis=1).max(axis=1)


def choose(scores: np.ndarray, count: int, rank: str, rng: np.random.Generator) -> np.ndarray:
    """Positions of the images selected, int64 (count,).

    Args:
        scores: (n,) of one class; equal ones keep their order.
        count: how many, at most n.
        rank: "lowest" or "highest" first; "median", from the middle outwards, positions m, m + 1, m - 1, m + 2, ... of
            the ascending order with m = ceil(n / 2) counted from 0 (DELT's medium); "stratified", one at random from
            each of ``count`` equal parts of that order (CCS, Zheng et al., ICLR 2023, without its pruning).
        rng: of the stratified draw.
    """
    order, n = scores.argsort(kind="stable"), len(scores)
    if rank == "lowest":
        return order[:count]
    if rank == "highest":
        return order[::-1][:count]
    if rank == "stratified":
        return np.array([rng.choice(part) for part in np.array_split(order, count)])
    middle = (n + 1) // 2
    outwards = [middle, *(middle + sign * step for step in range(1, n + 1) for sign in (1, -1))]
    return order[[position for position in outwards if 0 <= position < n][:count]]


@torch.no_grad()
def class_probabilities(inputs: InitialisationInputs, scorers: Sequence[nn.Module], members: Tensor) -> np.ndarray:
    """Mean probabilities of training images under the observers, float64 (n, K)."""
    parts = []
    for part in members.split(images_at_once(inputs.train.shape[-1])):
        x = inputs.normaliser.encode(inputs.train.read(part).to(inputs.device))
        logits = torch.stack([compute_logits(scorer, x) for scorer in scorers])
        parts.append(logits.double().softmax(dim=-1).mean(dim=0).cpu())
    return torch.cat(parts).numpy()


def ranked(inputs: InitialisationInputs) -> tuple[Tensor, Tensor]:
    """Training images by :func:`difficulty` and :func:`choose`: uint8 (K * IPC, C, S, S) and classes (K * IPC,).

    Raises:
        EdcError: a class has fewer images than asked for.
    """
    train, row, picks = inputs.train, inputs.row, []
    scorers = inputs.scorers()
    for c, name in enumerate(train.classes):
        members = train.by_class(c)
        if len(members) < row.ipc:
            raise EdcError(f"class {name!r} has {len(members)} training images, expected at least ipc = {row.ipc}")
        scores = difficulty(class_probabilities(inputs, scorers, members), c, row.initialise.score)
        rng = generator(row.seed, "ranked", c)
        picks.append(members[torch.from_numpy(choose(scores, row.ipc, row.initialise.rank, rng).copy())])
    index = torch.cat(picks)
    return train.read(index), train.labels[index]
