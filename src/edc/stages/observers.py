"""Observers as later stages use them: built, loaded, frozen, with the statistics their layers are matched against."""

from __future__ import annotations

from torch import nn

from edc.condense.observer import Observer
from edc.config.rows import SynthesizeRow
from edc.nets.frozen import frozen
from edc.nets.placing import placed
from edc.nets.weights import copy_weights
from edc.stages.context import Context
from edc.storage import read_tensors, run_folder
from edc.training.trainer import build_for


def load_observer(context: Context, key: str) -> nn.Module:
    """One pretrained observer in eval mode on the run's device, its parameters frozen; becomes an input of the run.

    Raises:
        EdcError: its files are missing or damaged, its classes differ from the run's, or its weights don't fit.
    """
    trained = context.manifest("pretrain", key)["params"]["pretrain"]
    path = run_folder("pretrain", key) / "weights.safetensors"
    model = build_for(context.dataset, trained["network"], weights=trained["weights"], load=False)
    # Not load_state_dict: some networks of the libraries refuse a dict without their version number.
    copy_weights(model, read_tensors(path), str(path))
    return placed(frozen(model), context.device, context.precision)


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
