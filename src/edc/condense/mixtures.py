"""Gaussian mixtures: what matching moments class by class does to a distribution (EDC section 3.1, Theorem 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edc.config.analysis import MixtureSizes
from edc.data.rng import generator
from edc.training.schedules import cosine_iteration

Array = np.ndarray[Any, np.dtype[np.float64]]

WIDTHS = 12.0
"""Standard deviations beyond the components' means that integrals cover."""
FINENESS = 16
"""Points of the integrals' grid in a standard deviation of the narrowest component."""


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture on the line: shares of the components (C,), sum 1, their means and variances (C,)."""

    weights: Array
    means: Array
    variances: Array

    @property
    def mean(self) -> float:
        """E[x], the mean of the components' means."""
        return float(self.weights @ self.means)

    @property
    def variance(self) -> float:
        """D[x] = E[D[x|c]] + D[E[x|c]], the law of total variance."""
        return float(self.weights @ (self.variances + (self.means - self.mean) ** 2))

    def log_density(self, x: Array) -> Array:
        """log p(x) at points (n,), without underflow far from every component."""
        distance = (x[:, None] - self.means) ** 2 / self.variances
        parts = np.log(self.weights) - 0.5 * (distance + np.log(2 * np.pi * self.variances))
        highest = parts.max(axis=1)
        return highest + np.log(np.exp(parts - highest[:, None]).sum(axis=1))

    def points(self) -> tuple[Array, float]:
        """A grid for integrals of functions that decay with this mixture, and its spacing.

        On smooth functions that vanish at both ends, plain sums are exact to rounding once the grid is fine enough.
        """
        widths = np.sqrt(self.variances)
        low, high = float((self.means - WIDTHS * widths).min()), float((self.means + WIDTHS * widths).max())
        count = math.ceil((high - low) / float(widths.min()) * FINENESS) + 1
        return np.linspace(low, high, count), (high - low) / (count - 1)


def entropy(mixture: Mixture) -> float:
    """H = -E[log p] in nats, by numerical integration; a mixture has no closed form."""
    x, spacing = mixture.points()
    logs = mixture.log_density(x)
    return -float((np.exp(logs) * logs).sum() * spacing)


def gaussian_entropy(variance: float) -> float:
    """H of a Gaussian, 1/2 log(2 pi e D), in nats."""
    return 0.5 * math.log(2 * math.pi * math.e * variance)


def entropy_bracket(mixture: Mixture) -> float:
    """1/2 (log(E[D[y|c]] + D[E[y|c]]) - E[log D[y|c]]), the bound on H(P) - H(Q) (Theorem 3.2 iii).

    It is the mutual information of point and component, were the point Gaussian: H(P) less the bracket is the entropy
    that is left once the component is known.
    """
    return 0.5 * (math.log(mixture.variance) - float(mixture.weights @ np.log(mixture.variances)))


@dataclass(frozen=True)
class Matched:
    """The plane's points of Figure 2(a): original (C, n, 2), condensed (C, m, 2) by alpha."""

    original: Tensor
    condensed: dict[float, Tensor]


def match_mixture(sizes: MixtureSizes, alphas: tuple[float, ...]) -> Matched:
    """Condense points of C Gaussians in the plane by matching moments (EDC Eq. 5 on points; Figure 2(a)).

    The loss is alpha * (|mean - mean| + |variance - variance|) over all points (Form 1) plus 1 - alpha times the mean
    of the same over the classes (Form 2), norms unsquared and variances per axis. All alphas are optimised side by side
    and start from the same points, whose distribution does not depend on the class.
    """
    rng = generator(sizes.seed, "mixture")
    angles = 2 * np.pi * np.arange(sizes.classes) / sizes.classes
    centres = 3.0 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    widths = rng.uniform(0.3, 1.0, (sizes.classes, 2))
    drawn = rng.standard_normal((sizes.classes, sizes.points, 2))
    original = torch.from_numpy(centres[:, None] + widths[:, None] * drawn)
    start = torch.from_numpy(rng.standard_normal((sizes.classes, sizes.condensed, 2)))
    points = start.expand(len(alphas), *start.shape).clone().requires_grad_(True)
    share = torch.tensor(alphas, dtype=points.dtype)
    adam = torch.optim.Adam([points], lr=sizes.lr)
    for k in range(sizes.steps):
        adam.param_groups[0]["lr"] = sizes.lr * cosine_iteration(k, sizes.steps)
        whole, by_class = (sum(parts) for parts in zip(*errors(points, original), strict=True))
        adam.zero_grad(set_to_none=True)
        (share * whole + (1 - share) * by_class).sum().backward()  # the losses of the alphas share no points
        adam.step()
    return Matched(original, dict(zip(alphas, points.detach(), strict=True)))


def errors(points: Tensor, original: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Distances of points (..., C, m, 2) to the original's (C, n, 2) in mean and in variance.

    Each is a pair of (...,): of all points, and the mean over classes.
    """
    distances = []
    for moment in (torch.mean, _variance):
        whole = (moment(points.flatten(-3, -2), dim=-2) - moment(original.flatten(0, 1), dim=-2)).norm(dim=-1)
        classes = (moment(points, dim=-2) - moment(original, dim=-2)).norm(dim=-1)
        distances.append((whole, classes.mean(dim=-1)))
    return distances


def class_mixture(points: Tensor, axis: int) -> Mixture:
    """One axis of points (C, m, 2) as a mixture of its classes' moments."""
    line = points[..., axis].double()
    return Mixture(np.full(len(line), 1 / len(line)), line.mean(1).numpy(), _variance(line, dim=1).numpy())


def _variance(points: Tensor, dim: int) -> Tensor:
    return points.var(dim=dim, correction=0)
