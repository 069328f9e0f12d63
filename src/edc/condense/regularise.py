"""The third term of the synthesis loss: flatness around the images (EDC section 3.3 and Table 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edc.condense.layer_statistics import StatisticsCollector
from edc.condense.matching import StatisticsMatcher
from edc.config.choices import Regularise


@dataclass(frozen=True)
class RegulariserInputs:
    """The state of one iteration of synthesis that a regulariser may use.

    Images are (N, C, S, S), of G groups, one after the other: `pixels` with gradient, `averaged` their moving average,
    `view` the augmented ones (by `crop`), with logits (N, K) and statistics (G, D), of which the hooks `skip` are left
    out. `loss` (G,) is weighted cross-entropy and matching loss, with its graph.
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
    collector: StatisticsCollector
    matcher: StatisticsMatcher
    match_weight: float
    loss: Tensor
    cross_entropy: float = 1.0


def nothing(inputs: RegulariserInputs) -> Tensor:
    """No third term."""
    return inputs.logits.new_zeros(inputs.groups)


def flatness(logits: Tensor, averaged: Tensor, tau: float, reduction: str) -> Tensor:
    """KL(p_averaged || p) of logits (..., B, K) softened by tau: (...,) (EDC Eq. 7 in the direction of its code).

    "batch_mean" divides the sum by B, "element_mean" by B * K, as the published code does.
    """
    softened, target = F.log_softmax(logits / tau, -1), F.log_softmax(averaged / tau, -1)
    each = F.kl_div(softened, target, reduction="none", log_target=True)
    total = each.sum(dim=(-2, -1))
    return total / (each.shape[-2] * (each.shape[-1] if reduction == "element_mean" else 1))


def logit_flatness(inputs: RegulariserInputs) -> Tensor:
    """Divergence between softened predictions for the images and for their moving average (EDC Eq. 7): (G,)."""
    averaged = inputs.collector.logits(inputs.crop(inputs.averaged))
    shape = (inputs.groups, -1, averaged.shape[-1])
    return flatness(inputs.logits.view(shape), averaged.view(shape), inputs.settings.tau, inputs.settings.reduction)


def statistic_flatness(inputs: RegulariserInputs) -> Tensor:
    """Distance between statistics of the images and of their moving average (EDC Eq. 6), norms as in matching: (G,)."""
    with torch.no_grad():
        averaged = inputs.collector(inputs.crop(inputs.averaged), inputs.skip, inputs.groups)[1]
    return inputs.matcher.distance(inputs.statistics, [(1.0, averaged)], inputs.skip)


def sharpness(inputs: RegulariserInputs) -> Tensor:
    """Sharpness-aware minimisation (Foret et al. 2021): the loss a step up the gradient minus the loss: (G,).

    The step has length ``radius`` for every image. In the difference the running statistics' value cancels; their
    gradient does not.
    """
    (gradient,) = torch.autograd.grad(inputs.loss.sum(), inputs.pixels, retain_graph=True)
    length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    moved = inputs.crop(inputs.pixels + inputs.settings.radius * gradient / length)
    logits, statistics = inputs.collector(moved, inputs.skip, inputs.groups)
    raised = F.cross_entropy(logits, inputs.labels, reduction="none").view(inputs.groups, -1).mean(1)
    raised = inputs.cross_entropy * raised
    if inputs.match_weight:
        raised = raised + inputs.match_weight * inputs.matcher(statistics, inputs.skip, update=False)
    return raised - inputs.loss


def average_images(averaged: Tensor, images: Tensor, beta: float) -> Tensor:
    """X_EMA <- beta X_EMA + (1 - beta) X, in place (EDC Eq. 6)."""
    return averaged.lerp_(images.detach(), 1 - beta)
