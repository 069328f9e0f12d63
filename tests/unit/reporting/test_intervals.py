"""Intervals of differences: what they cover, that they are the same everywhere, when there is none."""

import math

import numpy as np
import pytest
from scipy import stats

from edc.reporting.intervals import bootstrap, from_spreads, paired, sampling


def students(rng: np.random.Generator, hardness: np.ndarray, spread: float, seeds: int) -> np.ndarray:
    """Which images students get right that differ by ``spread`` of their skill; equally hard images in both sets."""
    return rng.random((seeds, len(hardness))) < np.clip(hardness + rng.normal(0, spread, (seeds, 1)), 0, 1)


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.03), (3, 0.03), (3, 0.0), (8, 0.03)])
def test_of_two_equal_methods_few_are_said_to_differ(seeds: int, spread: float) -> None:
    """At most one in twenty, and a bit for chance in 200 trials."""
    rng = np.random.default_rng(seeds)
    shown = 0
    for _ in range(200):
        hardness = rng.beta(0.5, 0.3, 300)
        low, high = bootstrap(*(students(rng, hardness, spread, seeds) for _ in range(2)))
        shown += low > 0 or high < 0
    assert shown <= 18


def test_pairs_show_what_independent_test_sets_of_this_size_could_not() -> None:
    rng = np.random.default_rng(0)
    worse = rng.random((3, 400)) < np.repeat([0.995, 0.005], 200)
    better = worse.copy()
    better[:, 200:220] = True
    low, high = bootstrap(better, worse)
    assert 0 < low < 5 < high
    means = [(100 * right.mean(), 100 * right.mean(axis=1).std(ddof=1), 3) for right in (better, worse)]
    assert from_spreads(means[0], means[1], (400, 400))[0] < 0
    assert bootstrap(better, worse) == (low, high)
    assert bootstrap(worse, better) == pytest.approx((-high, -low), abs=0.5)


def test_of_pairs_the_differences_are_the_sample_and_the_test_images_widen_it() -> None:
    differences = np.array([1.0, 2.0, 4.0])
    low, high = stats.ttest_1samp(differences, 0).confidence_interval()
    assert paired(differences) == pytest.approx((low, high))
    few, many = (paired(differences, sampling((80.0, 78.0), (images, images))) for images in (100, 10**9))
    assert many == pytest.approx((low, high), abs=1e-3)
    share = 1.96**2 * (0.8 * 0.2 + 0.78 * 0.22) * 100**2 / 102
    assert few[1] - 7 / 3 == pytest.approx(math.hypot((high - low) / 2, math.sqrt(share)), rel=0.01)


def test_five_photos_are_no_difference_and_one_seed_gives_no_interval() -> None:
    first, second = np.zeros((2, 3, 409), dtype=bool)
    first[:, :280] = second[:, 5:280] = True
    second[0, 281:286] = first[1, 290:292] = True
    low, high = bootstrap(first, second)
    assert low <= 0 < high
    assert all(map(math.isnan, bootstrap(first[:1], second)))
    assert all(map(math.isnan, from_spreads((90.0, math.nan, 1), (50.0, 1.0, 3), (409, 409))))
