"""The loss that matches statistics of layers, against golden cases and a plain autograd oracle."""

import copy
from collections.abc import Callable

import pytest
import torch
from support.layers import close, random_normal, random_targets, relative_difference, small_network
from torch import nn

from edc import nets
from edc.bench.reference import Oracle
from edc.condense.layer_statistics import Hook, StatisticsCollector
from edc.condense.matching import StatisticsMatcher
from edc.config.choices import Match
from edc.nets.placing import placed

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
