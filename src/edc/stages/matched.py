"""The observers of a recipe with the statistics their layers are matched against."""

from __future__ import annotations

from edc.condense.observer import Observer
from edc.config.rows import SynthesizeRow
from edc.stages.context import Context
from edc.stages.observers import load_observer
from edc.storage import read_tensors, run_folder


def matched_observers(context: Context, row: SynthesizeRow) -> list[Observer]:
    """The recipe's observers, in visiting order, with their statistics where convolutions or classes are matched.

    Args:
        context: of the run that uses them.
        row: the values of the synthesis.
    """
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
