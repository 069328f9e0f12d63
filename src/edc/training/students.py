"""A student: a fresh network in training on a condensed set."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edc.training.cohort import draws
from edc.nets import build
from edc.config.rows import Dataset, StudentRow
from edc.nets.passes import images_at_once
from edc.data.rng import generator
from edc.training.schedules import multiplier
from edc.training.trainee import Trainee
from edc.training.optimisers import WeightAverage, answers, load_optimiser, set_rate, student_loss

if TYPE_CHECKING:
    from edc.data.feed import Feed


class Student(Trainee):
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
        history: per epoch: epoch, learning rate, training loss, test accuracy (None where it was not looked at).
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
        self._draws = any(draws(module) for module in model.modules())
        self.history: list[list[Any]] = []
        self.rate = row.optimiser.lr

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rate, as the protocol's schedule says."""
        row = self.row
        self.rate = row.optimiser.lr * multiplier(row.schedule, epoch, row.epochs, [h[2] for h in self.history])
        set_rate(self.optimiser, self.rate)
        self._seed = int(generator(self.seed, "student", epoch).integers(2**31))
        self.start_epoch()

    def step(self, x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        """See :class:`Trainee`."""
        if self._draws:  # must not depend on the other seeds or on where a run was interrupted
            torch.manual_seed(self._seed + self._count)
        super().step(x, targets, labels)

    def loss(self, logits: Tensor, targets: Tensor | None, labels: Tensor) -> Tensor:
        """The protocol's."""
        return student_loss(logits, targets, labels, self.row.loss)

    def adjust(self) -> None:
        """Add the gradient of the scales' L1 norm."""
        for scale in self.scales:
            assert scale.grad is not None
            scale.grad.add_(scale.detach().sign(), alpha=self.sparsity)

    def updated(self) -> None:
        """Let the average follow."""
        if self.average is not None:
            self.average.update()

    def tensors(self) -> list[Tensor]:
        """See :class:`Trainee`."""
        return [*(self.average.shadow if self.average is not None else []), *super().tensors()]

    def test(self, feed: Feed) -> float:
        """Accuracy in percent; see `accuracies`."""
        return accuracies([self], feed)[0]

    def judged(self) -> contextlib.AbstractContextManager[Any]:
        """Within it the model has the averaged weights, where the protocol has them."""
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
            for shadow, kept in zip(self.average.shadow, state["average"], strict=True):
                shadow.copy_(kept)
        self.history = state["history"]


@torch.no_grad()
def accuracies(students: Sequence[Student], feed: Feed) -> list[float]:
    """Top-1 accuracy in percent of each student; the images are read, and decoded, once for all.

    Args:
        students: on the feed's device; their models are left in eval mode.
        feed: the images to split them on.
    """
    right = torch.zeros(len(students), dtype=torch.int64, device=feed.device)
    with contextlib.ExitStack() as stack:
        for student in students:
            stack.enter_context(student.judged())
            student.model.eval()
        for x, truth in feed.plain(images_at_once(feed.dataset.image_size)):
            right += torch.stack([(answers(student.model, x).argmax(1) == truth).sum() for student in students])
    return [100.0 * count / len(feed) for count in right.tolist()]
