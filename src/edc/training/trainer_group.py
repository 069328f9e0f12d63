"""Networks in training side by side on the same batches, on a GPU recorded as one CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edc.training.cuda_graphs import record, wanted
from edc.training.trainee import Trainee


class Cohort:
    """Trainees that see the same batches: the students of several seeds, or an observer alone.

    On a GPU a step of all of them is recorded once for every shape of batch and replayed from then on, each on a stream
    of its own.

    Args:
        trainees: on one device; their weights may still be loaded before the first step.
    """

    def __init__(self, trainees: Sequence[Trainee]) -> None:
        self.trainees = list(trainees)
        modules = [module for trainee in self.trainees for module in trainee.model.modules()]
        on_gpu = all(parameter.is_cuda for trainee in self.trainees for parameter in trainee.model.parameters())
        self._recording = on_gpu and wanted() and not any(draws(module) for module in modules)
        self._steps: dict[tuple[int, bool], Step] = {}

    def step(self, x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        """One optimiser step of every trainee, see :meth:`edc.training.trainee.Trainee.step`."""
        if not self._recording:
            for trainee in self.trainees:
                trainee.step(x, targets, labels)
            return
        shape = (len(x), targets is not None)
        if shape not in self._steps:
            self._steps[shape] = Step(self.trainees, x, targets, labels)
        self._steps[shape].take(x, targets, labels)
        for trainee in self.trainees:
            trainee.counted(len(x))


def draws(module: nn.Module) -> bool:
    """Whether a layer draws random numbers in training: a step seeds them, which a graph can't."""
    names = {part.__name__ for part in type(module).__mro__}
    return bool(names & {"_DropoutNd", "StochasticDepth", "DropPath", "MultiheadAttention"})


class Step:
    """A recorded step of several trainees.

    Args:
        trainees: whose step; nothing of them is changed by recording it.
        x, targets, labels: a batch of the shape it is for.
    """

    def __init__(self, trainees: Sequence[Trainee], x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        self._x, self._labels = x.clone(memory_format=torch.channels_last), labels.clone()
        self._targets = None if targets is None else targets.clone()
        before = [[tensor.detach().clone() for tensor in trainee.tensors()] for trainee in trainees]
        fresh = [not trainee.optimiser.state for trainee in trainees]

        def forget_gradients() -> None:
            for trainee in trainees:  # they must come from the graph's own memory
                trainee.optimiser.zero_grad(set_to_none=True)

        steps = [functools.partial(one.update, self._x, self._targets, self._labels) for one in trainees]
        self._graph = record(steps, forget_gradients)
        with torch.no_grad():
            for trainee, kept, new in zip(trainees, before, fresh, strict=True):
                if new:  # an optimiser's state begins with zeros
                    for tensor in trainee.tensors()[len(kept) :]:
                        tensor.zero_()
                for tensor, value in zip(trainee.tensors(), kept, strict=False):
                    tensor.copy_(value)

    def take(self, x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        """Take the step on a batch."""
        self._x.copy_(x)
        self._labels.copy_(labels)
        if self._targets is not None:
            assert targets is not None
            self._targets.copy_(targets)
        self._graph.replay()
