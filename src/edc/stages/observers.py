"""Observers as later stages use them: built, loaded, frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from edc.nets import build
from edc.nets.frozen import frozen
from edc.nets.placing import placed
from edc.nets.weights import copy_weights
from edc.storage import RESULTS, read_tensors

if TYPE_CHECKING:
    from edc.stages.context import Job


def load_observer(job: Job, key: str) -> nn.Module:
    """One pretrained observer in eval mode on the job's device, its parameters frozen.

    Raises:
        EdcError: its files are missing or damaged, its classes differ from the job's, or its weights don't fit.
    """
    dataset, trained = job.dataset, job.upstream("pretrain", key)["params"]["pretrain"]
    path = RESULTS / "pretrain" / key / "weights.safetensors"
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
    return placed(frozen(model), torch.device(job.device), job.precision)
