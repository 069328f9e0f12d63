"""Scores of a condensed set that discount soft labels and evaluation tricks, as DD-Ranking defines them.

Every accuracy here is a FRACTION, 0 to 1. The published code (NUS-HPC-AI-Lab/DD-Ranking) feeds percentages into the
same exponential: a scale error, by which almost every method scores the lower limit -0.1565 and a few score above 60,
where fractions give 0 to 1.
"""

from __future__ import annotations

import math

LOWEST = math.exp(-1)


def hard_label_recovery(real_hard: float, condensed_hard: float) -> float:
    """HLR: how far the condensed set under hard labels stays behind the real dataset; smaller is better.

    Args:
        real_hard: accuracy after training on the real dataset, a fraction.
        condensed_hard: accuracy after training on the condensed set with hard labels, a fraction.
    """
    return _fraction("real_hard", real_hard) - _fraction("condensed_hard", condensed_hard)


def improvement_over_random(condensed: float, random: float) -> float:
    """IOR: what the images gain over as many random real ones under the same protocol; both fractions."""
    return _fraction("condensed", condensed) - _fraction("random", random)


def label_robust_score(ior: float, hlr: float, weight: float = 0.5) -> float:
    """LRS = (e^a - e^-1) / (e - e^-1) with a = weight * IOR - (1 - weight) * HLR.

    Args:
        ior: improvement over random, -1 to 1.
        hlr: distance to the real dataset under hard labels, -1 to 1.
        weight: of the improvement.

    Returns:
        0 (worst possible) to 1; 0.2689 with neither gain nor distance.
    """
    return squashed(weight * _difference("ior", ior) - (1 - weight) * _difference("hlr", hlr))


def augmentation_robust_score(
    condensed_augmented: float,
    random_augmented: float,
    condensed_plain: float,
    random_plain: float,
    weight: float = 0.5,
) -> float:
    """ARS: improvement over random with and without augmentation of the students' images, mapped as LRS is.

    Args:
        condensed_augmented, random_augmented: accuracies with augmentation, fractions.
        condensed_plain, random_plain: accuracies without it, fractions.
        weight: of the improvement with augmentation.
    """
    augmented = improvement_over_random(condensed_augmented, random_augmented)
    plain = improvement_over_random(condensed_plain, random_plain)
    return squashed(weight * augmented + (1 - weight) * plain)


def squashed(value: float) -> float:
    """(e^value - e^-1) / (e - e^-1): -1 becomes 0 and 1 becomes 1. Percentages put in here are the scale error."""
    return (math.exp(value) - LOWEST) / (math.e - LOWEST)


def trainings(searched: int, given: int = 0, evaluations: int = 5, rates: int = 5) -> int:
    """Students DD-Ranking trains for one score: it tries several learning rates in every evaluation.

    Args:
        searched: accuracies whose learning rate is looked for.
        given: accuracies whose learning rate the method brings along.
        evaluations: repetitions the score is a mean of.
        rates: learning rates tried.
    """
    return evaluations * (rates * searched + given)


def _fraction(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} = {value}: expected a fraction, 0 to 1")
    return value


def _difference(name: str, value: float) -> float:
    if not -1 <= value <= 1:
        raise ValueError(f"{name} = {value}: expected a difference of fractions, -1 to 1")
    return value
