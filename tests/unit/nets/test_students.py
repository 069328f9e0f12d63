"""The students of the paper's tables and figures at 32 and 224 px, from the zoo, torchvision and timm."""

import pytest
import torch

from edc import nets
from edc.errors import EdcError
from edc.nets.flops import skeleton
from edc.nets.titles import _NETWORKS, paper_name

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
