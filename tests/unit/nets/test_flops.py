"""Arithmetic of a network against published figures; nothing is computed to find it."""

import pytest
import torch

from edc import nets
from edc.errors import EdcError
from edc.nets.flops import arithmetic, skeleton

# Network, classes, side in pixels: GMAC of one image, as far as it is published.
GMAC = {
    ("resnet18", 10, 32): 0.555,
    ("convnet_w128", 10, 32): 0.051,
    ("mobilenet_v2_half", 10, 32): 0.006,
    ("wrn_16_2", 10, 32): 0.101,
    ("shufflenet_v2_05", 10, 32): 0.010,
    ("convnet_d1", 10, 32): 0.004,
    ("convnet_d2", 10, 32): 0.041,
    ("convnet_w32", 10, 32): 0.004,
    ("torchvision:resnet18", 1000, 224): 1.814,
    ("torchvision:mobilenet_v2", 1000, 224): 0.301,
    ("torchvision:efficientnet_b0", 1000, 224): 0.386,
    ("torchvision:shufflenet_v2_x0_5", 1000, 224): 0.040,
    ("torchvision:alexnet", 1000, 224): 0.714,
}
# Those of the attention networks: 1.3 (DeiT, arXiv 2012.12877), 4.5 (Swin, 2103.14030), 4.5 (ConvNeXt, 2201.03545).
ROUNDED = {"timm:deit_tiny_patch16_224": 1.3, "timm:swin_tiny_patch4_window7_224": 4.5, "timm:convnext_tiny": 4.5}


@pytest.mark.parametrize("case", GMAC)
def test_published_arithmetic(case: tuple[str, int, int]) -> None:
    assert round(arithmetic(*case).macs / 1e9, 3) == GMAC[case]


@pytest.mark.parametrize("network", ROUNDED)
def test_attention_is_counted(network: str) -> None:
    assert round(arithmetic(network, 1000, 224).macs / 1e9, 1) == ROUNDED[network]


def test_a_closed_form() -> None:
    """ConvNet of depth 1 on 8 px: 27 weights a pixel and channel, then a linear layer on 4 x 4 x 128."""
    result = arithmetic("convnet_d1", 10, 8)
    assert result.macs == 64 * 128 * 27 + 16 * 128 * 10
    assert result.parameters == 128 * 27 + 3 * 128 + 16 * 128 * 10 + 10
    assert result.stored == 4 * result.parameters


@pytest.mark.parametrize("network", ["wrn_16_2", "torchvision:shufflenet_v2_x0_5"])
def test_sizes_are_those_of_the_real_network(network: str) -> None:
    model = nets.build(network, classes=5, image_size=32)
    result = arithmetic(network, 5, 32)
    assert result.parameters == nets.parameter_count(model)
    assert result.stored == sum(t.numel() * t.element_size() for t in model.state_dict().values())
    assert all(p.is_meta for p in skeleton(network, 5, 32).parameters())


def test_the_random_state_is_left_alone() -> None:
    arithmetic.cache_clear()
    skeleton.cache_clear()
    before = torch.get_rng_state()
    arithmetic("convnet_w32", 10, 32)
    assert torch.equal(torch.get_rng_state(), before)


def test_refusals() -> None:
    with pytest.raises(EdcError, match="unknown network 'resnet81'"):
        arithmetic("resnet81", 10, 32)
    with pytest.raises(EdcError, match="torchvision:alexnet: cannot take 3 x 32 x 32 px"):
        arithmetic("torchvision:alexnet", 10, 32)
    with pytest.raises(EdcError, match="needs image_size 8 or more, got 4"):
        arithmetic("convnet_w32", 10, 4)


def test_a_network_that_computes_while_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is built with values, and those are thrown away."""
    real = nets.build

    def picky(*args: object, **options: object) -> torch.nn.Module:
        torch.zeros(1).item()  # the meta device has no values to give
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("edc.nets.flops.build", picky)
    skeleton.cache_clear()
    assert all(p.is_meta for p in skeleton("convnet_d1", 2, 8).parameters())
    skeleton.cache_clear()
