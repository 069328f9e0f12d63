"""How a student's training changes over its epochs: phases with other labels, and the teachers' temperature."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from edc.config.validation import Fraction, Model, Positive, Share


class Phase(Model):
    """A share of a student's epochs, with stored soft labels or with the classes."""

    regime: Literal["soft", "hard"]
    share: Share


def _whole(phases: list[Phase]) -> list[Phase]:
    shares = [phase.share for phase in phases]
    if shares and abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares {shares}: expected a sum of 1")
    return phases


Phases = Annotated[list[Phase], AfterValidator(_whole)]


def phase_regimes(phases: list[Phase], epochs: int) -> list[str]:
    """The label regime of every epoch."""
    ends = [round(end * epochs) for end in itertools.accumulate(phase.share for phase in phases)]
    of_phases = zip(phases, itertools.pairwise([0, *ends]), strict=True)
    return [phase.regime for phase, (start, end) in of_phases for _ in range(start, end)]


class HardLabels(Model):
    """Targets of hard labels (HALD): one-hot vectors, smoothed, and mixed in the proportions of the mixed images."""

    smoothing: Fraction = Field(default=0.0, description="a: 1 - a + a / K for the class, a / K for every other")
    mix: Literal["none", "cutmix", "mixup"] = "none"


class Temperatures(Model):
    """The teachers' temperature in epoch e (LPQLD): max(least, temperature * factor^floor(e / every))."""

    name: Literal["step"] = "step"
    factor: Fraction = 0.7
    every: int = Field(default=30, ge=1, description="epochs")
    least: Positive = 2.0
