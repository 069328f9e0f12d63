"""Frozen batch norm: the same function as PyTorch's, and its gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edc import nets
from edc.nets.frozen import FrozenBatchNorm2d, frozen


def layer() -> nn.BatchNorm2d:
    """With values of its own."""
    draws = torch.Generator().manual_seed(0)
    found = nn.BatchNorm2d(5).eval().requires_grad_(False)
    for tensor in (found.weight, found.bias, found.running_mean, found.running_var):
        assert tensor is not None
        tensor.copy_(torch.rand(5, generator=draws) + 0.1)
    return found


def pictures(memory: torch.memory_format = torch.channels_last) -> Tensor:
    return torch.randn(4, 5, 6, 7, generator=torch.Generator().manual_seed(1)).to(memory_format=memory)


def answer(of: nn.Module, x: Tensor) -> list[Tensor]:
    """What comes out, and the first and second derivative of its fourth power with respect to what goes in."""
    x = x.clone().requires_grad_(True)
    out = of(x)
    (first,) = torch.autograd.grad(out.pow(4).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), x)
    return [out.detach(), first.detach(), second]


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_the_same_function_as_pytorchs(memory: torch.memory_format) -> None:
    x, plain = pictures(memory), layer()
    mine = frozen(nn.Sequential(copy.deepcopy(plain)))
    assert type(mine[0]) is FrozenBatchNorm2d
    for found, expected in zip(answer(mine, x), answer(plain, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert mine(x).is_contiguous(memory_format=memory)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2_half", "wrn_16_2", "shufflenet_v2_05"])
def test_networks_give_the_same_gradient(name: str) -> None:
    plain = nets.build(name, classes=10, image_size=16, seed=0)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain(x)  # moves the running values
    plain.eval().requires_grad_(False)
    mine = frozen(copy.deepcopy(plain))
    assert {type(m) for m in mine.modules() if isinstance(m, nn.BatchNorm2d)} == {FrozenBatchNorm2d}
    for found, expected in zip(answer(mine, x), answer(plain, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert mine.state_dict().keys() == plain.state_dict().keys()


def test_half_precision_is_pytorchs_own() -> None:
    plain, x = layer(), pictures().bfloat16()
    assert torch.equal(frozen(copy.deepcopy(plain))(x), plain(x))


def test_training_mode_makes_it_a_plain_layer() -> None:
    mine = frozen(nn.Sequential(layer()))
    before = mine(pictures())
    mine.train()
    assert type(mine[0]) is nn.BatchNorm2d
    mine(pictures())  # moves the running values, which a plain layer goes by
    assert not torch.allclose(mine.eval()(pictures()), before)


def test_other_layers_stay_as_they_are() -> None:
    class Derived(nn.BatchNorm2d):
        """As libraries have them, with more in it than batch norm."""

    kept = [Derived(5), nn.BatchNorm2d(5, affine=False), nn.BatchNorm2d(5, track_running_stats=False)]
    before = [type(module) for module in kept]
    model = frozen(nn.Sequential(*kept))
    assert [type(module) for module in model] == before
    assert not model.training
