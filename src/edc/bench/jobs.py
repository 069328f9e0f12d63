"""Which runs of a plan share a job of a cluster, and what the job may take, from the plan's cost.

With a job for every run a cluster spends more time on starting Python than on short runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from edc.bench.cost import Cost, Estimate
from edc.config.rows import Plan
from edc.errors import EdcError
from edc.pipeline.snakemake import Job, jobs_of
from edc.pipeline.status import Run

PER_RUN, PER_STEP, ANALYSIS = 2.0, 0.01, 600.0
"""Seconds that a run and an optimiser step take beside their arithmetic; of an analysis, which has no estimate."""

RATE = {"cpu": 0.02, "cuda": 5.0}
"""TFLOP/s that a GPU, or a thread of a CPU, reaches at least with small networks."""

MEMORY = {"cpu": 3000, "cuda": 8000}
"""MB of Snakemake's and our processes with PyTorch and the libraries of a device."""

STARTING, MARGIN = 10, 3
"""Minutes that a job may take to start, and the multiple of its estimate within which it has to end."""


def batched(plan: Plan, runs: Iterable[Run], minutes: float, rate: float | None = None) -> dict[Run, Job]:
    """Jobs for these runs, by the first run of each.

    Consecutive runs of a stage share one until it is estimated to take so many minutes.

    Args:
        plan: the plan.
        runs: those to be made, in the order the data flows.
        minutes: of a job; a longer run has one of its own.
        rate: TFLOP/s of a device; None: :data:`RATE`.

    Raises:
        EdcError: a number is not above 0, or the size of a dataset is not known.
    """
    for name, value in (("minutes", minutes), ("tflops", rate)):
        if value is not None and not (isinstance(value, int | float) and value > 0):
            raise EdcError(f"--config {name}={value}: expected a number above 0")
    device = "cpu" if plan.machine.device == "cpu" else "cuda"
    rate = rate or RATE[device] * (plan.machine.threads if device == "cpu" else 1)
    estimate = Estimate(plan)
    batches: list[list[Run]] = []
    seconds: list[float] = []
    memory: list[int] = []
    for run in runs:
        cost = _cost(estimate, run)
        takes = ANALYSIS if cost is None else PER_RUN + PER_STEP * cost.steps + 3600 * cost.hours(rate)
        if not batches or batches[-1][0][0] != run[0] or seconds[-1] + takes > 60 * minutes:
            batches.append([])
            seconds.append(0.0)
            memory.append(MEMORY[device])
        batches[-1].append(run)
        seconds[-1] += takes
        memory[-1] = max(memory[-1], MEMORY[device] + _megabytes(estimate, run, cost))
    limits = [STARTING + round(MARGIN * takes / 60) for takes in seconds]
    return jobs_of(plan, zip(batches, limits, memory, strict=True))


def _cost(estimate: Estimate, run: Run) -> Cost | None:
    """None for an analysis."""
    stage, key = run
    of_stage = getattr(estimate, stage, None)
    cost: Cost | None = of_stage and of_stage(getattr(estimate.plan, stage)[key])
    return cost


def _megabytes(estimate: Estimate, run: Run, cost: Cost | None) -> int:
    """Twice the images of a dataset that is held in memory, and what the run writes."""
    name = estimate.plan.row(*run).dataset
    dataset, images = estimate.plan.datasets[name], estimate.images[name]
    pixels = dataset.channels * dataset.image_size**2
    held = 0 if dataset.streamed else pixels * (images.train + images.val + images.test)
    return 2 * (held + (cost.stored if cost else 0)) // 10**6
