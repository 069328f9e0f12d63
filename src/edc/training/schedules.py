"""Learning-rate schedules: factors on the base rate per epoch or iteration; curricula of crops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from edc.config.choices import Curriculum, Schedule
from edc.config.registry import CURRICULUM, SCHEDULE, implementation


@dataclass(frozen=True)
class Moment:
    """The inputs of a schedule: the epoch (0-based), and the training losses of those before it."""

    epoch: int
    epochs: int
    settings: Schedule
    losses: Sequence[float] = ()


def constant(now: Moment) -> float:
    """The base rate throughout."""
    return 1.0


def smoothing(epoch: int, epochs: int, zeta: float) -> float:
    """Cosine stretched by zeta (EDC section 3.2): zeta 1 ends at 0, zeta 2 at one half."""
    return 0.5 * (1 + math.cos(math.pi * epoch / (zeta * epochs)))


def smoothing_of(now: Moment) -> float:
    """See :func:`smoothing`."""
    return smoothing(now.epoch, now.epochs, now.settings.zeta)


def cosine_iteration(iteration: int, iterations: int) -> float:
    """Cosine to zero over a synthesis run (EDC section 3.1, after SRe2L)."""
    return smoothing(iteration, iterations, 1.0)


def ssrs_of(now: Moment) -> float:
    """Smoothing for five sixths of the run, then a steep linear fall (EDC appendix, Eq. 33); it jumps at 5/6."""
    epoch, epochs, zeta = now.epoch, now.epochs, now.settings.zeta
    if epoch <= 5 * epochs / 6:
        return smoothing(epoch, epochs, zeta)
    return 0.5 * (1 + math.cos(5 * math.pi / (6 * zeta))) * (1 - epoch / epochs)


def multistep_of(now: Moment) -> float:
    """Times ``factor`` at each milestone, a share of the epochs."""
    # With a small slack, so that 0.8 * 1000 is 800 in spite of binary rounding.
    return now.settings.factor ** sum(now.epoch >= share * now.epochs - 1e-9 for share in now.settings.milestones)


def linear_zeta_of(now: Moment) -> float:
    """Linear fall to 1 - 1/zeta: the schedule of EDC's published ImageNet-1k code, which is named cosine there."""
    return 1 - now.epoch / (now.settings.zeta * now.epochs)


def alrs(losses: Sequence[float], decay: float = 0.9975, threshold: float = 0.02) -> float:
    """Adaptive schedule of the paper's ablation, from the training losses so far.

    Every epoch whose absolute and relative change of the loss are both below the threshold multiplies the rate by
    `decay`.
    """
    flat = sum(abs(new - old) < threshold * min(1.0, old) for old, new in itertools.pairwise(losses))
    return decay**flat


def alrs_of(now: Moment) -> float:
    """See :func:`alrs`."""
    return alrs(now.losses)


def multiplier(schedule: Schedule, epoch: int, epochs: int, losses: Sequence[float] = ()) -> float:
    """The factor on the base learning rate in one epoch (0-based), given the losses of the epochs before it.

    With a warm-up of w epochs the factor rises linearly from 1 % (torchvision's reference training), then the schedule
    runs over the other epochs.
    """
    if epoch < schedule.warmup:
        return 0.01 + 0.99 * epoch / schedule.warmup
    rest = Moment(epoch - schedule.warmup, epochs - schedule.warmup, schedule, losses[schedule.warmup :])
    return float(implementation(SCHEDULE, schedule.name)(rest))


def no_curriculum(share: float) -> float:
    """Crops as small as allowed from the start."""
    return 0.0


def step_curriculum(share: float) -> float:
    """Whole images until the milestone."""
    return 1.0


def linear_curriculum(share: float) -> float:
    """From whole images to the smallest crop in a straight line."""
    return 1 - share


def cosine_curriculum(share: float) -> float:
    """From whole images to the smallest crop along half a cosine."""
    return (1 + math.cos(math.pi * share)) / 2


def smallest_crop(curriculum: Curriculum, lowest: float, iteration: int, iterations: int) -> float:
    """Lower limit of the crop's share of the image in one iteration (0-based) of synthesis (CDA, section 3).

    It is `lowest` once the curriculum's milestone is reached.
    """
    milestone = curriculum.milestone * iterations
    if iteration >= milestone:
        return lowest
    return lowest + (1 - lowest) * float(implementation(CURRICULUM, curriculum.name)(iteration / milestone))
