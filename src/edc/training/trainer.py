"""A network in training: its weights, its optimiser, the loss of the epoch so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.nets.placing import answers, placed
from edc.training.optimisers import make_optimiser

if TYPE_CHECKING:
    from edc.config.choices import Optimiser


class Trainee:
    """What observers and students have in common; an observer is no more than this.

    Args:
        model: to be trained.
        settings: of its optimiser.
        device: where it trains.
        precision: of its passes.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Optimiser,
        device: torch.device,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.model = placed(model, device, precision)
        self.optimiser = make_optimiser(self.model, settings)
        self._total, self._count = torch.zeros((), device=device), 0

    def start_epoch(self) -> None:
        """Forget the losses of the epoch before."""
        self._total.zero_()
        self._count = 0
        self.model.train()

    def step(self, x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        """One optimiser step on images (B, C, S, S), soft targets (B, K) or None, and classes (B,)."""
        self.update(x, targets, labels)
        self.counted(len(x))

    def update(self, x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        """The operations of a step on the device, and nothing else: what a CUDA graph holds."""
        loss = self.loss(answers(self.model, x), targets, labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.adjust()
        self.optimiser.step()
        self.updated()
        self._total += loss.detach() * len(x)

    def loss(self, logits: Tensor, targets: Tensor | None, labels: Tensor) -> Tensor:
        """What is minimised, a batch's mean."""
        return F.cross_entropy(logits, labels)

    def adjust(self) -> None:
        """Change the gradients before the optimiser takes them."""

    def updated(self) -> None:
        """The weights are new."""

    def counted(self, images: int) -> None:
        """So many images more have been seen."""
        self._count += images

    def tensors(self) -> list[Tensor]:
        """Everything an update changes in place, last of all what the optimiser keeps as far as it exists."""
        kept = [value for state in self.optimiser.state.values() for value in state.values()]
        return [*self.model.parameters(), *self.model.buffers(), self._total, *filter(torch.is_tensor, kept)]

    def end_epoch(self) -> float:
        """Mean training loss of the epoch."""
        return float(self._total) / self._count
