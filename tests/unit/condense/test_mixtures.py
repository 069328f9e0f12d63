"""Theorem 3.2 of EDC on Gaussian mixtures of the line, by numerical integration; matching in the plane.

P has the moments of the whole (Form 1) and is taken to be Gaussian; Q is the mixture of the classes' moments (Form 2).
Where the scan of the paper is illegible, the sharper bound is tested: its upper bound on H(Q) is H(P) and a term that
is not negative, here it is H(P) itself.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edc.condense.mixtures import (
    Mixture,
    class_mixture,
    entropy,
    entropy_bracket,
    errors,
    gaussian_entropy,
    match_mixture,
)
from edc.config.analysis import MixtureSizes

TINY = 1e-9
COMPONENT = st.tuples(st.integers(1, 10), st.floats(-8, 8), st.floats(0.3, 4))


def moments(mixture: Mixture) -> tuple[float, float]:
    """Mean and variance by numerical integration; the tests compare the closed forms of :class:`Mixture` with them."""
    x, spacing = mixture.points()
    density = np.exp(mixture.log_density(x))
    mean = float((density * x).sum() * spacing)
    return mean, float((density * (x - mean) ** 2).sum() * spacing)


def divergence(p: Mixture, q: Mixture) -> float:
    """KL(p || q) in nats, by numerical integration."""
    x, spacing = p.points()
    logs = p.log_density(x)
    return float((np.exp(logs) * (logs - q.log_density(x))).sum() * spacing)


def gaussian(mixture: Mixture) -> Mixture:
    """The Gaussian with the mixture's mean and variance, the result of matching whole moments (Form 1)."""
    return Mixture(np.ones(1), np.array([mixture.mean]), np.array([mixture.variance]))


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    """One to four components of any weight, far apart or on top of one another, narrow in wide."""
    shares, means, widths = np.array(draw(st.lists(COMPONENT, min_size=1, max_size=4)), dtype=float).T
    return Mixture(shares / shares.sum(), means, widths**2)


@given(mixtures())
@settings(deadline=None, max_examples=60)
def test_mean_and_variance_are_the_mixtures(mixture: Mixture) -> None:
    """(i) and (ii): E[x] = E[y] and D[x] = D[y], the latter being the law of total variance."""
    mean, variance = moments(mixture)
    assert mixture.mean == pytest.approx(mean, abs=1e-8)
    assert mixture.variance == pytest.approx(variance, rel=1e-8)
    whole = gaussian(mixture)
    assert moments(whole) == pytest.approx((mean, variance), rel=1e-8, abs=1e-8)


@given(mixtures())
@settings(deadline=None, max_examples=60)
def test_entropy_lies_between_its_bounds(mixture: Mixture) -> None:
    """(iii): H(P) - bracket <= H(Q) <= H(P)."""
    upper = gaussian_entropy(mixture.variance)
    assert upper == pytest.approx(entropy(gaussian(mixture)), abs=1e-8)
    result = entropy(mixture)
    assert upper - entropy_bracket(mixture) - TINY <= result <= upper + TINY
    # (iv): 0 <= KL(Q || P) = H(P) - H(Q) <= bracket.
    missed = divergence(mixture, gaussian(mixture))
    assert missed == pytest.approx(upper - result, abs=1e-8)
    assert -TINY <= missed <= entropy_bracket(mixture) + TINY


@given(mixtures())
@settings(deadline=None, max_examples=60)
def test_classes_moments_give_a_gaussian_mixture_back(mixture: Mixture) -> None:
    """(iv): KL(mixture || Q) = 0 with Q made from the moments of every component, measured."""
    parts = [
        moments(Mixture(np.ones(1), np.array([m]), np.array([v])))
        for m, v in zip(mixture.means, mixture.variances, strict=True)
    ]
    means, variances = np.array(parts).T
    assert divergence(mixture, Mixture(mixture.weights, means, variances)) == pytest.approx(0, abs=TINY)


def test_one_component_is_its_own_gaussian() -> None:
    one = Mixture(np.array([0.25, 0.75]), np.array([2.0, 2.0]), np.array([3.0, 3.0]))
    assert entropy_bracket(one) == pytest.approx(0, abs=1e-12)
    assert entropy(one) == pytest.approx(gaussian_entropy(3.0), abs=1e-10)


def test_components_far_apart_reach_the_lower_bound_but_for_their_names() -> None:
    """Two Gaussians that do not touch: entropy of one, and log 2 for which of them it is."""
    two = Mixture(np.array([0.5, 0.5]), np.array([-50.0, 50.0]), np.array([1.0, 1.0]))
    assert entropy(two) == pytest.approx(gaussian_entropy(1.0) + np.log(2), abs=1e-9)
    assert gaussian_entropy(two.variance) - entropy_bracket(two) == pytest.approx(gaussian_entropy(1.0), abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_matching_in_the_plane(seed: int) -> None:
    """Form 2 alone gets the whole right, as (i) and (ii) say; Form 1 alone leaves the classes anywhere."""
    sizes = MixtureSizes(seed=seed)
    made = match_mixture(sizes, (1.0, 0.0, 0.5))
    assert made.original.shape == (sizes.classes, sizes.points, 2)
    for alpha, points in made.condensed.items():
        assert points.shape == (sizes.classes, sizes.condensed, 2)
        for whole, by_class in errors(points, made.original):
            assert float(whole) < 1e-3
            assert float(by_class) > 1 if alpha == 1 else float(by_class) < 1e-3
    for axis in (0, 1):
        line = made.original[..., axis].flatten()
        mixture = class_mixture(made.original, axis)
        assert mixture.mean == pytest.approx(float(line.mean()))
        assert mixture.variance == pytest.approx(float(line.var(correction=0)))


def test_alphas_side_by_side_do_not_meet() -> None:
    sizes = MixtureSizes(steps=20)
    both, alone = match_mixture(sizes, (1.0, 0.5)), match_mixture(sizes, (0.5,))
    torch.testing.assert_close(both.condensed[0.5], alone.condensed[0.5], rtol=0, atol=1e-12)
