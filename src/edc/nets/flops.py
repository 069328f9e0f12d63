"""Multiply-accumulates, parameters and bytes of a network on PyTorch's `meta` device: shapes without values."""

from __future__ import annotations

from functools import cache, partial
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edc.errors import EdcError
from edc.nets import build, parameter_count


class Arithmetic(NamedTuple):
    """The costs of a network.

    Attributes:
        macs: multiply-accumulates of the forward pass of one image, in convolutions and matrix products: 2 FLOP each.
        parameters: number of trained values.
        stored: bytes of its state dict, with running statistics.
    """

    macs: int
    parameters: int
    stored: int


@cache
def arithmetic(network: str, classes: int, image_size: int, channels: int = 3) -> Arithmetic:
    """Count a network's multiply-accumulates, parameters and bytes; errors are those of :func:`edc.nets.build`."""
    model = skeleton(network, classes, image_size, channels)
    macs = multiply_accumulates(model, (channels, image_size, image_size))
    stored = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    return Arithmetic(macs, parameter_count(model), stored)


def multiply_accumulates(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Of one forward pass of one image (C, H, W); the model is left in the mode it was in."""
    training, device = model.training, next(model.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, *shape, device=device))
    model.train(training)
    return int(counter.get_total_flops() // 2)


@cache
def skeleton(network: str, classes: int, image_size: int, channels: int = 3) -> nn.Module:
    """A network in eval mode on the meta device: modules and shapes, no values. Cached, so not to be changed."""
    make = partial(build, network, classes=classes, image_size=image_size, channels=channels)
    try:
        with torch.device("meta"):
            return make().eval()
    except (EdcError, NotImplementedError, RuntimeError):
        # Some networks compute with values while they are built. A wrong name or size is raised here again.
        return make(seed=0).to("meta").eval()
