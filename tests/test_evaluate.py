"""Small parts of the judging stage: when the test set is looked at, what labels cost, how scores are put together."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edc.stages.evaluate import label_bytes, soft_targets, summary, validation_epochs
from edc.config.rows import Dataset, EvaluateRow
from edc.training.students import Student


@given(st.one_of(st.integers(1, 30), st.integers(1, 1000)), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_the_last_epoch_is_always_looked_at(epochs: int, count: int) -> None:
    looks = sorted(validation_epochs(epochs, count))
    assert looks[-1] == epochs - 1
    assert looks[0] >= 0
    assert len(looks) == min(epochs, count)
    gaps = np.diff([-1, *looks])
    assert gaps.max() - gaps.min() <= 1  # evenly spread


@pytest.mark.parametrize(
    ("epochs", "count", "looks"),
    [
        (300, 10, [29, 59, 89, 119, 149, 179, 209, 239, 269, 299]),
        (10, 3, [3, 6, 9]),
        (5, 1, [4]),
        (1, 10, [0]),
        (3, 10, [0, 1, 2]),
    ],
)
def test_when_the_test_set_is_looked_at(epochs: int, count: int, looks: list[int]) -> None:
    assert sorted(validation_epochs(epochs, count)) == looks


@given(st.integers(1, 500), st.integers(1, 500), st.integers(2, 1000))
@settings(max_examples=100, deadline=None)
def test_label_bytes(epochs: int, images: int, classes: int) -> None:
    shape = [epochs, images, classes]
    assert label_bytes("soft", shape) == 2 * epochs * images * classes
    assert label_bytes("static", shape) == 2 * images * classes
    # A class index in the fewest whole bytes.
    assert label_bytes("hard", shape) == images * max(1, math.ceil((classes - 1).bit_length() / 8))


def test_label_bytes_at_the_edges() -> None:
    assert [label_bytes("hard", [1, 1, k]) for k in (2, 256, 257, 65536, 65537)] == [1, 1, 2, 2, 3]


def test_soft_targets_of_every_regime() -> None:
    stored = np.arange(2 * 3 * 4, dtype=np.float16).reshape(2, 3, 4)
    cpu = torch.device("cpu")
    soft = soft_targets(stored, "soft", 1, cpu)
    assert soft is not None
    assert soft.dtype == torch.float16
    assert torch.equal(soft, torch.from_numpy(stored[1]))
    fixed = soft_targets(stored[0], "static", 1, cpu)
    assert fixed is not None
    assert torch.equal(fixed, torch.from_numpy(stored[0]))
    assert soft_targets(stored, "hard", 1, cpu) is None


def students(*accuracies: list[float | None]) -> list[Student]:
    dataset = Dataset(name="d", family="d", kind="digits", image_size=8, channels=1, classes=3, mean=[0.5], std=[0.5])
    row: dict[str, Any] = {
        "dataset": "d",
        "recipe": "r",
        "ipc": 1,
        "student": "convnet_w32",
        "protocol": "p",
        "regime": "soft",
        "images": "i",
        "labels": "l",
        "seeds": [0],
        "epochs": 3,
        "batch": 3,
        "optimiser": {"name": "sgd", "lr": 0.1},
        "schedule": {"name": "constant"},
    }
    found = []
    for seed, values in enumerate(accuracies):
        student = Student(seed, EvaluateRow.model_validate(row), dataset, torch.device("cpu"))
        student.history = [[epoch, 0.1, 1.0, value] for epoch, value in enumerate(values)]
        found.append(student)
    return found


def test_summary_of_several_seeds() -> None:
    found = summary(students([None, 70.0, 60.0], [None, 50.0, 55.0], [80.0, None, 62.0]))
    assert found["final"] == [60.0, 55.0, 62.0]
    assert found["best"] == [70.0, 55.0, 80.0]
    for name in ("final", "best"):
        assert found[f"{name}_mean"] == pytest.approx(np.mean(found[name]))
        assert found[f"{name}_std"] == pytest.approx(statistics.stdev(found[name]))
        assert found[f"{name}_std"] == pytest.approx(np.std(found[name], ddof=1))


def test_summary_of_one_seed_has_no_deviation() -> None:
    found = summary(students([10.0, None, 12.5]))
    assert (found["final_mean"], found["final_std"], found["best_std"]) == (12.5, None, None)
