"""The published sizes of every network: parameters, layers that statistics are taken of, arithmetic."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from edc import nets
from edc.errors import EdcError
from edc.nets.vgg import VGG

# Name: parameters at 10 classes, conv layers, batch norms, GMAC per 32 px image, D at 32 px, D at 64 px.
SMALL = {
    "resnet18": (11_173_962, 20, 20, 0.555, 18_388, 21_694),
    "resnet50": (23_520_842, 53, 53, 1.298, None, None),
    "resnet101": (42_512_970, 104, 104, 2.510, None, None),
    "convnet_w128": (320_010, 3, 0, 0.051, 686, 1_190),
    "mobilenet_v2_half": (697_546, 53, 53, 0.006, 34_798, 36_580),
    "wrn_16_2": (691_674, 16, 13, 0.101, 4_830, 8_454),
    "shufflenet_v2_05": (351_466, 56, 56, 0.010, 15_390, 18_966),
    "convnet_d1": (331_530, 1, 0, 0.004, 134, None),
    "convnet_d2": (233_610, 2, 0, 0.041, 422, None),
    "convnet_w32": (24_714, 3, 0, 0.004, 302, None),
    "vgg11_bn": (9_228_362, 8, 8, 0.153, None, None),
}
# Name: conv layers, batch norms, GMAC per 224 px image, D.
LARGE = {
    "torchvision:resnet18": (20, 20, 1.814, 17_926),
    "torchvision:mobilenet_v2": (52, 52, 0.301, 66_782),
    "torchvision:efficientnet_b0": (81, 49, 0.386, 101_310),
    "torchvision:shufflenet_v2_x0_5": (56, 56, 0.040, 14_874),
    "torchvision:alexnet": (5, 0, 0.714, 2_204),
}


def measure(model: nn.Module, image_size: int, cell: int) -> tuple[int, int, float, int]:
    """Conv layers, batch norms, GMAC, and the size D of the statistics vector.

    D sums 2C over the inputs of batch norms and 2C + 2UV over those of convolutions, U x V being the cells of
    `cell` pixels a side that cover the map.
    """
    convs = norms = macs = size = 0

    def count_input(module: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal convs, norms, size
        _, channels, height, width = args[0].shape
        size += 2 * channels
        if isinstance(module, nn.Conv2d):
            convs += 1
            size += 2 * -(-height // cell) * -(-width // cell)
        else:
            norms += 1

    def count_output(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        nonlocal macs
        per_output = module.in_features if isinstance(module, nn.Linear) else module.weight[0].numel()
        macs += per_output * output[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_pre_hook(count_input)
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count_output)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, image_size, image_size))
    return convs, norms, round(macs / 1e9, 3), size


def test_every_network_is_measured() -> None:
    assert nets.networks() == sorted(SMALL)


@pytest.mark.parametrize("network", SMALL)
def test_small_network_sizes(network: str) -> None:
    parameters, convs, norms, gmac, size, size_64 = SMALL[network]
    model = nets.build(network, classes=10, image_size=32)
    assert nets.parameter_count(model) == parameters
    measured = measure(model, 32, cell=4)
    assert measured[:3] == (convs, norms, gmac)
    if size is not None:
        assert measured[3] == size
    if size_64 is not None:
        assert measure(nets.build(network, classes=10, image_size=64), 64, cell=4)[3] == size_64


def test_total_size_of_the_statistics() -> None:
    assert sum(row[4] for row in SMALL.values() if row[4]) == 74_950
    assert sum(row[5] for row in SMALL.values() if row[5]) == 86_884
    assert sum(row[3] for row in LARGE.values()) == 203_096


@pytest.mark.parametrize("network", LARGE)
def test_large_network_sizes(network: str) -> None:
    assert measure(nets.build(network, classes=1000, image_size=224), 224, cell=16) == LARGE[network]


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_vgg_in_closed_form(classes: int, channels: int) -> None:
    """Eight 3x3 convolutions without bias, scale and shift behind each, 512 features into one linear layer."""
    widths = [64, 128, 256, 256, 512, 512, 512, 512]
    convolutions = sum(9 * a * b for a, b in itertools.pairwise([channels, *widths]))
    model = nets.build("vgg11_bn", classes=classes, image_size=16, channels=channels)
    assert nets.parameter_count(model) == convolutions + 2 * sum(widths) + (512 + 1) * classes


@pytest.mark.parametrize(
    ("image_size", "pools"), [(1, 0), (4, 2), (8, 3), (12, 3), (16, 4), (31, 4), (32, 5), (64, 5), (224, 5)]
)
def test_vgg_leaves_out_poolings_that_leave_nothing(image_size: int, pools: int) -> None:
    with torch.device("meta"):
        model = nets.build("vgg11_bn", classes=4, image_size=image_size)
        assert model(torch.empty(2, 3, image_size, image_size)).shape == (2, 4)
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in model.modules()) == pools


def test_vgg_of_other_widths() -> None:
    """As slimming leaves them."""
    model = VGG(4, 16, 3, widths=(8, 7, 6, 5, 4, 3, 2, 1)).eval()
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 4)
    assert model.classifier.in_features == 1
