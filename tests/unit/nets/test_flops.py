"""Networks without values: arithmetic against published figures, and the paper's students at 32 and 224 px."""

import pytest
import torch

from edc import nets
from edc.errors import EdcError
from edc.nets.flops import arithmetic, skeleton
from edc.nets.titles import _NETWORKS, paper_name

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
# With one digit after the point: DeiT (arXiv 2012.12877), Swin (2103.14030), ConvNeXt (2201.03545).
GMAC |= {
    ("timm:deit_tiny_patch16_224", 1000, 224): 1.3,
    ("timm:swin_tiny_patch4_window7_224", 1000, 224): 4.5,
    ("timm:convnext_tiny", 1000, 224): 4.5,
}


@pytest.mark.parametrize("case", GMAC)
def test_published_arithmetic(case: tuple[str, int, int]) -> None:
    digits = 1 if case[0].startswith("timm:") else 3
    assert round(arithmetic(*case).macs / 1e9, digits) == GMAC[case]


def test_a_closed_form() -> None:
    """ConvNet of depth 1 on 8 px: 27 weights a pixel and channel, then a linear layer on 4 x 4 x 128."""
    result = arithmetic("convnet_d1", 10, 8)
    assert result.macs == 64 * 128 * 27 + 16 * 128 * 10
    assert result.parameters == 128 * 27 + 3 * 128 + 16 * 128 * 10 + 10
    assert result.stored == 4 * result.parameters


@pytest.mark.parametrize("network", ["wrn_16_2", "torchvision:shufflenet_v2_x0_5"])
def test_sizes_are_those_of_the_real_network(network: str) -> None:
    model = nets.build(network, classes=5, image_size=32)
    arithmetic.cache_clear()
    skeleton.cache_clear()
    before = torch.get_rng_state()
    result = arithmetic(network, 5, 32)
    assert torch.equal(torch.get_rng_state(), before)
    assert result.parameters == nets.parameter_count(model)
    assert result.stored == sum(t.numel() * t.element_size() for t in model.state_dict().values())
    assert all(p.is_meta for p in skeleton(network, 5, 32).parameters())


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


STUDENTS = sorted(network for networks in _NETWORKS.values() for network in networks)
REPORTED = {
    "convnext_tiny", "deit_tiny", "densenet121", "efficientnet_b0", "mobilenet_v2", "resnet101", "resnet18", "resnet50",
    "shufflenet_v2", "swin_tiny",
}  # fmt: skip
# AlexNet's strides leave nothing of a 32 px image.
REFUSED = {("torchvision:alexnet", 32): "cannot take 3 x 32 x 32 px"}


@pytest.mark.parametrize("image_size", [32, 224])
@pytest.mark.parametrize("network", STUDENTS)
def test_builds_or_refuses_in_one_line(network: str, image_size: int) -> None:
    """On the meta device: shapes are checked, nothing is computed."""
    if text := REFUSED.get((network, image_size)):
        with pytest.raises(EdcError, match=f"^{network}: {text}") as caught:
            skeleton(network, 7, image_size)
        assert "\n" not in str(caught.value)
        return
    model = skeleton(network, 7, image_size)
    with torch.no_grad():
        assert model(torch.empty(2, 3, image_size, image_size, device="meta")).shape == (2, 7)
    assert nets.parameter_count(model) > 0


@pytest.mark.parametrize(
    "network", ["timm:convnext_tiny", "timm:deit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224"]
)
def test_transformers_train_on_small_images(network: str) -> None:
    """With values, forward and backward, at the smallest size of the paper."""
    model = nets.build(network, classes=7, image_size=32, seed=0)
    model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("network", STUDENTS)
def test_paper_names(network: str) -> None:
    nets.check_name(network)
    assert network in _NETWORKS[paper_name(network) or ""]


def test_every_reported_student_has_a_network() -> None:
    assert set(_NETWORKS) >= REPORTED
    assert paper_name("timm:resnet18.a1_in1k") == "resnet18"
    assert paper_name("timm:mobilenetv2_100") == "mobilenet_v2"


@pytest.mark.parametrize("network", ["wrn_16_2", "convnet_w32", "torchvision:shufflenet_v2_x1_0", "", "resnet18.x"])
def test_a_network_the_paper_has_no_figures_of(network: str) -> None:
    assert paper_name(network) is None
