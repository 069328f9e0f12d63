"""Is one accuracy ahead of another? 95 % intervals of differences of accuracies, over test images and over seeds.

A verdict needs an interval without 0. Chance comes from two sources: which test images there are, and which students
were drawn. Both evaluations of a comparison are of the same test images, so where it is stored which of them each
student gets right, the images are resampled for both at once (paired bootstrap); how hard an image is then plays no
part. Students of one seed are not related and are resampled for each evaluation alone.

A few seeds show less spread than there is. The resampled means of n seeds are therefore stretched by sqrt(n / (n - 1)),
the factor that the bootstrap's variance lacks, and by t / z, the 97.5 % quantiles of Student's t (seeds of both less 2)
and of the normal distribution. With one seed there is no interval.

Where both sides have more in common than the test images, an order of the classes or the network that is pruned, the
differences of those pairs are the sample.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

DRAWS = 2000
LEVEL = 0.95
NORMAL = NormalDist().inv_cdf((1 + LEVEL) / 2)
EXACT = 9
"""Decimals before the last rounding: what two machines may differ in is cut off first."""
Interval = tuple[float, float]
NONE: Interval = (math.nan, math.nan)


def bootstrap(first: np.ndarray, second: np.ndarray) -> Interval:
    """Interval of the accuracy of ``first`` minus that of ``second`` in points; NaN where one has a single seed.

    Args:
        first: bool (seeds, images), which images each student gets right.
        second: bool (seeds, images), of the same images.
    """
    counts = (len(first), len(second))
    if min(counts) < 2:
        return NONE
    rng = np.random.default_rng(0)
    images = first.shape[1]
    # Images that the same students get right are interchangeable: draw how many of each kind there are.
    kinds, of_kind = np.unique(np.concatenate([first, second]), axis=1, return_counts=True)
    drawn = rng.multinomial(images, of_kind / images, size=DRAWS)
    accuracies = 100.0 * (drawn @ kinds.T.astype(np.int64)) / images
    means = []
    for part in (accuracies[:, : counts[0]], accuracies[:, counts[0] :]):
        n = part.shape[1]
        seeds = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS)
        weights = 1 / n + math.sqrt(n / (n - 1)) * stretch(*counts) * (seeds / n - 1 / n)
        means.append((part * weights).sum(axis=1))
    low, high = np.quantile(means[0] - means[1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return round(float(low), EXACT), round(float(high), EXACT)


def from_spreads(
    first: tuple[float, float, int], second: tuple[float, float, int], images: tuple[float, float]
) -> Interval:
    """The same from mean, standard deviation over the seeds and number of seeds of each alone, in percent."""
    counts = (first[2], second[2])
    if min(counts) < 2:
        return NONE
    spread = sum(stretch(*counts) ** 2 * deviation**2 / n for _, deviation, n in (first, second))
    half = NORMAL * math.sqrt(spread + sampling((first[0], second[0]), images))
    difference = first[0] - second[0]
    return round(difference - half, EXACT), round(difference + half, EXACT)


def sampling(means: tuple[float, float], images: tuple[float, float]) -> float:
    """Variance, in squared points, of a difference of two accuracies in percent over so many test images.

    It is that of two independent binomial variables, as Agresti and Caffo (2000): no certainty of 0 or 100 %. Both
    are of the same images, so that the interval is rather too wide.
    """
    shares = [((mean / 100 * size + 1) / (size + 2), size + 2) for mean, size in zip(means, images, strict=True)]
    return sum(100.0**2 * share * (1 - share) / size for share, size in shares)


def paired(differences: np.ndarray, sampled: float = 0.0) -> Interval:
    """Interval of the mean of n independent differences by Student's t with n - 1 degrees; NaN of one alone.

    Args:
        differences: of what two sides have in common: a seed, a start, an order of the classes.
        sampled: variance of the mean that has another source, the test images (:func:`sampling`).
    """
    from scipy.stats import t

    if (n := len(differences)) < 2:
        return NONE
    spread = float(t.ppf((1 + LEVEL) / 2, n - 1)) * float(np.std(differences, ddof=1)) / math.sqrt(n)
    half = math.hypot(spread, NORMAL * math.sqrt(sampled))
    return round(float(differences.mean()) - half, EXACT), round(float(differences.mean()) + half, EXACT)


def stretch(first: int, second: int) -> float:
    """How much wider an interval of a difference of means of so many seeds is than one of many seeds."""
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, first + second - 2)) / NORMAL
