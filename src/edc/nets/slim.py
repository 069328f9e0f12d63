"""Network slimming (Liu et al., ICCV 2017, arXiv 1708.06519): channels with small BN scales are removed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from edc.errors import EdcError
from edc.nets.vgg import VGG

Layer = TypeVar("Layer", bound=nn.Module)


def scales(model: VGG) -> list[Tensor]:
    """|gamma| of every BN layer, on the CPU: (C,) each."""
    return [layer.weight.detach().abs().cpu() for layer in _layers(model, nn.BatchNorm2d)]


def kept_channels(model: VGG, ratio: float, keep: float = 0.0) -> list[Tensor]:
    """Ascending indices, per layer, of the channels left when a share of all is removed: those of the smallest scales.

    The share ``keep`` of each layer's channels, those of its largest scales, stays in any case.

    Raises:
        EdcError: a layer would lose all its channels, or more than ``keep`` allows; names the largest possible ratio.
    """
    of_layers = scales(model)
    stays = [(-s).argsort(stable=True).argsort() < math.ceil(keep * len(s) - 1e-6) for s in of_layers]
    flat, protected = torch.cat(of_layers), torch.cat(stays)
    remove = int(ratio * len(flat) + 1e-6)  # 0.29 of 100 channels is 29 in spite of binary rounding
    order = flat.masked_fill(protected, torch.inf).argsort(stable=True)
    owner = torch.repeat_interleave(torch.arange(len(of_layers)), torch.tensor([len(s) for s in of_layers]))
    # How many may be removed before a layer's last channel is.
    last = torch.stack([(owner[order] == i).nonzero().max() for i in range(len(of_layers))])
    if (most := min(int(last.min()), int((~protected).sum()))) < remove:
        layer, share = int(last.argmin()), math.floor(1000 * most / len(flat)) / 1000
        what = f"more channels than keep = {keep:g} allows" if keep else f"every channel of convolution {layer + 1}"
        raise EdcError(
            f"ratio {ratio:g} would remove {what}; take at most {share:.3f}"
            + ("" if keep else " or let a share of each layer's channels stay with keep")
        )
    gone = torch.zeros(len(flat), dtype=torch.bool)
    gone[order[:remove]] = True
    return [(~part).nonzero().flatten() for part in gone.split([len(s) for s in of_layers])]


def slimmed(model: VGG, channels: Sequence[Tensor]) -> VGG:
    """A smaller network of the channels kept, with their weights and running statistics, on the same device."""
    convolutions, norms = _layers(model, nn.Conv2d), _layers(model, nn.BatchNorm2d)
    first, widths = convolutions[0], [len(stay) for stay in channels]
    # The image size only determines the number of poolings.
    side = 2 ** len(_layers(model, nn.MaxPool2d))
    small = VGG(model.classifier.out_features, side, first.in_channels, widths=widths).to(first.weight.device)
    inputs = torch.arange(first.in_channels)
    smaller = _layers(small, nn.Conv2d), _layers(small, nn.BatchNorm2d)
    with torch.no_grad():
        for conv, small_conv, norm, small_norm, stay in zip(
            convolutions, smaller[0], norms, smaller[1], channels, strict=True
        ):
            small_conv.weight.copy_(conv.weight[stay][:, inputs])
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(small_norm, name).copy_(getattr(norm, name)[stay])
            if norm.num_batches_tracked is not None and small_norm.num_batches_tracked is not None:
                small_norm.num_batches_tracked.copy_(norm.num_batches_tracked)
            inputs = stay
        small.classifier.weight.copy_(model.classifier.weight[:, inputs])
        small.classifier.bias.copy_(model.classifier.bias)
    return small.train(model.training)


def _layers(model: VGG, kind: type[Layer]) -> list[Layer]:
    return [layer for layer in model.features if isinstance(layer, kind)]
