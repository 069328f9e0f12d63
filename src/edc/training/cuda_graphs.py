"""Work on a GPU recorded as CUDA graphs: with small batches a device waits for kernels to be launched one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from edc.errors import switched_on

WARM_UP = 3
"""Times the work is done before it is recorded; libraries choose their algorithms then."""

Pair = tuple[Tensor, Tensor]


def enabled() -> bool:
    """Whether graphs are recorded at all; ``EDC_CUDA_GRAPHS=off`` helps to find out whether one is at fault."""
    return switched_on("EDC_CUDA_GRAPHS")


def record(work: Sequence[Callable[[], None]], prepare: Callable[[], None] = lambda: None) -> torch.cuda.CUDAGraph:
    """Record functions that are independent of one another, each on a stream of its own.

    They are called a few times before the recording and read and write tensors that stay where they are; `prepare` is
    called between these calls and the recording.
    """
    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        for _ in range(WARM_UP):
            for function in work:
                function()
    torch.cuda.current_stream().wait_stream(warm_up)
    prepare()
    streams = [torch.cuda.Stream() for _ in work]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        main = torch.cuda.current_stream()
        for function, stream in zip(work, streams, strict=True):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                function()
        for stream in streams:
            main.wait_stream(stream)
    return graph


class RecordedFunction:
    """A function of one tensor, recorded for every shape it is called with.

    It must have no side effects, and its result is valid until the next call. Without a GPU it is called directly.
    """

    def __init__(self, function: Callable[[Tensor], Pair]) -> None:
        self._function = function
        self._graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, list[Pair]]] = {}

    def __call__(self, x: Tensor) -> Pair:
        if not x.is_cuda or not enabled():
            return self._function(x)
        if x.shape not in self._graphs:
            static = x.clone()
            outputs: list[Pair] = []

            def work() -> None:
                outputs[:] = [self._function(static)]

            self._graphs[x.shape] = (record([work]), static, outputs)
        graph, static, outputs = self._graphs[x.shape]
        static.copy_(x)
        graph.replay()
        return outputs[0]
