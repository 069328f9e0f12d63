"""Where a network's weights lie, in which memory format, and in which precision its passes are computed."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn


def placed(model: nn.Module, device: torch.device, precision: torch.dtype = torch.float32) -> nn.Module:
    """Move a network to its device, into the memory format in which it is fastest; changed in place.

    Convolutions of a GPU work with channels last and would convert every map otherwise. On a CPU channels last is
    faster for batch norm and for the thin convolutions beside it (docs/speed.md), but not for ConvNets. The precision
    is that of :func:`compute_logits`; the weights keep their type.
    """
    model = model.to(device)
    if device.type == "cuda" or any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        model = model.to(memory_format=torch.channels_last)
    model.precision = precision  # type: ignore[assignment]
    return model


def uses_reduced_precision(model: nn.Module) -> bool:
    """Whether a network's passes are computed in less than float32."""
    return getattr(model, "precision", torch.float32) != torch.float32


def compute_logits(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (B, K) in float32, from a pass in the precision the network was placed with."""
    reduced = uses_reduced_precision(model)
    with torch.autocast(x.device.type, model.precision) if reduced else nullcontext():  # type: ignore[arg-type]
        logits: Tensor = model(x)
    return logits.to(torch.float32) if reduced else logits
