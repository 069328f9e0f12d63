"""Work on a GPU recorded as CUDA graphs: small batches leave a device waiting for the next kernel."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM_UP = 3
"""Times the work is done before it is recorded; libraries choose their algorithms then."""

Found = tuple[Tensor, Tensor]


def wanted() -> bool:
    """Whether graphs are recorded at all; ``EDC_CUDA_GRAPHS=off`` helps to find out whether one is at fault."""
    return os.environ.get("EDC_CUDA_GRAPHS", "on") != "off"


def record(work: Sequence[Callable[[], None]], prepare: Callable[[], None] = lambda: None) -> torch.cuda.CUDAGraph:
    """Record pieces of work that don't depend on one another, each on a stream of its own.

    Args:
        work: done a few times before it is recorded; reads and writes tensors that stay where they are.
        prepare: called between the trial and the recording.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            for one in work:
                one()
    torch.cuda.current_stream().wait_stream(aside)
    prepare()
    streams = [torch.cuda.Stream() for _ in work]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        main = torch.cuda.current_stream()
        for one, stream in zip(work, streams, strict=True):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                one()
        for stream in streams:
            main.wait_stream(stream)
    return graph


class Recorded:
    """A function of one tensor, recorded for every shape it is called with.

    Args:
        function: changes nothing; what it returns is valid until the next call.
    """

    def __init__(self, function: Callable[[Tensor], Found]) -> None:
        self._function = function
        self._known: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, list[Found]]] = {}

    def __call__(self, x: Tensor) -> Found:
        """What the function gives; off a GPU it is simply called."""
        if not x.is_cuda or not wanted():
            return self._function(x)
        if x.shape not in self._known:
            held = x.clone()
            made: list[Found] = []

            def work() -> None:
                made[:] = [self._function(held)]

            self._known[x.shape] = (record([work]), held, made)
        graph, held, found = self._known[x.shape]
        held.copy_(x)
        graph.replay()
        return found[0]
