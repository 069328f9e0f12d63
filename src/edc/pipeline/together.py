"""Runs that several processes share, each on a device of its own: `torchrun --no-python -- edc evaluate --run KEY`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from edc.config.rows import Plan
from edc.errors import EdcError
from edc.nets.processes import processes
from edc.pipeline.devices import claim, visible_gpus
from edc.pipeline.execute import execute, prepare
from edc.pipeline.status import Run

SHARED = ("pretrain", "synthesize", "evaluate")
"""The stages whose runs can be shared: they train networks batch by batch, or optimise images group by group."""


def run_together(plan: Plan, todo: Sequence[Run], force: bool = False) -> int:
    """Make runs one after the other, every process its part of each batch or of the groups; returns how many were made.

    Raises:
        EdcError: runs of another stage or that can't be shared, or fewer GPUs than processes.
    """
    if other := next((stage for stage, _ in todo if stage not in SHARED), None):
        raise EdcError(f"{other}: expected one process, torchrun started several; {', '.join(SHARED)} share runs")
    for stage, key in todo:
        _check(plan, stage, key)
    _see_own_gpu(plan.machine.device)
    with claim(plan.machine.device) as device:
        prepare(plan, device)
        from edc.nets.distributed import process_group

        with process_group(device):
            return sum(execute(plan, run, device, force) for run in todo)


def _check(plan: Plan, stage: str, key: str) -> None:
    """Refuse runs that calibrate a temperature on a whole batch, that have too few groups, or that carry statistics."""
    row: Any = plan.row(stage, key)
    if stage == "synthesize":
        from edc.condense.initialise import groups_of  # slow to import

        count = len(groups_of(plan.datasets[row.dataset].classes, row.ipc, row.optimise.group, row.optimise.rounds))
        why = None
        if row.match.carry:
            why = "match.carry = true: one group begins where another ended"
        elif count < processes():
            why = f"optimise.group = {row.optimise.group}: groups: {count}"
        if why and row.optimise.iterations:
            raise EdcError(f"synthesize.{key}.{why}, which {processes()} processes of torchrun can't share")
    elif stage == "evaluate" and row.loss.student_temperature == "calibrated":
        raise EdcError(f"{stage}.{key}.loss.student_temperature = 'calibrated': expected one process, not torchrun")


def _see_own_gpu(device: str) -> None:
    """Of the GPUs that are visible, this process sees the one of its number alone."""
    gpus, local = [] if device == "cpu" else visible_gpus(), int(os.environ["LOCAL_RANK"])
    if gpus and local >= len(gpus):
        raise EdcError(
            f"--nproc-per-node {os.environ['LOCAL_WORLD_SIZE']}: expected at most {len(gpus)}, the GPUs visible here"
        )
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[local]
