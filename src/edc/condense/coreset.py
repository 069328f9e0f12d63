"""Coresets: real images selected by their features, the classical alternatives to synthesis.

Features are the inputs of an observer's classifier. Those of each observer are scaled to unit length, as in iCaRL, and
concatenated. Everything after the forward passes is computed in float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.condense.initialise import InitialisationInputs
from edc.data.rng import generator
from edc.errors import EdcError
from edc.nets.features import PENULTIMATE, layer_input
from edc.nets.passes import images_at_once

RESTARTS = 4
"""Random initialisations of k-means, of which the best is used."""


@torch.no_grad()
def features(network: nn.Module, x: Tensor) -> Tensor:
    """Penultimate features (B, D), float32, of normalised images: the input of the layer that gives the logits.

    A map is averaged over its positions.

    Raises:
        EdcError: the network has no such layer, or does not use it.
    """
    x = layer_input(network, PENULTIMATE, x)
    return x.flatten(2).mean(dim=2) if x.ndim == 4 else x.flatten(1)


def class_features(inputs: InitialisationInputs, scorers: Sequence[nn.Module], members: Tensor) -> np.ndarray:
    """Features of the training images `members`, float64 (n, D); those of each observer have unit length."""
    at_once = images_at_once(inputs.train.shape[-1])
    parts = []
    for part in members.split(at_once):
        x = inputs.normaliser.encode(inputs.train.read(part).to(inputs.device))
        parts.append(torch.cat([F.normalize(features(scorer, x)) for scorer in scorers], dim=1).cpu())
    return torch.cat(parts).to(torch.float64).numpy()


def herd(points: np.ndarray, count: int) -> np.ndarray:
    """Greedy herding: each pick brings the mean of the picks as near to the mean of all as one image can.

    Welling (ICML 2009), as iCaRL (Rebuffi et al., CVPR 2017, algorithm 4) selects exemplars. No image is picked twice.
    From features (n, D) of a class to positions int64 (count,) in the order picked: a prefix is what a smaller count
    picks.
    """
    mean, half_squares = points.mean(axis=0), 0.5 * (points * points).sum(axis=1)
    target, free, picks = mean.copy(), np.ones(len(points), dtype=bool), np.empty(count, dtype=np.int64)
    for k in range(count):
        # |(k + 1) mean - sum of picks - x|^2 is smallest where this is largest; ``target`` is the first two terms.
        score = points @ target - half_squares
        picks[k] = np.where(free, score, -np.inf).argmax()
        free[picks[k]] = False
        target += mean - points[picks[k]]
    return picks


def nearest_to_centres(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions int64 (count,) of the images nearest to the centres of k-means of features (n, D), each image once."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # With several threads the sums for the centres have no fixed order.
    with threadpool_limits(1):
        fitted = KMeans(count, n_init=RESTARTS, random_state=seed).fit(points)
    centres = fitted.cluster_centers_
    distance = (centres * centres).sum(axis=1)[:, None] - 2 * centres @ points.T + (points * points).sum(axis=1)
    picks = np.empty(count, dtype=np.int64)
    for k in range(count):
        picks[k] = distance[k].argmin()
        distance[:, picks[k]] = np.inf
    return picks


def _select(inputs: InitialisationInputs, choose: Callable[[np.ndarray, int], np.ndarray]) -> tuple[Tensor, Tensor]:
    """Training images of every class; `choose` makes positions (IPC,) from features (n, D) and the class."""
    train, row = inputs.train, inputs.row
    for c, name in enumerate(train.classes):
        if (images := len(train.by_class(c))) < row.ipc:
            raise EdcError(f"class {name!r} has {images} training images, expected at least ipc = {row.ipc}")
    scorers, picks = inputs.scorers(), []
    for c in range(len(train.classes)):
        members = train.by_class(c)
        picks.append(members[torch.from_numpy(choose(class_features(inputs, scorers, members), c))])
    index = torch.cat(picks)
    return train.read(index), train.labels[index]


def herding(inputs: InitialisationInputs) -> tuple[Tensor, Tensor]:
    """See :func:`herd`: uint8 (K * IPC, C, S, S) and classes (K * IPC,).

    Raises:
        EdcError: a class has fewer images than asked for, or an observer gives no features.
    """
    return _select(inputs, lambda points, c: herd(points, inputs.row.ipc))


def kmeans(inputs: InitialisationInputs) -> tuple[Tensor, Tensor]:
    """See :func:`nearest_to_centres`: uint8 (K * IPC, C, S, S) and classes (K * IPC,).

    Raises:
        EdcError: a class has fewer images than asked for, or an observer gives no features.
    """

    def choose(points: np.ndarray, c: int) -> np.ndarray:
        seed = int(generator(inputs.row.seed, "kmeans", c).integers(2**31))
        return nearest_to_centres(points, inputs.row.ipc, seed)

    return _select(inputs, choose)
