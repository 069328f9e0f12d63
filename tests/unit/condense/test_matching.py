"""The loss that matches statistics of layers, against golden cases and a plain autograd oracle."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.layers import close, random_normal, random_targets, relative_difference, small_network
from torch import Tensor, nn

from edc import nets
from edc.bench.reference import Oracle
from edc.condense.class_sums import ClassSums
from edc.condense.layer_statistics import Hook, StatisticsCollector, running_statistics
from edc.condense.matching import StatisticsMatcher, swapped_cells
from edc.config.choices import Match
from edc.nets.placing import placed

LOSS = {"rtol": 0, "atol": 1e-4}
EMA = {"rtol": 0, "atol": 1e-6}
CONV_CASES = {
    "conv_hook_patch4_8x8": (8, 0.8),
    "conv_hook_patch4_6x6_resized_to_8": (6, 0.8),
    "conv_hook_patch4_8x8_m0": (8, 0.0),
}


def batch_norm_case(
    config: dict[str, Any], momentum: float, alpha: float = 0.5
) -> tuple[StatisticsCollector, StatisticsMatcher]:
    """One batch norm whose running statistics are the global target."""
    layer = nn.BatchNorm2d(2).eval()
    layer.running_mean.copy_(torch.tensor(config["Tm"]))
    layer.running_var.copy_(torch.tensor(config["Tv"]))
    collector = StatisticsCollector(layer, 4, (2, 2, 2))
    everything = running_statistics(layer, collector.hooks, torch.zeros(collector.size))
    table = torch.cat([torch.tensor(config["Cm"]), torch.tensor(config["Cv"])], dim=1)
    choices = Match(alpha=alpha, ema=momentum, ema_init="zero", first_hook=1)
    matcher = StatisticsMatcher(collector.hooks, choices, everything, table)
    matcher.start_group(torch.tensor(config["targets"]))
    return collector, matcher


@pytest.mark.parametrize("momentum", [0.8, 0.0])
def test_golden_batch_norm(momentum: float, golden: dict[str, Any]) -> None:
    collector, matcher = batch_norm_case(golden["bn_hook_global"]["config"], momentum)
    visits = golden["bn_hook_global"][f"m={momentum}"]
    assert len(visits) == (2 if momentum else 1)
    for visit in visits:
        x = torch.tensor(visit["x"], requires_grad=True)
        _, statistics = collector(x)
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
        collector, matcher = batch_norm_case(config, case["momentum"], alpha)
        close(matcher(collector(x)[1]), expected, **LOSS)


def wave(side: int, offset: float) -> Tensor:
    a = torch.arange(4 * side * side, dtype=torch.float32).view(2, 2, side, side)
    return torch.sin(0.37 * a + offset) + a / (4 * side * side)


@pytest.mark.parametrize("name", CONV_CASES)
def test_golden_convolution(name: str, golden: dict[str, Any]) -> None:
    golden = golden[name]
    side, momentum = CONV_CASES[name]
    layer = nn.Conv2d(2, 1, 1)
    per_image = StatisticsCollector(layer, 4, (2, side, side))
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
    collector = StatisticsCollector(layer, 4, (2, side, side))
    swapped = table[:, swapped_cells(collector.hooks)]
    for c, stats in golden["class_patch_stats_after_official_save_load(SWAPPED)"].items():
        close(swapped[int(c), 4:], stats["patch_mean"] + stats["patch_var"], **EMA)
    assert torch.equal(swapped[:, :4], table[:, :4])

    for swap, suffix in ((False, "corrected"), (True, "official_swapped")):
        choices = Match(alpha=0.5, ema=momentum, ema_init="zero", first_hook=1, swap_class_patch=swap)
        matcher = StatisticsMatcher(collector.hooks, choices, everything, table)
        matcher.start_group(torch.tensor([0, 1]))
        x = (0.7 * wave(side, 0.5)).requires_grad_()
        loss = matcher(collector(x)[1])
        loss.backward()
        close(loss.detach(), golden[f"loss_{suffix}" + ("" if swap else "_unswapped")], **LOSS)
        close(x.grad.norm(), golden[f"grad_l2_{suffix}"], **LOSS)


SKIPPED = [{0, 4}, {2}, {0, 2}, set(), {2, 6}, set()]


@pytest.mark.parametrize(
    ("choices", "skips"),
    [
        (Match(), [set()] * 3),
        (Match(alpha=1.0, ema=0.0), [set()] * 3),
        (Match(alpha=0.0, ema=0.5, ema_init="zero"), [set()] * 3),
        (Match(alpha=0.25, first_hook=0.0), [set()] * 3),
        (Match(alpha=0.75, first_hook=1.0, swap_class_patch=True), [set()] * 3),
        (Match(ema=0.8, ema_init="zero"), SKIPPED),
    ],
    ids=["default", "global", "class", "without_first", "swapped", "skipped"],
)
def test_gradient_is_that_of_the_formula(choices: Match, skips: list[set[int]]) -> None:
    network = small_network()
    collector = StatisticsCollector(network, 4, (3, 8, 8))
    everything, table = random_targets(collector, 4)
    matcher = StatisticsMatcher(collector.hooks, choices, everything, table)
    oracle = Oracle(copy.deepcopy(network).double(), 4, choices, everything, table)
    labels = torch.tensor([0, 3, 3, 1])
    matcher.start_group(labels)
    for visit, skip in enumerate(skips):
        x = random_normal(4, 3, 8, 8, seed=visit).requires_grad_()
        y = x.detach().double().requires_grad_()
        result, expected = matcher(collector(x, skip)[1], skip), oracle.visit(y, labels, frozenset(skip))[1]
        result.backward()
        expected.backward()
        torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
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
    collector = StatisticsCollector(network, 4, (3, 16, 16))
    everything, table = random_targets(collector, 4)
    oracle = Oracle(network, 4, Match(), everything, table)
    matcher = StatisticsMatcher(collector.hooks, Match(), everything, table)
    labels = torch.tensor([1, 2])
    matcher.start_group(labels)
    x = random_normal(2, 3, 16, 16).requires_grad_()
    y = x.detach().clone().requires_grad_()
    result, expected = matcher(collector(x)[1]), oracle.visit(y, labels)[1]
    result.backward()
    expected.backward()
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-4)
    assert relative_difference(x.grad, y.grad) < 1e-5


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
    matcher.start_group(torch.tensor([0]), reset=False)
    matcher(torch.tensor([3.0, 3.0]))
    close(matcher.running, [2.0, 2.0])
    matcher.start_group(torch.tensor([0]))
    matcher(torch.tensor([5.0, 5.0]))
    close(matcher.running, [5.0, 5.0])


def test_swapping_twice_changes_nothing() -> None:
    collector = StatisticsCollector(small_network(), 4, (3, 8, 8))
    index = swapped_cells(collector.hooks)
    assert torch.equal(index[index], torch.arange(collector.size))
    for hook in collector.hooks:
        mean, var, *cells = torch.arange(hook.start, hook.start + hook.size).split(hook.lengths)
        assert torch.equal(index[hook.start : hook.start + hook.size], torch.cat([mean, var, *cells[::-1]]))
