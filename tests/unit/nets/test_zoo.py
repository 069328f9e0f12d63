"""The small-image zoo and the factory: sizes, shapes, initialisation, names, seeds, refusals."""

import pytest
import torch
from torch import nn

from edc import nets
from edc.errors import EdcError

# Parameters at 10 classes, convolutions, batch norms.
SMALL = {
    "resnet18": (11_173_962, 20, 20),
    "resnet50": (23_520_842, 53, 53),
    "resnet101": (42_512_970, 104, 104),
    "convnet_w128": (320_010, 3, 0),
    "mobilenet_v2_half": (697_546, 53, 53),
    "wrn_16_2": (691_674, 16, 13),
    "shufflenet_v2_05": (351_466, 56, 56),
    "convnet_d1": (331_530, 1, 0),
    "convnet_d2": (233_610, 2, 0),
    "convnet_w32": (24_714, 3, 0),
    "vgg11_bn": (9_228_362, 8, 8),
}


@pytest.mark.parametrize("network", nets.networks())
def test_sizes(network: str) -> None:
    model = nets.build(network, classes=10, image_size=32)
    counts = [sum(isinstance(m, kind) for m in model.modules()) for kind in (nn.Conv2d, nn.BatchNorm2d)]
    assert (nets.parameter_count(model), *counts) == SMALL[network]


@pytest.mark.parametrize("image_size", [8, 16, 32, 64])
@pytest.mark.parametrize("network", SMALL)
def test_output_shape(network: str, image_size: int) -> None:
    model = nets.build(network, classes=7, image_size=image_size).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, image_size, image_size)).shape == (2, 7)


@pytest.mark.parametrize("network", SMALL)
def test_every_parameter_is_trained(network: str) -> None:
    model = nets.build(network, classes=3, image_size=16, channels=1, seed=0)
    model(torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert idle == []


@pytest.mark.parametrize(("network", "least"), [("convnet_d1", 2), ("convnet_d2", 4), ("convnet_w128", 8)])
def test_convnet_needs_a_pixel_after_the_last_pooling(network: str, least: int) -> None:
    model = nets.build(network, classes=2, image_size=least).eval()
    assert model(torch.zeros(1, 3, least, least)).shape == (1, 2)
    with pytest.raises(EdcError, match=f"needs image_size {least} or more, got {least - 1}"):
        nets.build(network, classes=2, image_size=least - 1)


@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2_half", "vgg11_bn", "wrn_16_2"])
def test_kaiming_fan_out(network: str) -> None:
    model = nets.build(network, classes=10, image_size=32, seed=0)
    for conv in (layer for layer in model.modules() if isinstance(layer, nn.Conv2d)):
        if conv.weight.numel() > 10_000:
            expected = (2 / (conv.out_channels * conv.kernel_size[0] ** 2)) ** 0.5
            assert conv.weight.std().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("image_size", "pools"), [(1, 0), (4, 2), (8, 3), (12, 3), (16, 4), (31, 4), (32, 5), (64, 5), (224, 5)]
)
def test_vgg_leaves_out_poolings_that_leave_nothing(image_size: int, pools: int) -> None:
    with torch.device("meta"):
        model = nets.build("vgg11_bn", classes=4, image_size=image_size)
        assert model(torch.empty(2, 3, image_size, image_size)).shape == (2, 4)
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in model.modules()) == pools


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
