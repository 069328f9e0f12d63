"""The loss that matches statistics of layers against a plain autograd oracle, and its targets against loops."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.layers import class_sums, close, random_normal, random_targets, relative_difference, small_network
from torch import Tensor, nn

from edc import nets
from edc.bench.reference import Oracle
from edc.condense.layer_statistics import Hook, StatisticsCollector
from edc.condense.matching import StatisticsMatcher
from edc.config.choices import Match
from edc.nets.placing import placed
from edc.storage import read_tensors, write_tensors

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


def small_collector(side: int = 6) -> StatisticsCollector:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 1, 1))
    return StatisticsCollector(network.eval(), 4, (2, side, side))


def random_batches(sizes: list[int], classes: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    result = []
    for size in sizes:
        x = torch.randn(size, 2, 6, 6, generator=generator) + 0.5
        result.append((x, torch.randint(0, classes, (size,), generator=generator)))
    result[0][1][:classes] = torch.arange(classes)  # every class occurs
    return result


@given(st.lists(st.integers(1, 5), max_size=3), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_sums_are_those_of_loops(sizes: list[int], seed: int) -> None:
    collector_ = small_collector()
    batches = random_batches([3, *sizes], 3, seed)
    everything, table = class_sums(collector_, batches, 3).result("within")
    for c in range(3):
        rows = [collector_(x[i : i + 1])[1] for x, labels in batches for i in range(len(x)) if int(labels[i]) == c]
        expected = torch.stack(rows).double().mean(0)
        torch.testing.assert_close(table[c].double(), expected, rtol=1e-4, atol=1e-5)
    # The global vector is the mean of the batches' own statistics, weighted by their size.
    of_batches = StatisticsCollector(collector_.observer, 4, (2, 6, 6))
    with torch.no_grad():
        expected = sum(of_batches(x)[1].double() * len(x) for x, _ in batches) / sum(len(x) for x, _ in batches)
    torch.testing.assert_close(everything.double(), expected, rtol=1e-4, atol=1e-5)


def test_mixture_variance_is_that_of_all_pixels_of_a_class() -> None:
    collector_ = small_collector()
    batches = random_batches([5, 4, 6], 3, 3)
    sums = class_sums(collector_, batches, 3)
    _, within = sums.result("within")
    _, mixture = sums.result("mixture")
    whole = StatisticsCollector(collector_.observer, 4, (2, 6, 6))
    for c in range(3):
        members = torch.cat([x[labels == c] for x, labels in batches])
        with torch.no_grad():
            expected = whole(members)[1]
        torch.testing.assert_close(mixture[c], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(sums.result("within")[1], within)


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_sums_resume_from_a_checkpoint(stop: int, tmp_path: Path) -> None:
    collector_ = small_collector()
    batches = random_batches([5, 4, 6], 3, 5)
    expected = class_sums(collector_, batches, 3).result("mixture")
    before = class_sums(collector_, batches[:stop], 3)
    torch.save(before.state(), tmp_path / "sums.pt")
    after = class_sums(collector_, batches[1:], 3)  # whatever they hold, what is loaded replaces it
    after.load(torch.load(tmp_path / "sums.pt", weights_only=True))
    for x, labels in batches[stop:]:
        after.add(*collector_.moments(x), labels)
    for a, b in zip(after.result("mixture"), expected, strict=True):
        assert torch.equal(a, b)


def test_a_second_pass_does_not_add_to_the_first(tmp_path: Path, golden: dict[str, Any]) -> None:
    """The published code adds a pass to a file that is already there; here the file is replaced."""
    case = golden["double_count_when_global_file_preexists"]
    path = tmp_path / "observer.safetensors"
    write_tensors(path, {"global": torch.tensor([case["preexisting"]["dd_mean"], case["preexisting"]["dd_var"]])})
    layer = nn.BatchNorm2d(1).eval()  # one hook whose vector is [mean | variance]
    collector_ = StatisticsCollector(layer, 4, (1, 1, 2))
    batch = torch.tensor([0.0, 2.0]).view(1, 1, 1, 2), torch.tensor([0])
    for _ in range(2):
        everything, _ = class_sums(collector_, [batch], 1).result("within")
        write_tensors(path, {"global": everything})
        actual = read_tensors(path)["global"]
        assert actual.tolist() == pytest.approx([case["true_pass_mean"], case["true_pass_var"]], abs=1e-6)
        assert actual.tolist() != case["resulting_mean"] + case["resulting_var"]
