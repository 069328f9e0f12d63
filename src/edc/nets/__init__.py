"""The zoo of observers and students: one name, one network.

A plain name (`resnet18`) is a network for small images kept in this package; `torchvision:resnet18` and
`timm:deit_tiny_patch16_224` are classification networks of those libraries. Plain names are checked without torch.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from edc.errors import EdcError, unknown_name
from edc.nets.groups import weight_decay_groups
from edc.nets.registry import NETWORKS

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "check_name", "networks", "parameter_count", "weight_decay_groups"]

_LIBRARIES = ("torchvision", "timm")


def networks() -> list[str]:
    """Sorted names of the small-image zoo, without the libraries' networks. Does not import torch."""
    return sorted(NETWORKS)


def check_name(network: str) -> None:
    """Refuse an unknown name. Imports a library only for a name with its prefix."""
    library, colon, _ = network.partition(":")
    if not colon or library not in _LIBRARIES:
        if network not in NETWORKS:
            raise unknown_name("network", network, NETWORKS)
        return
    from edc.nets import external

    known = [f"{library}:{name}" for name in external.names(library)]
    if network not in known:
        # The libraries have over a thousand names: list the nearest few, not all of them.
        raise unknown_name("network", network, get_close_matches(network, known, n=5, cutoff=0.0))


def build(
    network: str,
    *,
    classes: int,
    image_size: int,
    channels: int = 3,
    seed: int | None = None,
    weights: str | None = None,
    load: bool = True,
) -> nn.Module:
    """Build a network that maps (B, channels, image_size, image_size) to logits (B, classes).

    Args:
        network: a name from `networks()`, `torchvision:NAME` or `timm:NAME`.
        seed: of the random initialisation, which leaves the global generator as it was; None draws from that.
        weights: None for random weights; "default" for the library's own pretrained ones, from its cache or
            else downloaded; or the path of a .safetensors or .pth state dict. The classifier keeps its random
            weights where the numbers of classes differ.
        load: False leaves the weights random: the architecture for `weights`, to be filled with trained ones.
            GoogLeNet and Inception, for example, rescale their input only with the library's weights.

    Raises:
        EdcError: for an unknown name, an impossible size, or weights that are absent or do not fit.
    """
    import torch

    check_name(network)
    for key, value in (("classes", classes), ("image_size", image_size), ("channels", channels)):
        if value < 1:
            raise EdcError(f"{network}: {key} is {value}, expected at least 1")
    library, colon, name = network.partition(":")
    pretrained = weights == "default"
    if pretrained and not colon:
        raise EdcError(f"{network}: weights 'default' exist for torchvision and timm networks only, give a file")
    # Networks are initialised on the CPU. torch.manual_seed would reseed every GPU's generator, too.
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        model: nn.Module
        if colon:
            from edc.nets import external

            model = external.build(library, name, classes, image_size, channels, pretrained, load)
        else:
            model = resolve_name(NETWORKS[network])(classes, image_size, channels)
    if load and weights is not None and not pretrained:
        from edc.nets.weights import load_weights, read_weights

        load_weights(model, read_weights(Path(weights)), weights)
    return model


def parameter_count(model: nn.Module) -> int:
    """Number of values in a network's parameters (buffers not counted)."""
    return sum(parameter.numel() for parameter in model.parameters())
