"""Learning-rate schedules: the factor on the base rate at the start of each epoch or iteration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edc.params import Schedule


def smoothing(epoch: int, epochs: int, zeta: float) -> float:
    """Cosine stretched by zeta (EDC section 3.2): zeta 1 ends at 0, zeta 2 at one half."""
    return 0.5 * (1 + math.cos(math.pi * epoch / (zeta * epochs)))


def ssrs(epoch: int, epochs: int, zeta: float) -> float:
    """Smoothing for five sixths of the run, then a steep linear fall (EDC appendix, Eq. 33); it jumps at 5/6."""
    if epoch <= 5 * epochs / 6:
        return smoothing(epoch, epochs, zeta)
    return 0.5 * (1 + math.cos(5 * math.pi / (6 * zeta))) * (1 - epoch / epochs)


def multistep(epoch: int, epochs: int, milestones: list[float], factor: float) -> float:
    """Times ``factor`` at each milestone, given as a share of the epochs."""
    # A tiny slack keeps 0.8 * 1000 at 800 whatever the binary fraction says.
    return factor ** sum(epoch >= share * epochs - 1e-9 for share in milestones)


def linear_zeta(epoch: int, epochs: int, zeta: float) -> float:
    """Linear fall to 1 - 1/zeta: what EDC's published ImageNet-1k code runs where it says cosine."""
    return 1 - epoch / (zeta * epochs)


def alrs(losses: Sequence[float], decay: float = 0.9975, threshold: float = 0.02) -> float:
    """Adaptive schedule of the paper's ablation: one decay for every epoch whose loss hardly changed.

    Args:
        losses: training loss of every epoch so far.
        decay: factor per epoch whose absolute and relative change are both below ``threshold``.
        threshold: see ``decay``.
    """
    pairs = itertools.pairwise(losses)
    flat = sum(abs(new - old) < threshold * min(1.0, old) for old, new in pairs)
    return decay**flat


def cosine_iteration(iteration: int, iterations: int) -> float:
    """Cosine to zero over a synthesis run (EDC section 3.1, after SRe2L)."""
    return smoothing(iteration, iterations, 1.0)


SCHEDULES: dict[str, Callable[[int, int, Schedule, Sequence[float]], float]] = {
    "constant": lambda epoch, epochs, s, losses: 1.0,
    "smoothing": lambda epoch, epochs, s, losses: smoothing(epoch, epochs, s.zeta),
    "ssrs": lambda epoch, epochs, s, losses: ssrs(epoch, epochs, s.zeta),
    "multistep": lambda epoch, epochs, s, losses: multistep(epoch, epochs, s.milestones, s.factor),
    "linear_zeta": lambda epoch, epochs, s, losses: linear_zeta(epoch, epochs, s.zeta),
    "alrs": lambda epoch, epochs, s, losses: alrs(losses),
}


def multiplier(schedule: Schedule, epoch: int, epochs: int, losses: Sequence[float] = ()) -> float:
    """The factor on the base learning rate in one epoch (0-based), given the losses of the epochs before it."""
    return SCHEDULES[schedule.name](epoch, epochs, schedule, losses)
