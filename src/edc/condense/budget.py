"""How much of synthesis a device holds at once; what comes out is the same, but for rounding, whatever that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def groups_at_once(
    networks: Sequence[nn.Module], shape: Sequence[int], images: int, device: torch.device, memory: float | None
) -> int:
    """How many groups of images are worked on at once: as many as the memory to plan with holds, at least one.

    Args:
        networks: the observers, frozen, on the device.
        shape: (C, H, W) of an image.
        images: of one group.
        device: a CPU takes one group: its caches hold no more.
        memory: GB to plan with, see :func:`edc.pipeline.devices.share_of_memory`; a CPU needs none.
    """
    if device.type == "cpu":
        return 1
    assert memory is not None
    # A gradient of the largest activations stands beside all of them, and so do squares while they are summed.
    return max(1, int(memory * 1e9 // (1.5 * max(activations(network, shape, images) for network in networks))))


def activations(network: nn.Module, shape: Sequence[int], images: int) -> int:
    """Bytes a forward pass keeps for its backward pass: saved tensors, each counted once, without the weights.

    Args:
        network: in eval mode; what its frozen parameters do not need is not kept.
        shape: (C, H, W) of an image.
        images: B; measured on two and scaled.
    """
    import torch

    kept: dict[int, int] = {}
    own = {parameter.data_ptr() for parameter in network.parameters()}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        # Not the tensor: where it is what its own step gave, the two would keep each other, and all maps, for ever.
        return tensor.detach()

    device = next(network.parameters()).device
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = network(torch.zeros(2, *shape, device=device, requires_grad=True))
    del logits
    return sum(kept.values()) * images // 2
