"""Features of images: the input of one layer of a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edc.errors import EdcError, unknown_name
from edc.nets.placing import compute_logits
from edc.nets.weights import classifiers

PENULTIMATE = "penultimate"
"""Stands for the layer that gives the logits."""


class _Reached(Exception):  # noqa: N818
    """Ends a forward pass at the layer; its argument is the layer's input."""


def _stop(_: nn.Module, inputs: tuple[Any, ...]) -> None:
    raise _Reached(inputs[0])


def layer_input(network: nn.Module, layer: str, x: Tensor) -> Tensor:
    """The input, in float32, of a layer in a pass of normalised images (B, C, S, S), which ends there.

    The layer is a module's name, or "penultimate". Where a network has several heads (distilled transformers), the
    first is that of the class token.

    Raises:
        EdcError: the network has no such layer, or does not use it.
    """
    modules = dict(network.named_modules())
    if layer == PENULTIMATE:
        names = [name for name in classifiers(network) if name in modules]
    elif layer in modules:
        names = [layer]
    else:
        raise unknown_name(f"layer of {type(network).__name__}", layer, [PENULTIMATE, *filter(None, modules)])
    handles = [modules[name].register_forward_pre_hook(_stop) for name in names[:1]]
    try:
        compute_logits(network, x)
    except _Reached as reached:
        return reached.args[0].to(torch.float32)
    finally:
        for handle in handles:
            handle.remove()
    if layer == PENULTIMATE:
        raise EdcError(f"{type(network).__name__}: found no linear or convolutional classifier to take features from")
    raise EdcError(f"{type(network).__name__}: its pass does not use layer {layer!r}; choose another")
