"""A student: a network trained from scratch on a condensed set and evaluated on real images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edc.config.rows import Dataset, StudentRow
from edc.data.feed import Feed
from edc.data.rng import generator
from edc.training.evaluation import percentages, top1_correct
from edc.training.losses import calibrated, student_loss, temperatures
from edc.training.optimisers import load_optimiser, set_rate
from edc.training.schedules import multiplier
from edc.training.sources import Batch
from edc.training.trainer import Trainer, build_for
from edc.training.trainer_group import TrainerGroup, draws_random_numbers


class WeightAverage:
    """Exponential moving average of the parameters, from their present values on: EDC's EMA-based evaluation.

    Buffers are not averaged, so batch norm evaluates with the running statistics of the trained network, as in EDC.
    `decay` is the share of the average that survives a step.
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


class Student(Trainer):
    """One network of one seed with its optimiser, averaged weights and history.

    Args:
        row: network and protocol.
        dataset: shape of images and number of classes.
        model: what is trained instead of a fresh network of the row's name.
        sparsity: weight of the L1 norm of BN scales in the loss (network slimming, Liu et al. 2017).

    Attributes:
        history: per epoch: epoch, learning rate, training loss, accuracy (None where it was not evaluated).
        rate: this epoch's learning rate.
        temperatures: of the teachers and of the student, where they change: (2,), on the device, for recorded steps.
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
            model = build_for(dataset, row.student, seed)
        super().__init__(model, row.optimiser, device, precision, row.parts)
        self.scales = [m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)] if sparsity else []
        self.calibrates = row.loss.student_temperature == "calibrated"
        changing = self.calibrates or row.loss.temperatures is not None
        self.temperatures = torch.tensor(temperatures(row.loss), device=device) if changing else None
        self._answers: dict[int, Tensor] = {}  # the latest logits of a batch of so many images
        self.average = WeightAverage(self.model, row.ema) if row.ema is not None else None
        self._random = any(draws_random_numbers(module) for module in model.modules())
        self.history: list[list[Any]] = []
        self.rate = row.optimiser.lr

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rate of the protocol's schedule."""
        row = self.row
        self.rate = row.optimiser.lr * multiplier(row.schedule, epoch, row.epochs, [h[2] for h in self.history])
        set_rate(self.optimiser, self.rate)
        if self.temperatures is not None:
            of_teachers, own = temperatures(row.loss, epoch)
            self.temperatures[0] = of_teachers
            if not self.calibrates:
                self.temperatures[1] = own
        self._seed = int(generator(self.seed, "student", epoch).integers(2**31))
        self.start_epoch()

    def step(self, x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        if self._random:  # must not depend on the other seeds or on where a run was interrupted
            torch.manual_seed(self._seed + self._count)
        super().step(x, targets, labels)

    def keep(self, logits: list[Tensor]) -> None:
        if self.calibrates:  # a recorded step renews the tensor that was kept when it was recorded
            self._answers[sum(map(len, logits))] = torch.cat(logits)

    def loss(self, logits: Tensor, targets: Tensor | None, labels: Tensor) -> Tensor:
        """The protocol's loss."""
        return student_loss(logits, targets, labels, self.row.loss, self.temperatures)

    def calibrate(self, targets: Tensor | None) -> None:
        """After an epoch, fit the student's temperature to its last batch, whose soft labels are given (B, K)."""
        if self.calibrates and self.temperatures is not None and targets is not None:
            self.temperatures[1] = calibrated(self._answers[len(targets)], targets, self.temperatures[0])

    def adjust_gradients(self) -> None:
        """Add the gradient of the scales' L1 norm."""
        for scale in self.scales:
            assert scale.grad is not None
            scale.grad.add_(scale.detach().sign(), alpha=self.sparsity)

    def after_update(self) -> None:
        if self.average is not None:
            self.average.update()

    def tensors(self) -> list[Tensor]:
        return [*(self.average.shadow if self.average is not None else []), *super().tensors()]

    def test(self, feed: Feed) -> float:
        return percentages(correct([self], feed))[0]

    def averaged_weights(self) -> contextlib.AbstractContextManager[Any]:
        """The model has the averaged weights inside the block, where the protocol averages them."""
        return self.average.swapped() if self.average is not None else contextlib.nullcontext()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.shadow if self.average is not None else [],
            "history": self.history,
            "temperatures": self.temperatures,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        load_optimiser(self.optimiser, state["optimiser"])
        if self.average is not None:
            for shadow, saved in zip(self.average.shadow, state["average"], strict=True):
                shadow.copy_(saved)
        if self.temperatures is not None:
            self.temperatures.copy_(state["temperatures"])
        self.history = state["history"]


def correct(students: Sequence[Student], feed: Feed) -> Tensor:
    """Which images each student gets right, bool (students, images), with averaged weights where there are any."""
    with contextlib.ExitStack() as stack:
        for student in students:
            stack.enter_context(student.averaged_weights())
        return top1_correct([student.model for student in students], feed)


def train_epoch(
    students: Sequence[Student], epoch: int, batches: Iterable[Batch], group: TrainerGroup, finite: Callable[..., float]
) -> None:
    """Train a group's students on the batches of an epoch; their histories get its rate and loss.

    `finite` is called with every loss and the name of the epoch; it returns the loss, or raises.
    """
    for student in students:
        student.begin_epoch(epoch)
    last = None
    for x, targets, labels in batches:
        group.step(x, targets, labels)
        last = targets
    for student in students:
        student.calibrate(last)
        student.history.append([epoch, student.rate, finite(student.end_epoch(), f"epoch {epoch}"), None])
