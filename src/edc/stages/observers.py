"""Observers as later stages use them: built, loaded, frozen."""

from __future__ import annotations

from torch import nn

from edc.nets import build
from edc.nets.frozen import frozen
from edc.nets.placing import placed
from edc.nets.weights import copy_weights
from edc.stages.context import Context
from edc.storage import read_tensors, run_folder


def load_observer(context: Context, key: str) -> nn.Module:
    """One pretrained observer in eval mode on the run's device, its parameters frozen.

    Args:
        context: of the run that uses it; the observer becomes one of its inputs.
        key: the pretrain run.

    Raises:
        EdcError: its files are missing or damaged, its classes differ from the run's, or its weights don't fit.
    """
    dataset, trained = context.dataset, context.manifest("pretrain", key)["params"]["pretrain"]
    path = run_folder("pretrain", key) / "weights.safetensors"
    model = build(
        trained["network"],
        classes=dataset.classes,
        image_size=dataset.image_size,
        channels=dataset.channels,
        seed=0,
        weights=trained["weights"],
        load=False,
    )
    # Not load_state_dict: some networks of the libraries refuse a dict without their version number.
    copy_weights(model, read_tensors(path), str(path))
    return placed(frozen(model), context.device, context.precision)


def load_observers(context: Context, keys: list[str]) -> dict[str, nn.Module]:
    """Several of them, by key."""
    return {key: load_observer(context, key) for key in keys}
