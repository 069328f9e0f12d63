"""Progress bars with the time left; silent when nobody watches."""

from __future__ import annotations

from typing import Any


def bar(total: int, what: str, start: int = 0, unit: str = "it") -> Any:
    """A progress bar on standard error, shown only on a terminal.

    Args:
        total: steps of the whole work.
        what: what is counted.
        start: steps done by an earlier, interrupted run.
        unit: name of one step.
    """
    from tqdm import tqdm

    return tqdm(total=total, initial=start, desc=what, unit=unit, disable=None, dynamic_ncols=True, smoothing=0.1)
