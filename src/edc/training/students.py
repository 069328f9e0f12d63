"""A student: a network trained from scratch on a condensed set and evaluated on real images."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edc.config.rows import Dataset, StudentRow
from edc.data.feed import Feed
from edc.data.rng import generator
from edc.nets import build
from edc.nets.passes import images_at_once
from edc.nets.placing import compute_logits
from edc.training.averaging import WeightAverage
from edc.training.losses import student_loss
from edc.training.optimisers import load_optimiser, set_rate
from edc.training.schedules import multiplier
from edc.training.trainer import Trainer
from edc.training.trainer_group import draws_random_numbers


class Student(Trainer):
    """One network of one seed with its optimiser, averaged weights and history.

    Args:
        seed: of the initial weights.
        row: network and protocol.
        dataset: shape of images and number of classes.
        device: where it trains.
        precision: of its passes.
        model: what is trained instead of a fresh network of the row's name.
        sparsity: weight of the L1 norm of BN scales in the loss (network slimming, Liu et al. 2017).

    Attributes:
        history: per epoch: epoch, learning rate, training loss, accuracy (None where it was not evaluated).
        rate: this epoch's learning rate.
    """

    def __init__(
        self,
        seed: int,
        row: StudentRow,
        dataset: Dataset,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        model: nn.Module | None = None,
        sparsity: float = 0.0,
    ) -> None:
        self.seed, self.row, self.sparsity = seed, row, sparsity
        if model is None:
            size, channels = dataset.image_size, dataset.channels
            model = build(row.student, classes=dataset.classes, image_size=size, channels=channels, seed=seed)
        super().__init__(model, row.optimiser, device, precision)
        self.scales = [m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)] if sparsity else []
        self.average = WeightAverage(self.model, row.ema) if row.ema is not None else None
        self._random = any(draws_random_numbers(module) for module in model.modules())
        self.history: list[list[Any]] = []
        self.rate = row.optimiser.lr

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rate of the protocol's schedule."""
        row = self.row
        self.rate = row.optimiser.lr * multiplier(row.schedule, epoch, row.epochs, [h[2] for h in self.history])
        set_rate(self.optimiser, self.rate)
        self._seed = int(generator(self.seed, "student", epoch).integers(2**31))
        self.start_epoch()

    def step(self, x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        """See :class:`Trainer`."""
        if self._random:  # must not depend on the other seeds or on where a run was interrupted
            torch.manual_seed(self._seed + self._count)
        super().step(x, targets, labels)

    def loss(self, logits: Tensor, targets: Tensor | None, labels: Tensor) -> Tensor:
        """The protocol's loss."""
        return student_loss(logits, targets, labels, self.row.loss)

    def adjust_gradients(self) -> None:
        """Add the gradient of the scales' L1 norm."""
        for scale in self.scales:
            assert scale.grad is not None
            scale.grad.add_(scale.detach().sign(), alpha=self.sparsity)

    def after_update(self) -> None:
        """Update the averaged weights."""
        if self.average is not None:
            self.average.update()

    def tensors(self) -> list[Tensor]:
        """See :class:`Trainer`."""
        return [*(self.average.shadow if self.average is not None else []), *super().tensors()]

    def test(self, feed: Feed) -> float:
        """Accuracy in percent; see `accuracies`."""
        return accuracies([self], feed)[0]

    def averaged_weights(self) -> contextlib.AbstractContextManager[Any]:
        """The model has the averaged weights inside the block, where the protocol averages them."""
        return self.average.swapped() if self.average is not None else contextlib.nullcontext()

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.shadow if self.average is not None else [],
            "history": self.history,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.model.load_state_dict(state["model"])
        load_optimiser(self.optimiser, state["optimiser"])
        if self.average is not None:
            for shadow, saved in zip(self.average.shadow, state["average"], strict=True):
                shadow.copy_(saved)
        self.history = state["history"]


@torch.no_grad()
def accuracies(students: Sequence[Student], feed: Feed) -> list[float]:
    """Top-1 accuracy in percent of each student; the images are read, and decoded, once for all.

    Args:
        students: on the feed's device; their models are left in eval mode.
        feed: the images they are evaluated on.
    """
    correct = torch.zeros(len(students), dtype=torch.int64, device=feed.device)
    with contextlib.ExitStack() as stack:
        for student in students:
            stack.enter_context(student.averaged_weights())
            student.model.eval()
        for x, labels in feed.plain(images_at_once(feed.dataset.image_size)):
            correct += torch.stack(
                [(compute_logits(student.model, x).argmax(1) == labels).sum() for student in students]
            )
    return [100.0 * count / len(feed) for count in correct.tolist()]
