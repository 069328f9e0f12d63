"""The factory: names, seeds, refusals."""

import pytest
import torch

from edc import nets
from edc.errors import EdcError


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet81", "resnet18"),
        ("convnet_w64", "convnet_w32"),
        ("mobilenetv2_half", "mobilenet_v2_half"),
        ("torchvision:resnet81", "torchvision:resnet18"),
        ("timm:deit_tiny_patch16_242", "timm:deit_tiny_patch16_224"),
        ("tv:wrn_16_2", "wrn_16_2"),
    ],
)
def test_unknown_name_offers_the_nearest(name: str, near: str) -> None:
    with pytest.raises(EdcError, match=f"unknown network '{name}'; did you mean '{near}'") as caught:
        nets.check_name(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", ":", "torchvision:", "timm:", "timm:zzzz", "torchvision:fcn_resnet50"])
def test_unknown_name_is_one_short_line(name: str) -> None:
    with pytest.raises(EdcError, match="unknown network") as caught:
        nets.build(name, classes=2, image_size=8)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("network", ["convnet_w32", "shufflenet_v2_05", "timm:test_vit"])
def test_seed_fixes_the_weights_and_leaves_the_global_generator(network: str) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = nets.build(network, classes=4, image_size=32, seed=1)
    torch.rand(5)
    torch.set_rng_state(before)
    second = nets.build(network, classes=4, image_size=32, seed=1)
    other = nets.build(network, classes=4, image_size=32, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    weights, again, differ = (torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (first, second, other))
    assert torch.equal(weights, again)
    assert not torch.equal(weights, differ)


def test_without_a_seed_the_global_generator_is_drawn_from() -> None:
    torch.manual_seed(5)
    first = nets.build("convnet_d1", classes=4, image_size=8)
    torch.manual_seed(5)
    second = nets.build("convnet_d1", classes=4, image_size=8, seed=None)
    third = nets.build("convnet_d1", classes=4, image_size=8, seed=None)
    weight = "features.0.weight"
    assert torch.equal(first.state_dict()[weight], second.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], third.state_dict()[weight])


@pytest.mark.parametrize("key", ["classes", "image_size", "channels"])
def test_impossible_sizes(key: str) -> None:
    sizes = {"classes": 2, "image_size": 8, "channels": 3} | {key: 0}
    with pytest.raises(EdcError, match=f"resnet18: {key} is 0, expected at least 1"):
        nets.build("resnet18", **sizes)
