"""Which tensors the weight decay acts on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def weight_decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for `torch.optim`: parameters that decay and those that don't; frozen ones are in neither.

    Decayed are the tensors whose name contains "weight" and that have more than one dimension, not the biases nor the
    scales and shifts of normalisation layers, as SRe2L (arXiv 2306.13092) and its successors train their students.
    """
    decay: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (decay if "weight" in name and parameter.ndim > 1 else rest).append(parameter)
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
