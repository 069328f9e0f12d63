"""Network slimming: channels with small BN scales are taken out of a network for good.

Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017 (arXiv 1708.06519).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edc.errors import EdcError
from edc.nets.vgg import VGG


def scales(model: VGG) -> list[Tensor]:
    """|gamma| of every BN layer, on the CPU: (C,) each."""
    return [layer.weight.detach().abs().cpu() for layer in model.features if isinstance(layer, nn.BatchNorm2d)]


def kept(model: VGG, ratio: float) -> list[Tensor]:
    """Which channels stay if a share of all channels goes, those with the smallest scales wherever they are.

    Args:
        model: the network.
        ratio: share of all channels to remove, below 1.

    Returns:
        Ascending indices of the channels that stay, one tensor a layer.

    Raises:
        EdcError: a layer would lose all its channels; says which ratio still works.
    """
    found = scales(model)
    flat = torch.cat(found)
    remove = int(ratio * len(flat) + 1e-6)  # 0.29 of 100 channels is 29, whatever the binary fraction says
    order = flat.argsort(stable=True)
    owner = torch.repeat_interleave(torch.arange(len(found)), torch.tensor([len(s) for s in found]))
    # How many may go before a layer's last channel does.
    last = torch.stack([(owner[order] == i).nonzero().max() for i in range(len(found))])
    if int(last.min()) < remove:
        layer, most = int(last.argmin()), math.floor(1000 * int(last.min()) / len(flat)) / 1000
        raise EdcError(
            f"ratio {ratio:g} would remove every channel of convolution {layer + 1}; at most {most:.3f} leaves it one"
        )
    gone = torch.zeros(len(flat), dtype=torch.bool)
    gone[order[:remove]] = True
    return [(~part).nonzero().flatten() for part in gone.split([len(s) for s in found])]


def masked(model: VGG, channels: Sequence[Tensor]) -> VGG:
    """A copy whose other channels are silent: BN scale and shift zero. What removal must reproduce."""
    other = copy.deepcopy(model)
    for layer, stay in zip(_norms(other), channels, strict=True):
        silent = torch.ones(layer.num_features, dtype=torch.bool)
        silent[stay] = False
        with torch.no_grad():
            layer.weight[silent] = 0
            layer.bias[silent] = 0
    return other


def slimmed(model: VGG, channels: Sequence[Tensor]) -> VGG:
    """A smaller network of the channels that stay, with their weights and running statistics.

    Args:
        model: on the CPU or elsewhere; the result lies beside it.
        channels: from `kept`.
    """
    first = model.features[0]
    assert isinstance(first, nn.Conv2d)
    pools = sum(isinstance(layer, nn.MaxPool2d) for layer in model.features)
    widths = [len(stay) for stay in channels]
    # The side decides nothing but how many poolings there are.
    small = VGG(model.classifier.out_features, 2**pools, first.in_channels, widths=widths).to(first.weight.device)
    inputs = torch.arange(first.in_channels)
    with torch.no_grad():
        pairs = zip(_convolutions(model), _convolutions(small), _norms(model), _norms(small), channels, strict=True)
        for conv, small_conv, norm, small_norm, stay in pairs:
            small_conv.weight.copy_(conv.weight[stay][:, inputs])
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(small_norm, name).copy_(getattr(norm, name)[stay])
            if norm.num_batches_tracked is not None and small_norm.num_batches_tracked is not None:
                small_norm.num_batches_tracked.copy_(norm.num_batches_tracked)
            inputs = stay
        small.classifier.weight.copy_(model.classifier.weight[:, inputs])
        small.classifier.bias.copy_(model.classifier.bias)
    return small.train(model.training)


def _convolutions(model: VGG) -> list[nn.Conv2d]:
    return [layer for layer in model.features if isinstance(layer, nn.Conv2d)]


def _norms(model: VGG) -> list[nn.BatchNorm2d]:
    return [layer for layer in model.features if isinstance(layer, nn.BatchNorm2d)]
