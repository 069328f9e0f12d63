"""Quality of a condensed set in numbers, measured on features class by class, in float64 on the CPU.

Density and coverage: Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, ICML 2020.
Distances are Euclidean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Row = list[float | None]
COLUMNS = ("within_cosine", "density", "coverage", "distance", "real_distance")


def class_quality(real: Tensor, condensed: Tensor, neighbours: int) -> Row:
    """Features of one class, real (n, D) and condensed (m, D) -> the values of ``COLUMNS``.

    The ball of a real image reaches to its k-th nearest other real one; with k or fewer of them, to the farthest.

    - within_cosine: mean cosine of two condensed images; None with one.
    - density: in how many balls a condensed image lies, divided by k; mean.
    - coverage: share of the real images whose ball holds a condensed one.
    - distance: from a condensed image to the nearest real one, mean; real_distance: from a real image to the nearest
      other, mean; None with one.
    """
    real, condensed = real.to("cpu", torch.float64), condensed.to("cpu", torch.float64)
    n, m, k = len(real), len(condensed), min(neighbours, len(real) - 1)
    among = _distances(real, real).fill_diagonal_(0).sort(dim=1).values
    across = _distances(real, condensed)
    inside = across <= among[:, k : k + 1]
    directions = F.normalize(condensed, dim=1)
    pairs = float(directions.sum(dim=0).square().sum()) - m
    return [
        pairs / (m * (m - 1)) if m > 1 else None,
        float(inside.sum()) / (max(k, 1) * m),
        float(inside.any(dim=1).double().mean()),
        float(across.min(dim=0).values.mean()),
        float(among[:, 1].mean()) if n > 1 else None,
    ]


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def summary(rows: Sequence[Row]) -> dict[str, float | None]:
    """Means over the classes; nearest: distance in units of real_distance, 0 for copies of real images."""
    means: dict[str, float | None] = {}
    for name, column in zip(COLUMNS, zip(*rows, strict=True), strict=True):
        values = [value for value in column if value is not None]
        means[name] = math.fsum(values) / len(values) if values else None
    distance, unit = means.pop("distance"), means.pop("real_distance")
    return means | {"nearest": distance / unit if distance is not None and unit else None}
