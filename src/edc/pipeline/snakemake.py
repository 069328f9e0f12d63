"""What the Snakefile needs beside its rules. It is read by every job, too: nothing heavy is imported here."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]  # Snakemake brings it along

if TYPE_CHECKING:
    from edc.config.rows import Plan

JOBS = Path(".edc/jobs.json")
"""The jobs of the workflow that was started last."""

NEEDED = (
    "CONDA_", "CUDA_", "EDC_", "HF_HOME", "HOME", "LANG", "LC_", "LD_LIBRARY_PATH", "LOGNAME", "NVIDIA_",
    "OMP_", "PATH", "PYTHON", "SHELL", "SLURM_CONF", "TMPDIR", "TORCH_HOME", "USER", "VIRTUAL_ENV", "XDG_",
)  # fmt: skip
"""How the names of the variables begin that a job on another machine needs."""


@dataclass(frozen=True)
class Job:
    """Runs of one stage that one process makes, one after the other.

    Attributes:
        runs: their keys.
        after: flags of the jobs it builds on.
        minutes: it may take.
        memory: MB it may take.
        gpu: GPUs it needs.
        threads: it uses.
    """

    runs: list[str]
    after: list[str]
    minutes: int
    memory: int
    gpu: int
    threads: int


def flag(run: tuple[str, str]) -> str:
    """What Snakemake takes as the output of the job whose first run this is."""
    return "runs/{}/{}/done".format(*run)


def jobs_of(plan: Plan, batches: Iterable[tuple[list[tuple[str, str]], int, int]]) -> dict[tuple[str, str], Job]:
    """Jobs by the first of their runs.

    Args:
        plan: the plan.
        batches: runs of one stage, minutes, MB; batches in the order the data flows.
    """
    jobs: dict[tuple[str, str], Job] = {}
    first: dict[tuple[str, str], tuple[str, str]] = {}
    for runs, minutes, memory in batches:
        first |= dict.fromkeys(runs, runs[0])
        upstream = [first[u] for run in runs for u in plan.upstream(*run) if u in first]
        gpus = 0 if plan.machine.device == "cpu" else 1
        after = [flag(run) for run in dict.fromkeys(upstream)]
        jobs[runs[0]] = Job([key for _, key in runs], after, minutes, memory, gpus, plan.machine.threads)
    return jobs


def write_jobs(jobs: dict[tuple[str, str], Job]) -> None:
    """Leave the jobs for the processes that execute them."""
    JOBS.parent.mkdir(exist_ok=True)
    partial = JOBS.with_suffix(".tmp")
    partial.write_text(json.dumps({"/".join(run): asdict(job) for run, job in jobs.items()}), "utf-8")
    partial.replace(JOBS)


def read_jobs() -> dict[tuple[str, str], Job]:
    """The jobs that :func:`write_jobs` left, without the plan."""
    jobs = json.loads(JOBS.read_text("utf-8"))
    return {tuple(name.split("/")): Job(**values) for name, values in jobs.items()}


def keep_needed_variables() -> None:
    """Remove other variables from the environment: `sbatch` stores it, passwords included."""
    for name in [name for name in os.environ if not name.startswith(NEEDED)]:
        del os.environ[name]


def pass_signals_on() -> None:
    """A signal to Snakemake alone ends its jobs on this machine, too; their checkpoints are kept."""
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if callable(handler):  # SIGINT stays ignored where it is, as in a script's background
            signal.signal(number, _passing_on(handler))


def _passing_on(handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
    """A handler that sends the signal to all child processes before Snakemake's own handler is called."""

    def handle(number: int, frame: FrameType | None) -> None:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # ended meanwhile; a terminal signals the whole group
                child.send_signal(number)
        handler(number, frame)

    return handle
