"""Selection by features: real images that stand for their class, the classical alternatives to synthesis.

Features are what an observer's classifier sees. Those of each observer are scaled to unit length, as iCaRL does, and
several observers' are joined. Everything after the forward passes is computed in float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.errors import EdcError
from edc.nets.placing import answers
from edc.nets.weights import classifiers
from edc.nets.passes import images_at_once
from edc.data.rng import generator

if TYPE_CHECKING:
    from edc.condense.initialise import Start

STARTS = 4
"""Initialisations k-means tries; the best of them counts."""


@torch.no_grad()
def features(network: nn.Module, x: Tensor) -> Tensor:
    """Penultimate features: the input of the layer that gives the logits, averaged over positions if it is a map.

    Args:
        network: in eval mode.
        x: (B, C, H, W), normalised.

    Returns:
        float32 (B, D)

    Raises:
        EdcError: the network has no such layer, or does not use it.
    """
    seen: list[Tensor] = []
    modules = dict(network.named_modules())
    names = [name for name in classifiers(network) if name in modules]
    # Where a network has several heads (distilled transformers), the first is that of the class token.
    handle = modules[names[0]].register_forward_pre_hook(lambda _, given: seen.append(given[0])) if names else None
    try:
        answers(network, x)
    finally:
        if handle is not None:
            handle.remove()
    if not seen:
        raise EdcError(f"{type(network).__name__}: found no linear or convolutional classifier to take features from")
    found = seen[0].to(torch.float32)
    return found.flatten(2).mean(dim=2) if found.ndim == 4 else found.flatten(1)


def class_features(start: Start, scorers: Sequence[nn.Module], members: Tensor) -> np.ndarray:
    """Features of training images, float64 (n, D); each observer's have unit length.

    Args:
        start: the training images.
        scorers: the observers.
        members: int64 (n,) which images.
    """
    at_once = images_at_once(start.train.shape[-1])
    found = []
    for part in members.split(at_once):
        x = start.normaliser.encode(start.train.read(part).to(start.device))
        found.append(torch.cat([F.normalize(features(scorer, x)) for scorer in scorers], dim=1).cpu())
    return torch.cat(found).to(torch.float64).numpy()


def herd(found: np.ndarray, count: int) -> np.ndarray:
    """Greedy herding: each pick brings the mean of those picked as near to the mean of all as one image can.

    Welling (ICML 2009), as iCaRL (Rebuffi et al., CVPR 2017, algorithm 4) selects exemplars. No image is picked twice.

    Args:
        found: (n, D) features of a class.
        count: how many, at most n.

    Returns:
        int64 (count,) positions, in the order picked: a prefix is what a smaller count picks.
    """
    mean, half_squares = found.mean(axis=0), 0.5 * (found * found).sum(axis=1)
    wanted, free, picks = mean.copy(), np.ones(len(found), dtype=bool), np.empty(count, dtype=np.int64)
    for k in range(count):
        # |(k + 1) mean - sum of picks - x|^2 is smallest where this is largest; ``wanted`` is the first two terms.
        merit = found @ wanted - half_squares
        picks[k] = np.where(free, merit, -np.inf).argmax()
        free[picks[k]] = False
        wanted += mean - found[picks[k]]
    return picks


def centres(found: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The images nearest to the centres of k-means, each image once.

    Args:
        found: (n, D) features of a class.
        count: how many centres, at most n.
        seed: of the initial centres.

    Returns:
        int64 (count,) positions.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # Threads add up the centres in no fixed order.
    with threadpool_limits(1):
        fitted = KMeans(count, n_init=STARTS, random_state=seed).fit(found)
    middle = fitted.cluster_centers_
    distance = (middle * middle).sum(axis=1)[:, None] - 2 * middle @ found.T + (found * found).sum(axis=1)
    picks = np.empty(count, dtype=np.int64)
    for k in range(count):
        picks[k] = distance[k].argmin()
        distance[:, picks[k]] = np.inf
    return picks


def _select(start: Start, choose: Callable[[np.ndarray, int], np.ndarray]) -> tuple[Tensor, Tensor]:
    """Training images of every class by their features.

    Args:
        start: the training images and the observers.
        choose: positions (IPC,) from features (n, D) and the class.
    """
    train, row = start.train, start.row
    for c, name in enumerate(train.classes):
        if (found := len(train.by_class(c))) < row.ipc:
            raise EdcError(f"class {name!r} has {found} training images, ipc = {row.ipc} were asked for")
    scorers, picks = start.scorers(), []
    for c in range(len(train.classes)):
        members = train.by_class(c)
        picks.append(members[torch.from_numpy(choose(class_features(start, scorers, members), c))])
    index = torch.cat(picks)
    return train.read(index), train.labels[index]


def herding(start: Start) -> tuple[Tensor, Tensor]:
    """Herded training images, see :func:`herd`: uint8 (K * IPC, C, S, S) and classes (K * IPC,).

    Raises:
        EdcError: a class has fewer images than asked for, or an observer gives no features.
    """
    return _select(start, lambda found, c: herd(found, start.row.ipc))


def kmeans(start: Start) -> tuple[Tensor, Tensor]:
    """Training images nearest to cluster centres, see :func:`centres`: uint8 (K * IPC, C, S, S) and classes (K * IPC,).

    Raises:
        EdcError: a class has fewer images than asked for, or an observer gives no features.
    """

    def choose(found: np.ndarray, c: int) -> np.ndarray:
        seed = int(generator(start.row.seed, "kmeans", c).integers(2**31))
        return centres(found, start.row.ipc, seed)

    return _select(start, choose)
