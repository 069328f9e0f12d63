"""Statistics of watched layers: values, gradients and geometry, against plain formulas."""

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.layers import close, random_normal, relative_difference, small_network
from torch import Tensor, nn

from edc import nets
from edc.bench.reference import Oracle, plain_statistics
from edc.condense.layer_statistics import StatisticsCollector, running_statistics
from edc.config.choices import Match
from edc.nets.placing import placed


def watched(x: Tensor, patch: int) -> StatisticsCollector:
    """A single layer that sees x: a convolution, or a batch norm where ``patch`` is 0."""
    layer: nn.Module = nn.Conv2d(x.shape[1], 1, 1) if patch else nn.BatchNorm2d(x.shape[1])
    return StatisticsCollector(layer.eval().requires_grad_(False), patch or 1, x.shape[1:])


def batch_statistics(x: Tensor, patch: int) -> Tensor:
    return watched(x, patch)(x)[1]


def image_statistics(x: Tensor, patch: int) -> Tensor:
    return watched(x, patch)(x, groups=len(x))[1]


def assert_plain(x: Tensor, patch: int, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Statistics of a map and their gradient are those of plain formulas in float64."""
    x.requires_grad_()
    result = batch_statistics(x, patch)
    cotangent = random_normal(len(result), seed=1)
    result.backward(cotangent)
    y = x.detach().double().requires_grad_()
    expected = torch.cat(plain_statistics(y, patch))
    expected.backward(cotangent.double())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=rtol, atol=atol)
    assert relative_difference(x.grad, y.grad) < rtol


@pytest.mark.parametrize(
    ("shape", "patch"),
    [
        ((2, 3, 8, 8), 0),
        ((2, 3, 8, 8), 4),
        ((4, 2, 16, 16), 4),
        ((3, 2, 6, 6), 4),
        ((2, 3, 5, 7), 4),
        ((2, 4, 1, 1), 4),
        ((1, 4, 1, 1), 0),
        ((1, 2, 4, 4), 4),
        ((2, 3, 14, 14), 16),
        ((2, 3, 16, 16), 16),
        ((2, 2, 28, 28), 16),
    ],
)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_batch_statistics_and_gradient(shape: tuple[int, ...], patch: int, order: torch.memory_format) -> None:
    assert_plain((1.5 * random_normal(*shape) + 0.7).contiguous(memory_format=order), patch)


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12),
    st.sampled_from([0, 3, 4, 16]), st.booleans(), st.integers(0, 99),
)  # fmt: skip
@example(2, 2, 2, 28, 28, 16, True, 0)  # too large to be resized by one product
@example(2, 2, 2, 28, 28, 16, False, 0)
@settings(max_examples=60, deadline=None)
def test_groups_and_memory_order_change_nothing(
    groups: int, n: int, channels: int, height: int, width: int, patch: int, last: bool, seed: int
) -> None:
    """Each group's statistics and gradient are those of the group alone, however its maps lie in memory."""
    x = random_normal(groups * n, channels, height, width, seed=seed) + 0.5
    order = torch.channels_last if last else torch.contiguous_format
    together = x.detach().clone(memory_format=order).requires_grad_()
    alone = x.clone().requires_grad_()
    _, result = watched(x, patch)(together, groups=groups)
    expected = torch.stack([batch_statistics(part, patch) for part in alone.split(n)])
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    cotangent = random_normal(*result.shape, seed=1)
    result.backward(cotangent)
    expected.backward(cotangent)
    torch.testing.assert_close(together.grad, alone.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_statistics_of_some_of_a_maps_channels(order: torch.memory_format) -> None:
    """What ShuffleNet hands on: a slice, which lies in neither order by itself."""
    whole = random_normal(3, 6, 5, 7).contiguous(memory_format=order)
    x, y = whole.clone(memory_format=order).requires_grad_(), whole.clone().requires_grad_()
    result, expected = batch_statistics(x[:, 2:5], 4), batch_statistics(y[:, 2:5].contiguous(), 4)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
    cotangent = random_normal(len(result), seed=1)
    result.backward(cotangent)
    expected.backward(cotangent)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-6)


def test_statistics_of_channels_far_from_zero() -> None:
    """Sums of squares lose digits as the square of mean / deviation: at 10 they must still be good."""
    x = random_normal(8, 3, 8, 8) + torch.tensor([10.0, -10.0, 3.0])[:, None, None]
    assert_plain(x, 4, rtol=1e-4, atol=0)


def test_variance_of_a_constant_map_is_zero() -> None:
    x = torch.full((3, 2, 8, 8), 1 / 3, requires_grad=True)
    result = batch_statistics(x, 4)
    assert (result >= 0).all()
    close(result, [1 / 3] * 2 + [0] * 2 + [1 / 3] * 4 + [0] * 4, rtol=0, atol=1e-6)
    result.sum().backward()
    assert x.grad.isfinite().all()


@given(
    st.integers(1, 5), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.sampled_from([0, 3, 4, 16]),
    st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_images_means_and_their_spread_make_the_batch(
    n: int, channels: int, height: int, width: int, patch: int, seed: int
) -> None:
    """Statistics of images on their own lead to those of the batch: the law the statistics pass is built on."""
    x = random_normal(n, channels, height, width, seed=seed) + 0.5
    single = image_statistics(x, patch)
    expected = batch_statistics(x, patch)
    result = single.mean(0)
    start = 0
    for length in [channels, (result.numel() - 2 * channels) // 2] if patch else [channels]:
        result[start + length : start + 2 * length] += single[:, start : start + length].var(0, correction=0)
        start += 2 * length
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


# Length of the vector of EDC's observers, at 32 and 64 pixels with cells of 4, at 224 pixels with cells of 16.
SIZES = {
    (4, 32): {
        "resnet18": 18388, "convnet_w128": 686, "mobilenet_v2_half": 34798, "wrn_16_2": 4830,
        "shufflenet_v2_05": 15390, "convnet_d1": 134, "convnet_d2": 422, "convnet_w32": 302,
    },
    (4, 64): {
        "resnet18": 21694, "convnet_w128": 1190, "mobilenet_v2_half": 36580, "wrn_16_2": 8454,
        "shufflenet_v2_05": 18966,
    },
    (16, 224): {
        "torchvision:resnet18": 17926, "torchvision:mobilenet_v2": 66782, "torchvision:efficientnet_b0": 101310,
        "torchvision:shufflenet_v2_x0_5": 14874, "torchvision:alexnet": 2204,
    },
}  # fmt: skip


@pytest.mark.parametrize(("patch", "side", "name"), [(*key, name) for key, sizes in SIZES.items() for name in sizes])
def test_measured_layers(patch: int, side: int, name: str) -> None:
    network, size = nets.build(name, classes=10, image_size=side, seed=0).eval(), SIZES[patch, side][name]
    collector = StatisticsCollector(network, patch, (3, side, side))
    assert collector.size == size
    order = [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    assert [hook.name for hook in collector.hooks] == order
    assert collector.hooks[0].kind == "conv"
    assert collector.hooks[0].channels == 3
    for one, other in pairwise(collector.hooks):
        assert other.start == one.start + one.size
    assert collector.hooks[-1].start + collector.hooks[-1].size == size


def test_the_collector_measures_every_layer() -> None:
    network = small_network()
    collector = StatisticsCollector(network, 4, (3, 8, 8))
    x = random_normal(3, 3, 8, 8)
    logits, statistics = collector(x)
    oracle = Oracle(copy.deepcopy(network).double(), 4, Match(), statistics, statistics[None])
    torch.testing.assert_close(logits.double(), oracle.network(x.double()), rtol=1e-5, atol=1e-6)
    expected = torch.cat([s for result in oracle.statistics(x.double())[1] for s in result])
    torch.testing.assert_close(statistics.double(), expected, rtol=1e-5, atol=1e-5)

    skip = {0, 4}
    _, partly = collector(x, skip)
    for i, hook in enumerate(collector.hooks):
        part = slice(hook.start, hook.start + hook.size)
        assert torch.equal(partly[part], torch.zeros(hook.size) if i in skip else statistics[part])
    assert torch.equal(collector.layout.vector(*collector.moments(x)), collector(x, groups=3)[1])


def test_statistics_of_a_network_in_half_precision_are_those_of_its_maps() -> None:
    """Its maps have few digits; their sums have all of float32's, also where maps are resized by a product."""
    network = placed(small_network(), torch.device("cpu"), torch.bfloat16)
    collector, x = StatisticsCollector(network, 4, (3, 8, 8)), random_normal(3, 3, 8, 8)
    seen: list[tuple[Tensor, int]] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            cell = 4 if isinstance(layer, nn.Conv2d) else 0
            layer.register_forward_pre_hook(lambda _, given, cell=cell: seen.append((given[0].double(), cell)))
    _, result = collector(x)
    expected = torch.cat([part for maps, cell in seen for part in plain_statistics(maps, cell)])
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)


def test_passes_for_logits_collect_nothing() -> None:
    network = small_network()
    collector = StatisticsCollector(network, 4, (3, 8, 8))
    x = random_normal(2, 3, 8, 8).requires_grad_()
    logits, _ = collector(x)
    averaged_logits = collector.logits(x)
    assert not averaged_logits.requires_grad
    assert torch.equal(averaged_logits, logits)
    assert collector._measured == {}
    collector.close()
    network(x)
    assert collector._measured == {}


def test_running_statistics_replace_those_of_batch_norms() -> None:
    network = small_network()
    collector = StatisticsCollector(network, 4, (3, 8, 8))
    vector = random_normal(collector.size)
    result = running_statistics(network, collector.hooks, vector)
    modules = dict(network.named_modules())
    for hook in collector.hooks:
        part = slice(hook.start, hook.start + hook.size)
        layer = modules[hook.name]
        expected = torch.cat([layer.running_mean, layer.running_var]) if hook.kind == "bn" else vector[part]
        assert torch.equal(result[part], expected)
