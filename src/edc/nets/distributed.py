"""One run on several devices: processes that `torchrun` started, each with its part of every batch or of all groups.

Outside of `torchrun` there is one process, and every function here leaves things as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from edc.nets.processes import processes, rank

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long a process waits for the others: where the work is unequal, for hours. `torchrun` ends all if one fails."""


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """The processes can exchange tensors inside the block: over NCCL on GPUs ("cuda"), over gloo on CPUs."""
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def agreed(value: T) -> T:
    """The first process's value, in every process."""
    if processes() == 1:
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values)
    return values[0]


def summed(value: Tensor) -> Tensor:
    """The sum over all processes."""
    if processes() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def gathered(entries: list[T]) -> list[T]:
    """The entries of all processes, one process's after the other's."""
    if processes() == 1:
        return entries
    lists: list[Any] = [None] * processes()
    dist.all_gather_object(lists, entries)
    return [entry for each in lists for entry in each]


def own_range(count: int) -> range:
    """Which of so many things this process makes; each is made by one process."""
    each, more = divmod(count, processes())
    start = each * rank() + min(rank(), more)
    return range(start, start + each + (rank() < more))


def own_part(batch: Tensor) -> Tensor:
    """This process's part of a batch (B, ...): all of it where there are more processes than images."""
    return batch.tensor_split(processes())[rank()] if processes() <= len(batch) else batch


def weight_of_part(batch: int, part: int) -> float:
    """Factor on the mean loss of a part so that the average over the processes is the mean over the batch."""
    return part * processes() / batch if processes() <= batch else 1.0


def replicated(model: nn.Module) -> nn.Module:
    """The network as it is called in training: gradients are averaged over the processes, batch norm spans the batch.

    Its parameters and buffers are those of `model`, whose batch norm layers are changed in place.
    """
    if processes() == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel  # slow to import

    parameter = next(model.parameters())
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, spanning(child))
    devices = [parameter.device] if parameter.is_cuda else None
    wrapped = DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)
    wrapped.precision = model.precision
    return wrapped


def spanning(layer: nn.BatchNorm2d) -> nn.Module:
    """Batch norm over the images of all processes, with the parameters and buffers of a layer."""
    if layer.weight is not None and layer.weight.is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    made = SpanningBatchNorm(layer.num_features, layer.eps, layer.momentum, layer.affine)
    made.weight, made.bias = layer.weight, layer.bias
    for name, buffer in layer.named_buffers():
        setattr(made, name, buffer)
    return made.train(layer.training)


class SpanningBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all processes on a CPU, which PyTorch's SyncBatchNorm refuses."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        from torch.distributed.nn.functional import all_reduce  # with a backward pass; slow to import

        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        count = summed(exact.new_tensor([x.numel() / x.shape[1]]))
        sums = all_reduce(torch.stack([exact.sum((0, 2, 3)), (exact * exact).sum((0, 2, 3))]))
        mean = sums[0] / count
        variance = (sums[1] / count - mean * mean).clamp_min(0)
        with torch.no_grad():
            for running, new in (self.running_mean, mean), (self.running_var, variance * count / (count - 1)):
                running.lerp_(new, self.momentum)  # type: ignore[arg-type, union-attr]
            self.num_batches_tracked += 1  # type: ignore[assignment, operator]
        scale = (variance + self.eps).rsqrt() * self.weight
        return (x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]).to(x.dtype)
