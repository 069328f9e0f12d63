"""How many groups of images are optimised at once in a device's memory; results are the same up to rounding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def groups_at_once(
    networks: Sequence[nn.Module], shape: Sequence[int], images: int, device: torch.device, memory: float | None
) -> int:
    """How many groups of images (C, H, W) are optimised at once: as many as fit into the memory, at least one.

    A CPU, whose caches hold no more, gets one group. A GPU plans with GB of
    :func:`edc.pipeline.devices.share_of_memory`.
    """
    if device.type == "cpu":
        return 1
    assert memory is not None
    # Beside all activations there are a gradient of the largest ones, and squares while they are summed.
    return max(1, int(memory * 1e9 // (1.5 * max(activation_bytes(network, shape, images) for network in networks))))


def activation_bytes(network: nn.Module, shape: Sequence[int], images: int) -> int:
    """Bytes a forward pass of images (C, H, W) saves for its backward pass, each tensor once, without the weights.

    Nothing is saved for the frozen parameters of a network in eval mode. Measured on two images and scaled.
    """
    saved: dict[int, int] = {}
    weights = {parameter.data_ptr() for parameter in network.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            saved[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        # Not the tensor itself: the output of the step that saves it would form a cycle that holds all maps.
        return tensor.detach()

    device = next(network.parameters()).device
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = network(torch.zeros(2, *shape, device=device, requires_grad=True))
    del logits
    return sum(saved.values()) * images // 2
