"""The third term of the synthesis loss: flatness of the images' surroundings (EDC section 3.3 and Table 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from edc.config.choices import Regularise
    from edc.condense.matching import StatisticsMatcher
    from edc.condense.watching import Watcher


@dataclass(frozen=True)
class Visit:
    """One iteration of synthesis, as a regulariser sees it.

    Attributes:
        settings: the regulariser's values.
        pixels: (N, C, S, S) images of one group or of several, one after the other; with gradient.
        averaged: (N, C, S, S) their moving average.
        labels: (N,) classes.
        groups: G.
        crop: this iteration's augmentation.
        view: (N, C, S, S) the augmented images.
        logits: (N, K) of the view.
        statistics: (G, D) of the view.
        skip: hooks left out of this visit.
        watcher, matcher: the observer.
        match_weight: of the matching loss.
        loss: (G,) cross-entropy and weighted matching loss, with their graph.
    """

    settings: Regularise
    pixels: Tensor
    averaged: Tensor
    labels: Tensor
    groups: int
    crop: Callable[[Tensor], Tensor]
    view: Tensor
    logits: Tensor
    statistics: Tensor
    skip: set[int]
    watcher: Watcher
    matcher: StatisticsMatcher
    match_weight: float
    loss: Tensor


def nothing(visit: Visit) -> Tensor:
    """No third term."""
    return visit.logits.new_zeros(visit.groups)


def flatness(logits: Tensor, averaged: Tensor, tau: float, reduction: str) -> Tensor:
    """KL(p_averaged || p) of the logits softened by tau (EDC Eq. 7, in the direction its code computes).

    Args:
        logits: (..., B, K) of the images of a group.
        averaged: same shape, of the averaged images, no gradient.
        tau: temperature.
        reduction: "batch_mean" divides the sum by B, "element_mean" by B * K, as the published code does.

    Returns:
        (...,)
    """
    softened, target = F.log_softmax(logits / tau, -1), F.log_softmax(averaged / tau, -1)
    each = F.kl_div(softened, target, reduction="none", log_target=True)
    total = each.sum(dim=(-2, -1))
    return total / (each.shape[-2] * (each.shape[-1] if reduction == "element_mean" else 1))


def logit_flatness(visit: Visit) -> Tensor:
    """Softened answers on the images and on their moving average agree (EDC Eq. 7)."""
    quiet = visit.watcher.logits(visit.crop(visit.averaged))
    shape = (visit.groups, -1, quiet.shape[-1])
    return flatness(visit.logits.view(shape), quiet.view(shape), visit.settings.tau, visit.settings.reduction)


def statistic_flatness(visit: Visit) -> Tensor:
    """Statistics of the images and of their moving average agree, in the form of the matching loss (EDC Eq. 6)."""
    with torch.no_grad():
        quiet = visit.watcher(visit.crop(visit.averaged), visit.skip, visit.groups)[1]
    return visit.matcher.distance(visit.statistics, [(1.0, quiet)], visit.skip)


def sharpness(visit: Visit) -> Tensor:
    """Sharpness-aware minimisation (Foret et al. 2021): the loss a step up the gradient, less the loss here.

    The step has length ``radius`` for every image. In the difference the running statistics' value cancels; their
    gradient does not.
    """
    (gradient,) = torch.autograd.grad(visit.loss.sum(), visit.pixels, retain_graph=True)
    length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    moved = visit.crop(visit.pixels + visit.settings.radius * gradient / length)
    logits, statistics = visit.watcher(moved, visit.skip, visit.groups)
    there = F.cross_entropy(logits, visit.labels, reduction="none").view(visit.groups, -1).mean(1)
    if visit.match_weight:
        there = there + visit.match_weight * visit.matcher(statistics, visit.skip, update=False)
    return there - visit.loss


def average_images(averaged: Tensor, images: Tensor, beta: float) -> Tensor:
    """X_EMA <- beta X_EMA + (1 - beta) X, in place (EDC Eq. 6)."""
    return averaged.lerp_(images.detach(), 1 - beta)
