"""Quality of condensed sets: hand-made features, and NumPy beside random ones."""

import numpy as np
import pytest
import torch

from edc.condense.quality import class_quality, summary


def test_a_class_on_a_line() -> None:
    real = torch.tensor([[0.0, 1.0], [1.0, 1.0], [3.0, 1.0]])
    condensed = torch.tensor([[1.0, 1.0], [9.0, 1.0]])
    cosine, density, coverage, distance, between = class_quality(real, condensed, 1)
    assert cosine == pytest.approx(10 / np.sqrt(2 * 82))
    # Radii 1, 1 and 2: all three balls hold the first condensed image, none the second.
    assert (density, coverage) == (3 / 2, 1.0)
    assert (distance, between) == (3.0, pytest.approx(4 / 3))


def test_against_numpy() -> None:
    rng = np.random.default_rng(0)
    real, few, k = rng.normal(size=(30, 4)), 1 + rng.normal(size=(6, 4)), 5
    cosine, density, coverage, distance, between = class_quality(torch.tensor(real), torch.tensor(few), k)
    among = np.sort(np.linalg.norm(real[:, None] - real, axis=2), axis=1)
    across = np.linalg.norm(real[:, None] - few, axis=2)
    inside = across <= among[:, [k]]
    unit = few / np.linalg.norm(few, axis=1, keepdims=True)
    assert cosine == pytest.approx(np.mean((unit @ unit.T)[~np.eye(6, dtype=bool)]))
    assert (density, coverage) == (pytest.approx(inside.sum() / (k * 6)), pytest.approx(inside.any(axis=1).mean()))
    assert 0 < coverage < 1
    assert (distance, between) == (pytest.approx(across.min(axis=0).mean()), pytest.approx(among[:, 1].mean()))


def test_small_classes_and_the_summary() -> None:
    point = torch.ones(1, 2)
    alone = class_quality(point, point, 5)
    assert alone == [None, 1.0, 1.0, 0.0, None]
    assert summary([alone]) == {"within_cosine": None, "density": 1.0, "coverage": 1.0, "nearest": None}
    rows: list[list[float | None]] = [[0.5, 1.0, 0.2, 3.0, 1.0], [None, 2.0, 0.4, 1.0, 3.0]]
    means = {"within_cosine": 0.5, "density": 1.5, "coverage": pytest.approx(0.3), "nearest": 1.0}
    assert summary(rows) == means
