"""Observers as later stages use them: built, loaded, frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from edc.errors import EdcError
from edc.nets import build
from edc.storage import RESULTS, read_tensors

if TYPE_CHECKING:
    from edc.job import Job


def load_observer(job: Job, key: str) -> nn.Module:
    """One pretrained observer in eval mode on the job's device, its parameters frozen.

    Raises:
        EdcError: its files are missing or damaged, its classes differ from the job's, or its weights don't fit.
    """
    manifest = job.upstream("pretrain", key)
    dataset = job.dataset
    network = manifest["params"]["pretrain"]["network"]
    path = RESULTS / "pretrain" / key / "weights.safetensors"
    model = build(network, classes=dataset.classes, image_size=dataset.image_size, channels=dataset.channels, seed=0)
    weights = read_tensors(path)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise EdcError(f"{path}: does not fit {network} at {dataset.image_size} px: {reason}") from None
    return model.eval().requires_grad_(False).to(torch.device(job.device))
