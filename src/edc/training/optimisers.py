"""Optimisers of observers and students, and their learning rates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edc.config.choices import Optimiser
from edc.nets.groups import weight_decay_groups


def make_optimiser(model: nn.Module, settings: Optimiser) -> torch.optim.Optimizer:
    """AdamW or SGD; weight decay on convolution and linear weights only, or on all parameters."""
    groups: Any = model.parameters() if settings.decay_all else weight_decay_groups(model, settings.weight_decay)
    # One pass over the parameters instead of one per operation: a quarter of the time.
    common: Any = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": True}
    device = next(model.parameters()).device
    if device.type == "cuda":  # a recorded step reads the rate from the device
        common["lr"] = torch.tensor(settings.lr, device=device)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, betas=settings.betas, capturable=device.type == "cuda", **common)
    return torch.optim.SGD(groups, momentum=settings.momentum, **common)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state; learning rates that are tensors keep their memory, which recorded steps read."""
    rates = [group["lr"] for group in optimiser.param_groups]
    optimiser.load_state_dict(state)
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        if isinstance(rate, Tensor):
            group["lr"] = rate.fill_(float(group["lr"]))
