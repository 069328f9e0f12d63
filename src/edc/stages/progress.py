"""Progress with the time left, as a line every half minute: the same on a terminal and in a log."""

from __future__ import annotations

import sys
import time

SECONDS = 30.0
"""Between two lines."""


class ProgressLog:
    """Counts steps, and prints how many are done and how long the rest will take.

    `start` steps of the total were done by an earlier, interrupted attempt.
    """

    def __init__(self, total: int, label: str, start: int = 0, unit: str = "step") -> None:
        self.total, self.label, self.unit, self.done, self.first = total, label, unit, start, start
        self.begun = self.printed = time.monotonic()

    def update(self, steps: int = 1, values: dict[str, str] | None = None) -> None:
        """Count steps; the values are printed beside the count."""
        self.done += steps
        now = time.monotonic()
        if now - self.printed < SECONDS or self.done <= self.first:
            return
        self.printed = now
        left = (now - self.begun) / (self.done - self.first) * (self.total - self.done)
        beside = "".join(f", {name} {value}" for name, value in (values or {}).items())
        line = f"edc: {self.label}: {self.unit} {self.done} of {self.total}{beside}, {_duration(left)} left"
        print(line, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
