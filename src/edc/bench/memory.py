"""Memory of work: of tensors and of the process."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edc.bench.cases import Work
from edc.pipeline.devices import memory, peak_memory, reset_peak_memory

MARK = "edc bench"
"""In a profile, the begin of the work."""


def used(device: torch.device) -> int:
    """Bytes in use now: of a GPU's memory by tensors, else by the process."""
    gc.collect()  # networks and their hooks refer to each other
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # memory that was freed but not returned
    return memory("VmRSS")


def peak(work: Work, device: torch.device, before: int) -> int:
    """Most bytes in use above ``before``: of a GPU's memory by tensors, else by the process.

    Three times on a CPU, whose allocator may keep more each time.
    """
    used(device)
    reset_peak_memory(device.type)
    for _ in range(1 if device.type == "cuda" else 3):
        work()
    most = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory()
    return max(0, most - before)


def tensor_peak(make: Callable[[], Work]) -> int:
    """Most bytes that PyTorch has from the CPU's allocator at once during work.

    The work is made and done once before it is measured; tensors it left count, others do not.
    """
    from torch.profiler import ProfilerActivity, profile, record_function

    gc.collect()  # memory freed meanwhile must not be subtracted
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work = make()
        work()  # an optimiser makes its moments in its first step
        with record_function(MARK):
            work()
    assert profiled.profiler is not None
    events = sorted(profiled.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    begun = next(event.start_ns() for event in events if event.name() == MARK)
    now = most = 0
    for event in events:
        if event.name() == "[memory]":
            now += event.nbytes()
            if event.start_ns() >= begun:
                most = max(most, now)
    return most


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that exist at once, without a network's weights; `most` at any time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # A view of a weight has no storage of its own.
        self._known = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}
        self._now = self.most = 0

    def _freed(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self._now -= size

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage())._cdata not in self._known:
                self._known.add(storage._cdata)
                self._now += storage.nbytes()
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.most = max(self.most, self._now)
        return result


@torch.no_grad()
def map_bytes(network: nn.Module, shape: Sequence[int], images: int) -> int:
    """Most bytes of maps at once in a pass without gradient; measured on two images (C, H, W) and scaled."""
    device = next(network.parameters()).device
    with LiveBytes(network) as live:
        network(torch.zeros(2, *shape, device=device))
    return live.most * images // 2
