"""Scored coresets: scores by hand, ranks on a known order."""

from __future__ import annotations

import numpy as np
import pytest

from edc.condense.ranked import choose, difficulty
from edc.data.rng import generator

P = np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [0.4, 0.4, 0.2]])


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("loss", [-np.log(0.7), -np.log(0.25), -np.log(0.4)]),
        ("el2n", [np.sqrt(0.09 + 0.04 + 0.01), np.sqrt(0.5625 + 0.25 + 0.0625), np.sqrt(0.36 + 0.16 + 0.04)]),
        ("entropy", [0.8018185525, 1.0397207708, 1.0549201679]),
        ("margin", [0.5, -0.25, 0.0]),
    ],
)
def test_scores(score: str, expected: list[float]) -> None:
    np.testing.assert_allclose(difficulty(P, 0, score), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("rank", "expected"), [("lowest", [4, 2, 0, 5]), ("highest", [1, 3, 5, 0]), ("median", [5, 3, 0, 1])]
)
def test_ranks(rank: str, expected: list[int]) -> None:
    scores = np.array([3.0, 6.0, 2.0, 5.0, 1.0, 4.0])  # ascending: 4 2 0 5 3 1, the middle at position 3
    assert choose(scores, 4, rank, generator(0, "x")).tolist() == expected


def test_a_coreset_by_median_grows_outwards_over_odd_numbers_too() -> None:
    assert choose(np.arange(5.0), 5, "median", generator(0, "x")).tolist() == [3, 4, 2, 1, 0]


def test_stratified_takes_one_of_every_part() -> None:
    scores = np.random.default_rng(0).permutation(40).astype(float)
    picks = choose(scores, 10, "stratified", generator(0, "x"))
    assert sorted(scores[picks] // 4) == list(range(10))
    assert (choose(scores, 10, "stratified", generator(1, "x")) != picks).any()
