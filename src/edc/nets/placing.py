"""Where a network's weights lie, in which order, and how exactly it computes: what its layers are fastest with."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def placed(model: nn.Module, device: torch.device, precision: torch.dtype = torch.float32) -> nn.Module:
    """A network on its device, in the memory format it is fastest in; its maps take on that of its weights.

    Convolutions of a GPU work with channels last and would turn everything round otherwise. So do, on a CPU, batch norm
    and the thin convolutions beside it (docs/speed.md); ConvNets are no faster with it there.

    Args:
        model: changed in place.
        device: where it is to work.
        precision: of its passes, see :func:`answers`; the weights stay as they are.
    """
    model = model.to(device)
    if device.type == "cuda" or any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        model = model.to(memory_format=torch.channels_last)
    model.precision = precision  # type: ignore[assignment]
    return model


def halved(model: nn.Module) -> bool:
    """Whether a network's passes take less than float32."""
    return getattr(model, "precision", torch.float32) != torch.float32


def answers(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (B, K) in float32, by a pass in the precision the network was placed with."""
    found: Tensor
    if not halved(model):
        found = model(x)
        return found
    with torch.autocast(x.device.type, model.precision):  # type: ignore[arg-type]
        found = model(x)
    return found.to(torch.float32)
