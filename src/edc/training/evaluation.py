"""Accuracy of a network, the epochs after which students are evaluated, and the scores of several seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edc.data.feed import Feed
from edc.nets.passes import images_at_once
from edc.nets.placing import compute_logits


def accuracy(model: nn.Module, feed: Feed) -> float:
    """Top-1 accuracy in percent; leaves the model, on the feed's device, in eval mode."""
    return percentages(top1_correct([model], feed))[0]


@torch.no_grad()
def top1_correct(models: Sequence[nn.Module], feed: Feed) -> Tensor:
    """Which images each model gets right, bool (models, images) on the CPU; the images are read once for all.

    The models are left in eval mode.
    """
    for model in models:
        model.eval()
    batches = feed.plain(images_at_once(feed.dataset.image_size))
    parts = [torch.stack([compute_logits(model, x).argmax(1) == labels for model in models]) for x, labels in batches]
    return torch.cat(parts, dim=1).cpu()


def percentages(correct: Tensor) -> list[float]:
    """Accuracy in percent of each row of :func:`top1_correct`."""
    return [100.0 * count / correct.shape[1] for count in correct.sum(dim=1).tolist()]


def validation_epochs(epochs: int, count: int) -> set[int]:
    """Evenly spread epochs after which a student is evaluated, the last one always among them."""
    count = min(count, epochs)
    return {math.ceil(epochs * (i + 1) / count) - 1 for i in range(count)}


def accuracy_scores(histories: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Final and best accuracy in percent per seed, with mean and standard deviation (n - 1) over the seeds.

    A history has the accuracies of a seed's evaluated epochs, in order.
    """
    scores: dict[str, Any] = {"final": [h[-1] for h in histories], "best": [max(h) for h in histories]}
    for name in ("final", "best"):
        scores[f"{name}_mean"] = statistics.fmean(scores[name])
        scores[f"{name}_std"] = spread(scores[name])
    return scores


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation (n - 1); None of a single value."""
    return statistics.stdev(map(float, values)) if len(values) > 1 else None
