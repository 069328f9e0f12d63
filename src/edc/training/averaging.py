"""Exponential moving average of a network's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


class WeightAverage:
    """Exponential moving average of the parameters: EDC's EMA-based evaluation.

    Buffers are not averaged, so batch norm evaluates with the running statistics of the trained network, as in EDC.

    Args:
        model: whose parameters are averaged; the average starts at their present values.
        decay: share of the average that survives a step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = list(model.parameters())
        self.shadow = [p.detach().clone() for p in self.weights]

    @torch.no_grad()
    def update(self) -> None:
        """shadow <- decay * shadow + (1 - decay) * weights."""
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self.weights], 1 - self.decay)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """The model has the averaged weights inside the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for shadow, weight in zip(self.shadow, self.weights, strict=True):
            shadow.data, weight.data = weight.data, shadow.data
