"""Statistics of layers and the loss that matches them, against golden cases and a plain autograd oracle."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edc import nets
from edc.choices import Match
from edc.matching import StatisticsMatcher, skipped_hooks, swapped_cells
from edc.moments import grid, to_grid
from edc.nets.placing import placed
from edc.oracle import Oracle, plain_statistics
from edc.statistics import ClassSums
from edc.watching import Hook, Watcher, running_statistics

LOSS = {"rtol": 0, "atol": 1e-4}
EMA = {"rtol": 0, "atol": 1e-6}
CONV_CASES = {
    "conv_hook_patch4_8x8": (8, 0.8),
    "conv_hook_patch4_6x6_resized_to_8": (6, 0.8),
    "conv_hook_patch4_8x8_m0": (8, 0.0),
}


def close(found: Tensor, expected: Any, **tolerance: float) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), **tolerance)


def random_normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_network(seed: int = 0, channels: int = 3) -> nn.Module:
    """Convolutions and batch norms of several widths, with running statistics that are not the defaults."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(channels, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.Conv2d(5, 4, 3, stride=2, bias=False),  # an odd map that has to be resized
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 6, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 3, 1),  # a 1 x 1 map
            nn.Flatten(),
        )
        network(torch.randn(16, channels, 8, 8))
    return network.eval()


def random_targets(watcher: Watcher, classes: int, seed: int = 7) -> tuple[Tensor, Tensor]:
    return random_normal(watcher.size, seed=seed).abs(), random_normal(classes, watcher.size, seed=seed + 1).abs()


def relative_difference(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


# -------------------------------------------------------------------------------------------- statistics


def watched(x: Tensor, patch: int) -> Watcher:
    """A single layer that sees x: a convolution, or a batch norm where ``patch`` is 0."""
    layer: nn.Module = nn.Conv2d(x.shape[1], 1, 1) if patch else nn.BatchNorm2d(x.shape[1])
    return Watcher(layer.eval().requires_grad_(False), patch or 1, x.shape[1:])


def batch_statistics(x: Tensor, patch: int) -> Tensor:
    return watched(x, patch)(x)[1]


def image_statistics(x: Tensor, patch: int) -> Tensor:
    return watched(x, patch)(x, groups=len(x))[1]


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
    x = (1.5 * random_normal(*shape) + 0.7).contiguous(memory_format=order).requires_grad_()
    found = batch_statistics(x, patch)
    cotangent = random_normal(len(found), seed=1)
    found.backward(cotangent)

    y = x.detach().double().requires_grad_()
    expected = torch.cat(plain_statistics(y, patch))
    expected.backward(cotangent.double())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert relative_difference(x.grad, y.grad) < 1e-5


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
    _, found = watched(x, patch)(together, groups=groups)
    expected = torch.stack([batch_statistics(part, patch) for part in alone.split(n)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    cotangent = random_normal(*found.shape, seed=1)
    found.backward(cotangent)
    expected.backward(cotangent)
    torch.testing.assert_close(together.grad, alone.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_statistics_of_some_of_a_maps_channels(order: torch.memory_format) -> None:
    """What ShuffleNet hands on: a slice, which lies in neither order by itself."""
    whole = random_normal(3, 6, 5, 7).contiguous(memory_format=order)
    x, y = whole.clone(memory_format=order).requires_grad_(), whole.clone().requires_grad_()
    found, expected = batch_statistics(x[:, 2:5], 4), batch_statistics(y[:, 2:5].contiguous(), 4)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    cotangent = random_normal(len(found), seed=1)
    found.backward(cotangent)
    expected.backward(cotangent)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-6)


def test_statistics_of_channels_far_from_zero() -> None:
    """Sums of squares lose digits as the square of mean / deviation: at 10 they must still be good."""
    x = (random_normal(8, 3, 8, 8) + torch.tensor([10.0, -10.0, 3.0])[:, None, None]).requires_grad_()
    found = batch_statistics(x, 4)
    cotangent = random_normal(len(found), seed=1)
    found.backward(cotangent)
    y = x.detach().double().requires_grad_()
    expected = torch.cat(plain_statistics(y, 4))
    expected.backward(cotangent.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)
    assert relative_difference(x.grad, y.grad) < 1e-4


def test_variance_of_a_constant_map_is_zero() -> None:
    x = torch.full((3, 2, 8, 8), 1 / 3, requires_grad=True)
    found = batch_statistics(x, 4)
    assert (found[2:4] >= 0).all()
    assert (found[8:] >= 0).all()
    close(found, [1 / 3] * 2 + [0] * 2 + [1 / 3] * 4 + [0] * 4, rtol=0, atol=1e-6)
    found.sum().backward()
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
    found = single.mean(0)
    start = 0
    for length in [channels, (found.numel() - 2 * channels) // 2] if patch else [channels]:
        found[start + length : start + 2 * length] += single[:, start : start + length].var(0, correction=0)
        start += 2 * length
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_image_statistics_are_those_of_batches_of_one() -> None:
    x = random_normal(4, 3, 6, 6)
    found = image_statistics(x, 4)
    expected = torch.stack([torch.cat(plain_statistics(image[None].double(), 4)) for image in x])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_patch_geometry(golden: dict[str, Any]) -> None:
    geometry = golden["patch_geometry"]
    for patch in (4, 16):
        for side, cells in geometry[f"n_cells_at_P{patch}"].items():
            rows, columns = grid(int(side), int(side), patch)
            assert (rows // patch) * (columns // patch) == cells
            network = nn.Conv2d(1, 1, 1)
            assert Watcher(network, patch, (1, int(side), int(side))).hooks[0].cells == cells
        for side, padded in geometry[f"ceil{patch}"].items():
            assert grid(int(side), int(side), patch) == (padded, padded)
            assert to_grid(torch.zeros(1, 1, int(side), int(side)), patch).shape[-2:] == (padded, padded)
    x = random_normal(1, 1, 8, 8)
    assert to_grid(x, 4) is x


# ----------------------------------------------------------------------------------------------- watcher


# Layers and length of the vector of EDC's observers at 32 pixels with cells of 4.
@pytest.mark.parametrize(
    ("name", "convolutions", "norms", "size"),
    [
        ("resnet18", 20, 20, 18388),
        ("convnet_w128", 3, 0, 686),
        ("mobilenet_v2_half", 53, 53, 34798),
        ("wrn_16_2", 16, 13, 4830),
        ("shufflenet_v2_05", 56, 56, 15390),
        ("convnet_d1", 1, 0, 134),
        ("convnet_d2", 2, 0, 422),
        ("convnet_w32", 3, 0, 302),
    ],
)
def test_what_is_watched(name: str, convolutions: int, norms: int, size: int) -> None:
    network = nets.build(name, classes=10, image_size=32, seed=0).eval()
    watcher = Watcher(network, 4, (3, 32, 32))
    kinds = [hook.kind for hook in watcher.hooks]
    assert (kinds.count("conv"), kinds.count("bn"), watcher.size) == (convolutions, norms, size)
    order = [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    assert [hook.name for hook in watcher.hooks] == order
    assert watcher.hooks[0].kind == "conv"
    assert watcher.hooks[0].channels == 3
    for one, other in pairwise(watcher.hooks):
        assert other.start == one.start + one.size
    assert watcher.hooks[-1].start + watcher.hooks[-1].size == size


def test_watcher_collects_every_layer() -> None:
    network = small_network()
    watcher = Watcher(network, 4, (3, 8, 8))
    x = random_normal(3, 3, 8, 8)
    logits, statistics = watcher(x)
    oracle = Oracle(copy.deepcopy(network).double(), 4, Match(), statistics, statistics[None])
    torch.testing.assert_close(logits.double(), oracle.network(x.double()), rtol=1e-5, atol=1e-6)
    expected = torch.cat([s for found in oracle.statistics(x.double())[1] for s in found])
    torch.testing.assert_close(statistics.double(), expected, rtol=1e-5, atol=1e-5)

    skip = {0, 4}
    _, partly = watcher(x, skip)
    for i, hook in enumerate(watcher.hooks):
        part = slice(hook.start, hook.start + hook.size)
        assert torch.equal(partly[part], torch.zeros(hook.size) if i in skip else statistics[part])


def test_watching_every_image() -> None:
    network = small_network()
    x = random_normal(3, 3, 8, 8)
    watcher = Watcher(network, 4, (3, 8, 8))
    _, single = watcher(x, groups=3)
    assert torch.equal(watcher.layout.vector(*watcher.moments(x)), single)
    batch = Watcher(copy.deepcopy(network), 4, (3, 8, 8))
    for image, row in zip(x, single, strict=True):
        torch.testing.assert_close(row, batch(image[None])[1], rtol=1e-5, atol=1e-6)


def test_statistics_of_a_network_in_half_precision_are_those_of_its_maps() -> None:
    """Its maps have few digits; their sums have all of float32's, also where maps are resized by a product."""
    network = placed(small_network(), torch.device("cpu"), torch.bfloat16)
    watcher, x = Watcher(network, 4, (3, 8, 8)), random_normal(3, 3, 8, 8)
    seen: list[tuple[Tensor, int]] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            cell = 4 if isinstance(layer, nn.Conv2d) else 0
            layer.register_forward_pre_hook(lambda _, given, cell=cell: seen.append((given[0].double(), cell)))
    _, found = watcher(x)
    expected = torch.cat([part for maps, cell in seen for part in plain_statistics(maps, cell)])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_quiet_passes_collect_nothing() -> None:
    network = small_network()
    watcher = Watcher(network, 4, (3, 8, 8))
    x = random_normal(2, 3, 8, 8).requires_grad_()
    logits, _ = watcher(x)
    quiet = watcher.logits(x)
    assert not quiet.requires_grad
    assert torch.equal(quiet, logits)
    assert watcher._measured == {}
    watcher.close()
    network(x)
    assert watcher._measured == {}


def test_running_statistics_replace_those_of_batch_norms() -> None:
    network = small_network()
    watcher = Watcher(network, 4, (3, 8, 8))
    vector = random_normal(watcher.size)
    found = running_statistics(network, watcher.hooks, vector)
    modules = dict(network.named_modules())
    for hook in watcher.hooks:
        part = slice(hook.start, hook.start + hook.size)
        layer = modules[hook.name]
        expected = torch.cat([layer.running_mean, layer.running_var]) if hook.kind == "bn" else vector[part]
        assert torch.equal(found[part], expected)


# ---------------------------------------------------------------------------------------- golden matching


def batch_norm_case(config: dict[str, Any], momentum: float, alpha: float = 0.5) -> tuple[Watcher, StatisticsMatcher]:
    """One batch norm whose running statistics are the global target."""
    layer = nn.BatchNorm2d(2).eval()
    layer.running_mean.copy_(torch.tensor(config["Tm"]))
    layer.running_var.copy_(torch.tensor(config["Tv"]))
    watcher = Watcher(layer, 4, (2, 2, 2))
    everything = running_statistics(layer, watcher.hooks, torch.zeros(watcher.size))
    table = torch.cat([torch.tensor(config["Cm"]), torch.tensor(config["Cv"])], dim=1)
    choices = Match(alpha=alpha, ema=momentum, ema_init="zero", first_hook=1)
    matcher = StatisticsMatcher(watcher.hooks, choices, everything, table)
    matcher.start_group(torch.tensor(config["targets"]))
    return watcher, matcher


@pytest.mark.parametrize("momentum", [0.8, 0.0])
def test_golden_batch_norm(momentum: float, golden: dict[str, Any]) -> None:
    watcher, matcher = batch_norm_case(golden["bn_hook_global"]["config"], momentum)
    visits = golden["bn_hook_global"][f"m={momentum}"]
    assert len(visits) == (2 if momentum else 1)
    for visit in visits:
        x = torch.tensor(visit["x"], requires_grad=True)
        _, statistics = watcher(x)
        loss = matcher(statistics)
        loss.backward()
        close(statistics.detach(), visit["batch_mean"] + visit["batch_var_biased"], **EMA)
        close(matcher.running, visit["ema_mean_after"] + visit["ema_var_after"], **EMA)
        close(loss.detach(), visit["loss"], **LOSS)
        close(x.grad, visit["grad_x"], **LOSS)


@pytest.mark.parametrize("index", [0, 1])
def test_golden_mixes_of_global_and_class_target(index: int, golden: dict[str, Any]) -> None:
    case = golden["soft_category_aware_forms_on_bn_case"][index]
    config, visits = golden["bn_hook_global"]["config"], golden["bn_hook_global"][f"m={case['momentum']}"]
    x = torch.tensor(visits[case["visit"] - 1]["x"])
    mixes = case["alpha_mix(alpha*form1+(1-alpha)*form2)"]
    assert len(mixes) == 5
    forms = [(1.0, case["form1"]), (0.0, case["form2"])]
    for alpha, expected in [(float(share), value) for share, value in mixes.items()] + forms:
        watcher, matcher = batch_norm_case(config, case["momentum"], alpha)
        close(matcher(watcher(x)[1]), expected, **LOSS)


def wave(side: int, offset: float) -> Tensor:
    a = torch.arange(4 * side * side, dtype=torch.float32).view(2, 2, side, side)
    return torch.sin(0.37 * a + offset) + a / (4 * side * side)


@pytest.mark.parametrize("name", CONV_CASES)
def test_golden_convolution(name: str, golden: dict[str, Any]) -> None:
    golden = golden[name]
    side, momentum = CONV_CASES[name]
    layer = nn.Conv2d(2, 1, 1)
    per_image = Watcher(layer, 4, (2, side, side))
    sums = ClassSums(per_image.layout, 2, torch.device("cpu"))
    with torch.no_grad():
        for offset, labels in golden["real_batches"]:
            sums.add(*per_image.moments(wave(side, offset)), torch.tensor(labels))
    per_image.close()
    everything, table = sums.result("within")
    assert int(sums.counts.sum()) == golden["data_number"]

    names = ("dd_mean", "dd_var", "patch_mean", "patch_var")
    close(everything, [v for n in names for v in golden["global_stats"][n]], **EMA)
    for c, stats in golden["class_stats_in_memory"].items():
        close(table[int(c)], [v for n in names for v in stats[n]], **EMA)
    watcher = Watcher(layer, 4, (2, side, side))
    swapped = table[:, swapped_cells(watcher.hooks)]
    for c, stats in golden["class_patch_stats_after_official_save_load(SWAPPED)"].items():
        close(swapped[int(c), 4:], stats["patch_mean"] + stats["patch_var"], **EMA)
    assert torch.equal(swapped[:, :4], table[:, :4])

    for swap, suffix in ((False, "corrected"), (True, "official_swapped")):
        choices = Match(alpha=0.5, ema=momentum, ema_init="zero", first_hook=1, swap_class_patch=swap)
        matcher = StatisticsMatcher(watcher.hooks, choices, everything, table)
        matcher.start_group(torch.tensor([0, 1]))
        x = (0.7 * wave(side, 0.5)).requires_grad_()
        loss = matcher(watcher(x)[1])
        loss.backward()
        close(loss.detach(), golden[f"loss_{suffix}" + ("" if swap else "_unswapped")], **LOSS)
        close(x.grad.norm(), golden[f"grad_l2_{suffix}"], **LOSS)


# ------------------------------------------------------------------------------------------ matching loss


@pytest.mark.parametrize(
    "choices",
    [
        Match(),
        Match(alpha=1.0, ema=0.0),
        Match(alpha=0.0, ema=0.5, ema_init="zero"),
        Match(alpha=0.25, first_hook=0.0),
        Match(alpha=0.75, first_hook=1.0, swap_class_patch=True),
    ],
    ids=["default", "global", "class", "without_first", "swapped"],
)
def test_gradient_is_that_of_the_formula(choices: Match) -> None:
    network = small_network()
    watcher = Watcher(network, 4, (3, 8, 8))
    everything, table = random_targets(watcher, 4)
    matcher = StatisticsMatcher(watcher.hooks, choices, everything, table)
    oracle = Oracle(copy.deepcopy(network).double(), 4, choices, everything, table)
    labels = torch.tensor([0, 3, 3, 1])
    matcher.start_group(labels)
    for visit in range(3):
        x = random_normal(4, 3, 8, 8, seed=visit).requires_grad_()
        y = x.detach().double().requires_grad_()
        found, expected = matcher(watcher(x)[1]), oracle.visit(y, labels)[1]
        found.backward()
        expected.backward()
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
        assert relative_difference(x.grad, y.grad) < 1e-4


def test_gradient_with_skipped_layers() -> None:
    network = small_network()
    watcher = Watcher(network, 4, (3, 8, 8))
    choices = Match(ema=0.8, ema_init="zero")
    everything, table = random_targets(watcher, 2)
    matcher = StatisticsMatcher(watcher.hooks, choices, everything, table)
    oracle = Oracle(copy.deepcopy(network).double(), 4, choices, everything, table)
    labels = torch.tensor([0, 1])
    matcher.start_group(labels)
    for visit, skip in enumerate([{0, 4}, {2}, {0, 2}, set(), {2, 6}, set()]):
        x = random_normal(2, 3, 8, 8, seed=visit).requires_grad_()
        y = x.detach().double().requires_grad_()
        found, expected = matcher(watcher(x, skip)[1], skip), oracle.visit(y, labels, frozenset(skip))[1]
        found.backward()
        expected.backward()
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
        assert relative_difference(x.grad, y.grad) < 1e-4


def test_layer_skipped_at_first_starts_from_its_own_first_value() -> None:
    """With ema_init "first" a running value starts where its layer is first seen, not at zero."""
    hooks = [Hook("a", "conv", 0, 1, 1), Hook("b", "conv", 4, 1, 1)]
    matcher = StatisticsMatcher(hooks, Match(ema=0.8, ema_init="first"), torch.zeros(8), torch.zeros(1, 8))
    matcher.start_group(torch.tensor([0]))
    matcher(torch.tensor([1.0] * 4 + [0.0] * 4), {1})
    matcher(torch.tensor([1.0] * 4 + [3.0] * 4))
    close(matcher.running, [1.0] * 4 + [3.0] * 4)


@pytest.mark.parametrize("place", [lambda model: model, lambda model: placed(model, torch.device("cpu"))])
@pytest.mark.parametrize("name", nets.networks())
def test_gradient_through_the_zoo(name: str, place: Callable[[nn.Module], nn.Module]) -> None:
    network = nets.build(name, classes=4, image_size=16, seed=0).eval()
    for layer in network.modules():  # without statistics of their own, deep random networks die out or explode
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    network.train()
    with torch.no_grad():
        network(random_normal(4, 3, 16, 16, seed=5))
    network = place(network.eval().requires_grad_(False))
    watcher = Watcher(network, 4, (3, 16, 16))
    everything, table = random_targets(watcher, 4)
    oracle = Oracle(network, 4, Match(), everything, table)
    matcher = StatisticsMatcher(watcher.hooks, Match(), everything, table)
    labels = torch.tensor([1, 2])
    matcher.start_group(labels)
    x = random_normal(2, 3, 16, 16).requires_grad_()
    y = x.detach().clone().requires_grad_()
    found, expected = matcher(watcher(x)[1]), oracle.visit(y, labels)[1]
    found.backward()
    expected.backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    assert relative_difference(x.grad, y.grad) < 1e-5


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9))
@settings(max_examples=25, deadline=None)
def test_class_target_is_the_mean_of_the_images_rows(labels: list[int]) -> None:
    hooks = [Hook("a", "bn", 0, 3, 0)]
    table = random_normal(5, 6)
    matcher = StatisticsMatcher(hooks, Match(), torch.zeros(6), table)
    matcher.start_group(torch.tensor(labels))
    expected = sum(table[c] for c in labels) / len(labels)
    torch.testing.assert_close(matcher.class_target, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("distance", [0.0, 1e-30, 1e-24, 1e-6])
def test_gradient_stays_finite_where_a_target_is_met(distance: float) -> None:
    """No statistic may push harder than its weight, however near its target is; at the target it has no direction."""
    hooks = [Hook("stem", "conv", 0, 1, 1), Hook("norm", "bn", 4, 2, 0)]
    target = torch.full((8,), distance)
    matcher = StatisticsMatcher(hooks, Match(first_hook=10.0), target, target[None])
    matcher.start_group(torch.tensor([0]))
    statistics = torch.zeros(8, requires_grad=True)
    loss = matcher(statistics)
    loss.backward()
    assert loss.isfinite()
    assert float(loss.detach()) == pytest.approx(distance * (4 * 10 + 2 * 2**0.5), abs=1e-12, rel=1e-4)
    assert (statistics.grad[:4].abs() <= 10.001).all()
    assert (statistics.grad[4:].abs() <= 1.001).all()


def test_groups_forget_unless_told_otherwise() -> None:
    hooks = [Hook("a", "bn", 0, 1, 0)]
    matcher = StatisticsMatcher(hooks, Match(ema=0.5), torch.zeros(2), torch.zeros(1, 2))
    matcher.start_group(torch.tensor([0]))
    matcher(torch.tensor([1.0, 1.0]))
    matcher.start_group(torch.tensor([0]), forget=False)
    matcher(torch.tensor([3.0, 3.0]))
    close(matcher.running, [2.0, 2.0])
    matcher.start_group(torch.tensor([0]))
    matcher(torch.tensor([5.0, 5.0]))
    close(matcher.running, [5.0, 5.0])


def test_swapping_twice_changes_nothing() -> None:
    watcher = Watcher(small_network(), 4, (3, 8, 8))
    index = swapped_cells(watcher.hooks)
    assert torch.equal(index[index], torch.arange(watcher.size))
    for hook in watcher.hooks:
        mean, var, *cells = torch.arange(hook.start, hook.start + hook.size).split(hook.lengths)
        assert torch.equal(index[hook.start : hook.start + hook.size], torch.cat([mean, var, *cells[::-1]]))


def test_only_convolutions_are_skipped() -> None:
    hooks = [Hook(str(i), "conv" if i % 2 else "bn", 0, 1, 1) for i in range(2000)]
    assert skipped_hooks(hooks, 0.0, np.random.default_rng(0)) == set()
    assert skipped_hooks(hooks, 1.0, np.random.default_rng(0)) == set(range(1, 2000, 2))
    some = skipped_hooks(hooks, 0.4, np.random.default_rng(0))
    assert some < set(range(1, 2000, 2))
    assert 350 < len(some) < 450
