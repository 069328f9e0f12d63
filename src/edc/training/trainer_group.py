"""Networks trained side by side on the same batches; on a GPU a step of all is one CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edc.nets.processes import processes
from edc.training import cuda_graphs
from edc.training.trainer import Trainer

RANDOM_LAYERS = {"_DropoutNd", "StochasticDepth", "DropPath", "MultiheadAttention"}
"""Names of classes whose layers draw random numbers in training."""


class TrainerGroup:
    """Trainers that get the same batches: the students of several seeds, or an observer alone.

    On a GPU a step of all of them is recorded once for every shape of batch and replayed from then on, each on a stream
    of its own. Weights may still be loaded before the first step.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers = list(trainers)
        modules = [module for trainer in self.trainers for module in trainer.model.modules()]
        on_gpu = all(parameter.is_cuda for trainer in self.trainers for parameter in trainer.model.parameters())
        alone = processes() == 1
        self._recording = (
            on_gpu and alone and cuda_graphs.enabled() and not any(draws_random_numbers(m) for m in modules)
        )
        self._steps: dict[tuple[int, bool], RecordedStep] = {}

    def step(self, x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        """One optimiser step of every trainer, see :meth:`edc.training.trainer.Trainer.step`."""
        if not self._recording:
            for trainer in self.trainers:
                trainer.step(x, targets, labels)
            return
        shape = (len(x), targets is not None)
        if shape not in self._steps:
            self._steps[shape] = RecordedStep(self.trainers, x, targets, labels)
        self._steps[shape].replay(x, targets, labels)
        for trainer in self.trainers:
            trainer.count(len(x))


def draws_random_numbers(module: nn.Module) -> bool:
    """Whether a layer draws random numbers in training: they are seeded before each step, which a graph cannot do."""
    return not RANDOM_LAYERS.isdisjoint(base.__name__ for base in type(module).__mro__)


class RecordedStep:
    """A recorded step of several trainers on batches of one shape; recording leaves their tensors as they were."""

    def __init__(self, trainers: Sequence[Trainer], x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        self._x, self._labels = x.clone(memory_format=torch.channels_last), labels.clone()
        self._targets = None if targets is None else targets.clone()
        before = [[tensor.detach().clone() for tensor in trainer.tensors()] for trainer in trainers]
        without_state = [not trainer.optimiser.state for trainer in trainers]

        def drop_gradients() -> None:
            for trainer in trainers:  # they must come from the graph's own memory
                trainer.optimiser.zero_grad(set_to_none=True)

        steps = [functools.partial(t.update, self._x, self._targets, self._labels) for t in trainers]
        self._graph = cuda_graphs.record(steps, drop_gradients)
        with torch.no_grad():
            for trainer, values, new in zip(trainers, before, without_state, strict=True):
                if new:  # an optimiser's state begins with zeros
                    for tensor in trainer.tensors()[len(values) :]:
                        tensor.zero_()
                for tensor, value in zip(trainer.tensors(), values, strict=False):
                    tensor.copy_(value)

    def replay(self, x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        self._x.copy_(x)
        self._labels.copy_(labels)
        if self._targets is not None:
            assert targets is not None
            self._targets.copy_(targets)
        self._graph.replay()
