"""Students of several seeds in training side by side, on a GPU recorded as one CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edc.students import Student

WARM_UP = 3
"""Steps before a graph is recorded, in which libraries choose their algorithms and the optimiser makes its state."""


class Cohort:
    """Students that see the same batches.

    Small batches leave a GPU waiting for the next kernel. There, a step of all students is recorded once for every
    shape of batch and replayed from then on, each student on a stream of its own.

    Args:
        students: on one device; their weights may still be loaded before the first step.
    """

    def __init__(self, students: Sequence[Student]) -> None:
        self.students = list(students)
        modules = [module for student in self.students for module in student.model.modules()]
        on_gpu = all(parameter.is_cuda for student in self.students for parameter in student.model.parameters())
        self._recording = on_gpu and not any(draws(module) for module in modules)
        self._recorded: dict[tuple[int, bool], Recorded] = {}

    def step(self, x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        """One optimiser step of every student, see :meth:`edc.students.Student.step`."""
        if not self._recording:
            for student in self.students:
                student.step(x, targets, labels)
            return
        shape = (len(x), targets is not None)
        if shape not in self._recorded:
            self._recorded[shape] = Recorded(self.students, x, targets, labels)
        self._recorded[shape].replay(x, targets, labels)
        for student in self.students:
            student.counted(len(x))


def draws(module: nn.Module) -> bool:
    """Whether a layer draws random numbers in training: a step seeds them, which a graph can't."""
    names = {part.__name__ for part in type(module).__mro__}
    return bool(names & {"_DropoutNd", "StochasticDepth", "DropPath", "MultiheadAttention"})


class Recorded:
    """A step of several students as a CUDA graph.

    Args:
        students: whose step; nothing of them is changed by recording it.
        x, targets, labels: a batch of the shape it is for.
    """

    def __init__(self, students: Sequence[Student], x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        self._x, self._labels = x.clone(memory_format=torch.channels_last), labels.clone()
        self._targets = None if targets is None else targets.clone()
        before = [(student, [tensor.detach().clone() for tensor in student.tensors()]) for student in students]
        fresh = [not student.optimiser.state for student in students]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                for student in students:
                    student.update(self._x, self._targets, self._labels)
        torch.cuda.current_stream().wait_stream(aside)
        streams = [torch.cuda.Stream() for _ in students]
        for student in students:
            student.optimiser.zero_grad(set_to_none=True)  # gradients must come from the graph's own memory
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            main = torch.cuda.current_stream()
            for student, stream in zip(students, streams, strict=True):
                stream.wait_stream(main)
                with torch.cuda.stream(stream):
                    student.update(self._x, self._targets, self._labels)
            for stream in streams:
                main.wait_stream(stream)
        with torch.no_grad():
            for (student, kept), new in zip(before, fresh, strict=True):
                if new:  # an optimiser's state begins with zeros
                    for tensor in student.tensors()[len(kept) :]:
                        tensor.zero_()
                for tensor, value in zip(student.tensors(), kept, strict=False):
                    tensor.copy_(value)

    def replay(self, x: Tensor, targets: Tensor | None, labels: Tensor) -> None:
        """Take the step on another batch."""
        self._x.copy_(x)
        self._labels.copy_(labels)
        if self._targets is not None:
            assert targets is not None
            self._targets.copy_(targets)
        self._graph.replay()
