"""Classification networks of torchvision and timm, random or pretrained on ImageNet."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from edc.errors import EdcError
from edc.nets.weights import first_line, load_weights, read_weights

TIMEOUT = 20.0  # seconds without a response after which a download is given up
# torchvision's networks with auxiliary classifiers, and how the names of those begin.
_AUXILIARY = {"googlenet": "aux", "inception_v3": "AuxLogits"}


@cache
def names(library: str) -> frozenset[str]:
    """Names of all classification networks of a library; timm's with and without the tag of the weights."""
    if library == "torchvision":
        import torchvision

        return frozenset(torchvision.models.list_models(module=torchvision.models))
    import timm

    return frozenset(timm.list_models()) | frozenset(timm.list_pretrained())


def build(
    library: str, name: str, classes: int, image_size: int, channels: int, pretrained: bool, load: bool
) -> nn.Module:
    """Build a network and run it on one image, because many of these networks support certain sizes only.

    Args:
        pretrained: build for the library's weights: torchvision's IMAGENET1K_V1, timm's default or tagged ones.
        load: with `pretrained`, load those weights, too.

    Raises:
        EdcError: if the network cannot take the images, or its weights are neither cached nor downloadable.
    """
    if library == "torchvision" and channels != 3:
        raise EdcError(f"torchvision:{name}: channels is {channels}, torchvision's networks take 3")
    make = _torchvision if library == "torchvision" else _timm
    try:
        model = make(name, classes, image_size, channels, pretrained, load)
        with torch.no_grad():
            logits = model.eval()(torch.zeros(1, channels, image_size, image_size))
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise EdcError(
            f"{library}:{name}: cannot take {channels} x {image_size} x {image_size} px ({first_line(error)})"
        ) from error
    if logits.shape != (1, classes):
        raise EdcError(f"{library}:{name}: gives {tuple(logits.shape)} for one image, expected (1, {classes})")
    return model.train()


def _torchvision(name: str, classes: int, image_size: int, channels: int, pretrained: bool, load: bool) -> nn.Module:
    import torchvision

    options: dict[str, Any] = {}
    if name in _AUXILIARY:
        # The pretrained weights expect another normalisation, which the network then applies itself.
        options = {"aux_logits": False, "transform_input": pretrained, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": image_size}
    elif name.startswith("maxvit_"):
        options = {"input_size": (image_size, image_size)}
    model = torchvision.models.get_model(name, num_classes=classes, **options)
    if pretrained and load:
        choices = torchvision.models.get_model_weights(name).__members__
        url = choices["IMAGENET1K_V1" if "IMAGENET1K_V1" in choices else next(iter(choices))].url
        file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        if not file.is_file():
            with _download(f"torchvision:{name}", file):
                file.parent.mkdir(parents=True, exist_ok=True)
                digest = re.search(r"-([0-9a-f]{8,})\.", file.name)
                torch.hub.download_url_to_file(url, str(file), hash_prefix=digest and digest[1], progress=False)
        load_weights(model, _current_names(name, read_weights(file)), str(file))
    return model


def _current_names(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename what the first DenseNet files call `norm.1` and leave out auxiliary classifiers."""
    renamed = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", key): value for key, value in state.items()}
    if name in _AUXILIARY:
        return {key: value for key, value in renamed.items() if not key.startswith(_AUXILIARY[name])}
    return renamed


def _timm(name: str, classes: int, image_size: int, channels: int, pretrained: bool, load: bool) -> nn.Module:
    import timm

    options: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    if pretrained and load:
        # Some entries declare a format of their own, which the hub's file does not have.
        source = {"file": str(_timm_file(name)), "custom_load": False}
        options |= {"pretrained": True, "pretrained_cfg_overlay": source}
    try:
        return timm.create_model(name, img_size=image_size, **options)
    except TypeError as error:
        # Convolutional networks take any size and do not have this argument.
        if "img_size" not in str(error):
            raise
        return timm.create_model(name, **options)


def _timm_file(name: str) -> Path:
    """The cached file of a timm network's weights, downloaded if need be."""
    import timm
    from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise EdcError(f"timm:{name}: no pretrained weights exist")
    filename = config.hf_hub_filename or "model.safetensors"
    cached = try_to_load_from_cache(config.hf_hub_id, filename)
    if isinstance(cached, str):
        return Path(cached)
    expected = Path(constants.HF_HUB_CACHE) / f"models--{config.hf_hub_id.replace('/', '--')}" / filename
    with _download(f"timm:{name}", expected):
        # Offline, the hub's client retries for most of a minute: test the connection once beforehand.
        request = urllib.request.Request(hf_hub_url(config.hf_hub_id, filename), method="HEAD")
        urllib.request.urlopen(request).close()
        return Path(hf_hub_download(config.hf_hub_id, filename))


@contextmanager
def _download(network: str, file: Path) -> Iterator[None]:
    """A download with a timeout; errors name the file."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    except (URLError, OSError, RuntimeError) as error:
        raise EdcError(
            f"{network}: pretrained weights {file} not found, and not downloaded ({first_line(error)})"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
