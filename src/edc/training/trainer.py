"""A network in training: its weights, its optimiser, the loss of the epoch so far."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.config.choices import Optimiser
from edc.config.rows import Dataset
from edc.data.replay import part_sizes
from edc.nets import build, distributed
from edc.nets.placing import compute_logits, placed
from edc.nets.processes import processes
from edc.training.optimisers import make_optimiser


def build_for(dataset: Dataset, network: str, seed: int = 0, **weights: Any) -> nn.Module:
    """A network for a dataset's images and classes, see :func:`edc.nets.build`."""
    size, channels = dataset.image_size, dataset.channels
    return build(network, classes=dataset.classes, image_size=size, channels=channels, seed=seed, **weights)


class Trainer:
    """The optimiser steps of one network; enough for an observer, and the base class of students.

    A batch passes the network in ``parts``, batch norm over each; their gradients add up to that of the batch's mean.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Optimiser,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        parts: int = 1,
    ) -> None:
        self.parts = parts
        self.model = placed(model, device, precision)
        self.optimiser = make_optimiser(self.model, settings)
        self._forward = distributed.replicated(self.model)
        self._total, self._count = torch.zeros((), device=device), 0

    def start_epoch(self) -> None:
        self._total.zero_()
        self._count = 0
        self.model.train()

    def step(self, x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        """One optimiser step on images (B, C, S, S), soft targets (B, K) or None, and classes (B,).

        Where several processes share the run, each takes its part; of the images it may have been given no more.
        """
        self.update(x, targets, labels)
        self.count(len(labels))

    def update(self, x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        """The operations of a step on the device, and nothing else: what a CUDA graph records."""
        self.optimiser.zero_grad(set_to_none=True)
        batch = len(labels)
        sizes = part_sizes(batch, self.parts)
        soft = [None] * len(sizes) if targets is None else targets.split(sizes)
        answers = []
        for images, of_images, classes in zip(
            x.split(sizes if len(x) == batch else len(x)), soft, labels.split(sizes), strict=True
        ):
            part, own = len(classes), distributed.own_part(classes)
            images = distributed.own_part(images) if len(images) == part else images
            of_images = None if of_images is None else distributed.own_part(of_images)
            logits = compute_logits(self._forward, images)
            loss = self.loss(logits, of_images, own) * distributed.weight_of_part(part, len(own))
            (loss * (part / batch)).backward()
            self._total += loss.detach() * part
            answers.append(logits.detach())
        self.keep(answers)
        self.adjust_gradients()
        self.optimiser.step()
        self.after_update()

    def loss(self, logits: Tensor, targets: Tensor | None, labels: Tensor) -> Tensor:
        """What is minimised, a batch's mean."""
        return F.cross_entropy(logits, labels)

    def keep(self, logits: list[Tensor]) -> None:
        """Keep something of the logits of a batch, those of every part, from before the optimiser's step."""

    def adjust_gradients(self) -> None:
        """Change the gradients between the backward pass and the optimiser's step."""

    def after_update(self) -> None:
        """Act on the weights after the optimiser's step."""

    def count(self, images: int) -> None:
        self._count += images

    def tensors(self) -> list[Tensor]:
        """Everything an update changes in place, the optimiser's state, as far as it exists, at the end."""
        state = [value for entries in self.optimiser.state.values() for value in entries.values()]
        return [*self.model.parameters(), *self.model.buffers(), self._total, *filter(torch.is_tensor, state)]

    def end_epoch(self) -> float:
        """Mean training loss of the epoch."""
        return float(distributed.summed(self._total)) / processes() / self._count
