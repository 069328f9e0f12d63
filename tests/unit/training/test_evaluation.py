"""When students are evaluated, what labels cost, how the scores of several seeds are summed up."""

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edc.training.evaluation import accuracy_scores, validation_epochs
from edc.training.sources import label_bytes, soft_targets


@given(st.one_of(st.integers(1, 30), st.integers(1, 1000)), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_evaluated_epochs_are_evenly_spread_and_end_with_the_last(epochs: int, count: int) -> None:
    evaluated = sorted(validation_epochs(epochs, count))
    assert evaluated[-1] == epochs - 1
    assert len(evaluated) == min(epochs, count)
    gaps = np.diff([-1, *evaluated])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("epochs", "count", "evaluated"),
    [(300, 10, [29, 59, 89, 119, 149, 179, 209, 239, 269, 299]), (10, 3, [3, 6, 9]), (5, 1, [4]), (3, 10, [0, 1, 2])],
)
def test_evaluated_epochs(epochs: int, count: int, evaluated: list[int]) -> None:
    assert sorted(validation_epochs(epochs, count)) == evaluated


@given(st.integers(1, 500), st.integers(1, 500), st.integers(2, 1000))
@settings(max_examples=100, deadline=None)
def test_label_bytes(epochs: int, images: int, classes: int) -> None:
    shape = [epochs, images, classes]
    assert label_bytes("soft", shape) == 2 * epochs * images * classes
    assert label_bytes("static", shape) == 2 * images * classes
    # A class index in the fewest whole bytes.
    assert label_bytes("hard", shape) == images * max(1, math.ceil((classes - 1).bit_length() / 8))


def test_bytes_of_hard_labels_at_the_edges() -> None:
    assert [label_bytes("hard", [1, 1, k]) for k in (2, 256, 257, 65536, 65537)] == [1, 1, 2, 2, 3]


def test_soft_targets_of_every_regime() -> None:
    stored = np.arange(2 * 3 * 4, dtype=np.float16).reshape(2, 3, 4)
    cpu = torch.device("cpu")
    for targets, regime, expected in ((stored, "soft", stored[1]), (stored[0], "static", stored[0])):
        result = soft_targets(targets, regime, 1, cpu)
        assert result is not None
        assert result.dtype == torch.float16
        assert torch.equal(result, torch.from_numpy(expected))
    assert soft_targets(stored, "hard", 1, cpu) is None


def test_scores_of_several_seeds() -> None:
    scores = accuracy_scores([[70.0, 60.0], [50.0, 55.0], [80.0, 62.0]])
    assert scores["final"] == [60.0, 55.0, 62.0]
    assert scores["best"] == [70.0, 55.0, 80.0]
    for name in ("final", "best"):
        assert scores[f"{name}_mean"] == pytest.approx(np.mean(scores[name]))
        assert scores[f"{name}_std"] == pytest.approx(statistics.stdev(scores[name]))


def test_scores_of_one_seed_have_no_deviation() -> None:
    scores = accuracy_scores([[10.0, 12.5]])
    assert (scores["final_mean"], scores["final_std"], scores["best_std"]) == (12.5, None, None)
