"""Teachers are measured on held-out images before they label anything."""

from __future__ import annotations

import torch
from torch import nn

from edc.config.rows import twice_chance
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.errors import EdcError
from edc.stages.context import Context
from edc.training.evaluation import accuracy

SANITY_IMAGES = 2000
"""Images a teacher is measured on, at most."""


def measure_teachers(
    context: Context, teachers: dict[str, nn.Module], normaliser: Normaliser, labels: str
) -> dict[str, float]:
    """Accuracy of every teacher, percent, on held-out training images (on training images where none are held out).

    They must reach the accuracy that the relabel row names.

    Raises:
        EdcError: one is implausibly bad; most often its classes are in another order.
    """
    images = context.images("val" if context.dataset.val_fraction else "train")
    spread = torch.linspace(0, len(images) - 1, min(SANITY_IMAGES, len(images))).long()
    feed = Feed(images.select(spread), context.dataset, normaliser, context.device)
    minimum = context.plan.relabel[labels].min_accuracy
    minimum = twice_chance(context.dataset.classes) if minimum is None else minimum
    accuracies = {}
    for name, teacher in teachers.items():
        accuracies[name] = accuracy(teacher, feed)
        if accuracies[name] < 100 * minimum:
            raise EdcError(
                f"observer {name} has {accuracies[name]:.1f} % accuracy on held-out images, expected at least "
                f"{100 * minimum:.1f} % (relabel.{labels}.min_accuracy); "
                "train it longer, or check the order of its classes"
            )
    return accuracies
