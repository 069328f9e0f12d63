"""Times and memory of pieces of work, measured side by side."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edc.pipeline.devices import memory, peak_memory

Work = Callable[[], object]

ROUNDS = 3
"""Least number of rounds, whatever they take."""


def finish(device: torch.device) -> None:
    """Wait for what a GPU was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def side_by_side(pieces: dict[str, Work], device: torch.device, seconds: float) -> dict[str, list[float]]:
    """Seconds of each piece of work in each round; a round does every piece once, so that noise meets all of them.

    Args:
        pieces: by name.
        device: where they work.
        seconds: rounds go on for so long.
    """
    for work in pieces.values():
        work()
    finish(device)
    found: dict[str, list[float]] = {name: [] for name in pieces}
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(next(iter(found.values()))) < ROUNDS:
        for name, work in pieces.items():
            start = time.perf_counter()
            work()
            finish(device)
            found[name].append(time.perf_counter() - start)
    return found


def ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    """Median over rounds of the ratio of two pieces."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def forget_peak() -> None:
    """Let the kernel's record of this process's peak begin anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def held(device: torch.device) -> int:
    """Bytes in use now: of a GPU's memory by tensors, else by the process."""
    gc.collect()  # networks and their hooks refer to each other
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed and kept is nobody's
    return memory("VmRSS")


def peak(work: Work, device: torch.device, begun: int) -> int:
    """Bytes a piece of work takes at most above ``begun``, all that is held for it included.

    On a GPU those of tensors, else those of the process, in a few rounds: an allocator may keep more each time.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - begun
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    forget_peak()
    for _ in range(ROUNDS):
        work()
    return max(0, peak_memory() - begun)


WORK = "edc bench"
"""Marks in a profile where the work begins."""


def most_in_tensors(make: Callable[[], Work]) -> int:
    """Bytes PyTorch asks the CPU's allocator for and has not given back, at most while a piece of work is done.

    Args:
        make: makes the work, which is done once before; what both leave counts, how it was made does not.
    """
    from torch.profiler import ProfilerActivity, profile, record_function

    gc.collect()  # what is given back must not be counted against what is made
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work = make()
        work()  # an optimiser makes its moments in its first step
        with record_function(WORK):
            work()
    events = sorted(found.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    begun = next(event.start_ns() for event in events if event.name() == WORK)
    now = most = 0
    for event in events:
        if event.name() == "[memory]":
            now += event.nbytes()
            if event.start_ns() >= begun:
                most = max(most, now)
    return most


class Held(TorchDispatchMode):
    """Counts the bytes of all tensors that are made, and of those not yet given back.

    Args:
        network: its weights are not counted.

    Attributes:
        most: held at once at most.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # A view of a weight is nothing new.
        self._known = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}
        self._now = self.most = 0

    def _gone(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self._now -= size

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See PyTorch."""
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:
                    self._known.add(storage._cdata)
                    self._now += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.most = max(self.most, self._now)
        return found


@torch.no_grad()
def held_at_most(network: nn.Module, shape: Sequence[int], images: int) -> int:
    """Bytes of the maps a forward pass without gradient has at once at most, for images (C, H, W).

    Measured on two images and scaled.
    """
    device = next(network.parameters()).device
    with Held(network) as counted:
        network(torch.zeros(2, *shape, device=device))
    return counted.most * images // 2


def kernels(work: Work) -> int:
    """Number of GPU kernels a piece of work launches."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        work()
        torch.cuda.synchronize()
    return sum(event.count for event in found.key_averages())


def matrix_rate(device: torch.device) -> float:
    """FLOP/s of a large float32 matrix product, the most a network could reach."""
    a = torch.randn(8192, 8192, device=device)
    times = side_by_side({"product": lambda: a @ a}, device, 1.0)["product"]
    return float(2 * 8192**3 / statistics.median(times))
