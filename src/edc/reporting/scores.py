"""Scores of a condensed set that discount soft labels and evaluation tricks, as DD-Ranking defines them.

They are made of two differences of accuracies, which are FRACTIONS, 0 to 1: HLR (hard label recovery), the accuracy of
hard labels on the real dataset minus that on the condensed set, and IOR (improvement over random), the condensed set
minus as many random real images under the same protocol. The published code (NUS-HPC-AI-Lab/DD-Ranking) feeds
percentages into the same exponential: a scale error, by which almost every method scores the lower limit -0.1565 and a
few score above 60, where fractions give 0 to 1.
"""

from __future__ import annotations

import math

LOWEST = math.exp(-1)


def label_robust_score(ior: float, hlr: float, weight: float = 0.5) -> float:
    """LRS = (e^a - e^-1) / (e - e^-1) with a = weight * IOR - (1 - weight) * HLR, both -1 to 1.

    From 0 (worst possible) to 1; 0.2689 with neither improvement nor distance.
    """
    return squashed(weight * _difference("ior", ior) - (1 - weight) * _difference("hlr", hlr))


def augmentation_robust_score(ior_augmented: float, ior_plain: float, weight: float = 0.5) -> float:
    """ARS: improvement over random, -1 to 1, with and without augmentation of students' images, mapped as LRS is."""
    augmented, plain = _difference("ior_augmented", ior_augmented), _difference("ior_plain", ior_plain)
    return squashed(weight * augmented + (1 - weight) * plain)


def squashed(value: float) -> float:
    """(e^value - e^-1) / (e - e^-1): -1 becomes 0 and 1 becomes 1. Percentages put in here are the scale error."""
    return (math.exp(value) - LOWEST) / (math.e - LOWEST)


def _difference(name: str, value: float) -> float:
    if not -1 <= value <= 1:
        raise ValueError(f"{name} = {value}: expected a difference of fractions, -1 to 1")
    return value
