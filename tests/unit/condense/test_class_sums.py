"""The targets of matching: sums over the training images against brute-force loops."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.layers import class_sums
from torch import Tensor, nn

from edc.condense.layer_statistics import Hook, StatisticsCollector
from edc.storage import read_tensors, write_tensors


def collector(side: int = 6) -> StatisticsCollector:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 1, 1))
    return StatisticsCollector(network.eval(), 4, (2, side, side))


def parts(hook: Hook) -> list[tuple[slice, slice]]:
    """Where a layer's means and the variances that belong to them lie."""
    result, start = [], hook.start
    for length in hook.lengths[::2]:
        result.append((slice(start, start + length), slice(start + length, start + 2 * length)))
        start += 2 * length
    return result


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
    collector_ = collector()
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
    collector_ = collector()
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
    for hook in collector_.hooks:
        for means, variances in parts(hook):
            assert torch.equal(mixture[:, means], within[:, means])
            assert (mixture[:, variances] >= within[:, variances]).all()
    assert torch.equal(sums.result("within")[1], within)


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_sums_resume_from_a_checkpoint(stop: int, tmp_path: Path) -> None:
    collector_ = collector()
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
