"""Networks where and as they compute: memory format and precision."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from edc import nets
from edc.nets.placing import compute_logits, placed, uses_reduced_precision

CPU = torch.device("cpu")


def network(name: str) -> nn.Module:
    return nets.build(name, classes=10, image_size=16, seed=0).eval()


@pytest.fixture(autouse=True)
def without_gradient() -> Iterator[None]:
    with torch.no_grad():
        yield


def pictures() -> torch.Tensor:
    return torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", nets.networks())
def test_the_same_function_in_either_format(name: str) -> None:
    model, x = network(name), pictures()
    expected = model(x)
    torch.testing.assert_close(compute_logits(placed(copy.deepcopy(model), CPU), x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "channels_last"), [("resnet18", True), ("mobilenet_v2_half", True), ("convnet_w32", False)]
)
def test_networks_with_batch_norm_lie_channels_last(name: str, channels_last: bool) -> None:
    convolutions = [module for module in placed(network(name), CPU).modules() if isinstance(module, nn.Conv2d)]
    # Of one pixel or one channel a kernel lies in both ways.
    kernels = [c.weight for c in convolutions if c.kernel_size != (1, 1) and c.weight.shape[1] > 1]
    assert kernels
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) == channels_last for kernel in kernels)


def test_half_precision_is_close_and_kept_by_a_copy() -> None:
    x, exact = pictures(), placed(network("resnet18"), CPU)
    half = placed(copy.deepcopy(exact), CPU, torch.bfloat16)
    assert (
        uses_reduced_precision(exact),
        uses_reduced_precision(half),
        uses_reduced_precision(copy.deepcopy(half)),
    ) == (False, True, True)
    result, expected = compute_logits(half, x), compute_logits(exact, x)
    assert result.dtype == torch.float32
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    assert not torch.equal(result, expected)
    torch.testing.assert_close(result, expected, rtol=0.1, atol=0.05 * float(expected.abs().max()))
