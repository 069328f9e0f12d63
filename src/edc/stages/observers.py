"""Observers as later stages use them: frozen, with the statistics they are matched against, or measured as teachers."""

from __future__ import annotations

import math

import torch
from torch import nn

from edc.condense.observer import Observer
from edc.config.rows import SynthesizeRow, twice_chance
from edc.errors import EdcError
from edc.nets.frozen import frozen
from edc.nets.placing import placed
from edc.nets.weights import copy_weights
from edc.stages.context import Context
from edc.storage import read_tensors, run_folder
from edc.training.evaluation import accuracy
from edc.training.trainer import build_for

SANITY_IMAGES = 2000
"""Images a teacher is measured on, at most."""


def pretrained(context: Context, key: str) -> nn.Module:
    """One network as it was pretrained, on the CPU; becomes an input of the run.

    Raises:
        EdcError: its files are missing or damaged, its classes differ from the run's, or its weights don't fit.
    """
    trained = context.manifest("pretrain", key)["params"]["pretrain"]
    model = build_for(context.dataset, trained["network"], weights=trained["weights"], load=False)
    # Not load_state_dict: some networks of the libraries refuse a dict without their version number.
    path = run_folder("pretrain", key) / "weights.safetensors"
    copy_weights(model, read_tensors(path), str(path))
    return model


def load_observer(context: Context, key: str) -> nn.Module:
    """One observer in eval mode on the run's device, its parameters frozen; see :func:`pretrained`."""
    return placed(frozen(pretrained(context, key)), context.device, context.precision)


def load_observers(context: Context, keys: list[str]) -> dict[str, nn.Module]:
    """Several of them, by key."""
    return {key: load_observer(context, key) for key in keys}


def matched_observers(context: Context, row: SynthesizeRow) -> list[Observer]:
    """The recipe's observers, in visiting order, with their statistics where convolutions or classes are matched."""
    dataset = context.dataset
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    patch, statistics = 1, None
    if row.statistics is not None:
        statistics = context.manifest("statistics", row.statistics)
        patch = statistics["params"]["statistics"]["patch"]
    observers = []
    for key in row.observers:
        targets = None
        if row.statistics is not None:
            stored = read_tensors(run_folder("statistics", row.statistics) / f"{key}.safetensors")
            targets = {name: tensor.to(context.device) for name, tensor in stored.items()}
        observers.append(Observer.make(key, load_observer(context, key), row, patch, shape, targets))
    return observers


def measure_teachers(context: Context, teachers: dict[str, nn.Module], labels: str) -> dict[str, float]:
    """Accuracy of every teacher, percent, on held-out training images (on training images where none are held out).

    They must reach the accuracy that the relabel row names, as far as so many images can show it: an observer is
    refused where its accuracy is below by more than 1.96 standard errors. A few held-out images refuse nobody.

    Raises:
        EdcError: one is implausibly bad; most often its classes are in another order.
    """
    images = context.images("val" if context.dataset.val_fraction else "train")
    spread = torch.linspace(0, len(images) - 1, min(SANITY_IMAGES, len(images))).long()
    feed = context.feed(images.select(spread))
    minimum = context.plan.relabel[labels].min_accuracy
    minimum = twice_chance(context.dataset.classes) if minimum is None else minimum
    error = math.sqrt(minimum * (1 - minimum) / len(spread))
    accuracies = {}
    for name, teacher in teachers.items():
        accuracies[name] = accuracy(teacher, feed)
        if accuracies[name] < 100 * (minimum - 1.96 * error):
            raise EdcError(
                f"observer {name} has {accuracies[name]:.1f} % accuracy on {len(spread)} held-out images, expected at "
                f"least {100 * minimum:.1f} % (relabel.{labels}.min_accuracy, of workflow/protocols); "
                "train it longer, or check the order of its classes"
            )
    return accuracies
