"""Networks as they compute: frozen batch norm, memory format and precision."""

import copy

import pytest
import torch
from torch import Tensor, nn

from edc import nets
from edc.condense.layer_statistics import StatisticsCollector
from edc.nets.frozen import FrozenBatchNorm2d, frozen
from edc.nets.placing import compute_logits, placed, uses_reduced_precision

CPU = torch.device("cpu")


def layer() -> nn.BatchNorm2d:
    """With values of its own."""
    draws = torch.Generator().manual_seed(0)
    result = nn.BatchNorm2d(5).eval().requires_grad_(False)
    for tensor in (result.weight, result.bias, result.running_mean, result.running_var):
        assert tensor is not None
        tensor.copy_(torch.rand(5, generator=draws) + 0.1)
    return result


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
    model = frozen(nn.Sequential(copy.deepcopy(plain)))
    assert type(model[0]) is FrozenBatchNorm2d
    results, expected = answer(model, x), answer(plain, x)
    for one, other in zip(results, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert model(x).is_contiguous(memory_format=memory)
    # The same bits where multiply-adds are fused, as in PyTorch's kernel: sets made with either are the same.
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert all(map(torch.equal, results[:2], expected[:2]))


@pytest.mark.parametrize("groups", [None, 2])
@pytest.mark.parametrize("skip", [None, {1, 2, 5}])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["mobilenet_v2_half", "wrn_16_2", "shufflenet_v2_05"])
def test_statistics_and_their_gradient_are_the_same(
    name: str, precision: torch.dtype, skip: set[int] | None, groups: int | None
) -> None:
    plain = nets.build(name, classes=10, image_size=16, seed=0)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain(x)  # moves the running values
    plain.eval().requires_grad_(False)

    def seen(network: nn.Module) -> list[Tensor]:
        collector, pixels = (
            StatisticsCollector(placed(network, CPU, precision), 4, (3, 16, 16)),
            x.clone().requires_grad_(True),
        )
        logits, statistics = collector(pixels, skip, groups)
        weights = torch.randn(collector.size, generator=torch.Generator().manual_seed(1))
        (gradient,) = torch.autograd.grad(logits.square().sum() + (statistics * weights).sum(), pixels)
        return [logits.detach(), statistics.detach(), gradient, *collector.moments(x)]

    for result, expected in zip(seen(frozen(copy.deepcopy(plain))), seen(plain), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_half_precision_is_pytorchs_own() -> None:
    plain, x = layer(), pictures().bfloat16()
    assert torch.equal(frozen(copy.deepcopy(plain))(x), plain(x))


def test_training_mode_makes_it_a_plain_layer() -> None:
    model, x = frozen(nn.Sequential(layer())), pictures().requires_grad_(True)
    before = model(x)
    model.train()
    assert type(model[0]) is nn.BatchNorm2d
    before.sum().backward()  # begun before
    assert x.grad is not None
    model(x)  # moves the running values, which a plain layer goes by
    moved = model.eval()(x)
    assert not torch.allclose(moved, before)
    torch.testing.assert_close(frozen(model)(x), moved)


@pytest.mark.parametrize("learns", [{"weight"}, {"bias"}, {"weight", "bias"}])
def test_a_layer_that_is_to_learn_learns(learns: set[str]) -> None:
    model = frozen(layer())
    for name in learns:
        getattr(model, name).requires_grad_(True)
    model(pictures()).square().sum().backward()
    assert {name for name, one in model.named_parameters() if one.grad is not None and one.grad.any()} == learns


def test_other_weights_are_seen_once_they_are_loaded() -> None:
    model, other = frozen(nn.Sequential(layer())), nn.Sequential(nn.BatchNorm2d(5)).eval()
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model(pictures()), other(pictures()))
    with torch.no_grad():
        model[0].bias.add_(1)
        other[0].bias.add_(1)
    torch.testing.assert_close(frozen(model)(pictures()), other(pictures()))


def test_a_map_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="4D"):
        frozen(layer())(torch.zeros(5, 8, 8))


def test_other_layers_stay_as_they_are() -> None:
    class Derived(nn.BatchNorm2d):
        """As libraries have them, with more in it than batch norm."""

    without_bias = nn.BatchNorm2d(5)
    without_bias.bias = None  # type: ignore[assignment]
    kept = [Derived(5), nn.BatchNorm2d(5, affine=False), nn.BatchNorm2d(5, track_running_stats=False), without_bias]
    before = [type(module) for module in kept]
    model = frozen(nn.Sequential(*kept))
    assert [type(module) for module in model] == before
    assert not model.training


def network(name: str) -> nn.Module:
    return nets.build(name, classes=10, image_size=16, seed=0).eval()


def small_pictures() -> torch.Tensor:
    return torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", nets.networks())
@torch.no_grad()
def test_the_same_function_in_either_format(name: str) -> None:
    model, x = network(name), small_pictures()
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


@torch.no_grad()
def test_half_precision_is_close_and_kept_by_a_copy() -> None:
    x, exact = small_pictures(), placed(network("resnet18"), CPU)
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
