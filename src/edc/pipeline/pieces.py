"""Run a plan piece by piece without a runner: what is not current, several runs at once, up to a deadline.

For machines that have the numerical packages and neither DVC, Snakemake, MLflow nor a Git repository. What a deadline
interrupts goes on from its checkpoint in the next piece.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NoReturn

from edc.pipeline import dag
from edc.pipeline.current import current
from edc.errors import EdcError
from edc.config.rows import Plan
from edc.storage import STATE
from edc.pipeline.warm import libraries

LOGS = Path("logs")
POLL = 0.1
PATIENCE = 10.0
"""Seconds a run has to end when told to; then it is killed."""


def matching(tasks: Sequence[dag.Task], only: Sequence[str]) -> list[dag.Task]:
    """The runs whose names match any of the patterns, those of an earlier pattern first; without patterns all.

    Raises:
        EdcError: a pattern matches no run of the plan.
    """
    if not only:
        return list(tasks)
    found: dict[str, dag.Task] = {}
    for pattern in only:
        hits = [task for task in tasks if fnmatchcase(task.name, pattern)]
        if not hits:
            raise EdcError(f"--only {pattern}: no run of the plan has such a name (STAGE-KEY, like {tasks[0].name})")
        found |= {task.name: task for task in hits if task.name not in found}
    return list(found.values())


def upstream(tasks: Sequence[dag.Task]) -> dict[str, tuple[str, ...]]:
    """Names of the runs each run reads from."""
    makers = {output.path: task.name for task in tasks for output in task.outputs}
    return {task.name: tuple({makers[path]: None for path in task.inputs if path in makers}) for task in tasks}


def ordered(tasks: Sequence[dag.Task], only: Sequence[str]) -> list[dag.Task]:
    """The runs asked for and all they need, each after those it reads from.

    The plan's order, but where patterns are given all that the first one needs comes before what only a later one does.
    """
    if not only:
        return list(tasks)
    needs, by_name = upstream(tasks), {task.name: task for task in tasks}
    found: dict[str, dag.Task] = {}
    for pattern in only:
        wanted: set[str] = set()
        queue = [task.name for task in matching(tasks, [pattern])]
        while queue:
            name = queue.pop()
            if name not in wanted:
                wanted.add(name)
                queue += needs[name]
        found |= {name: by_name[name] for name in by_name if name in wanted and name not in found}
    return list(found.values())


@dataclass
class _Process:
    """A run that is under way."""

    task: dag.Task
    process: subprocess.Popen[bytes]
    started: float


@dataclass
class Pieces:
    """The runs of a plan and how they stand.

    Attributes:
        waiting: not yet known to be done, each after those it reads from.
        done, failed, skipped: by name; skipped are those that need a failed one.
    """

    plan: Plan
    waiting: list[dag.Task]
    needs: dict[str, tuple[str, ...]]
    done: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    running: list[_Process] = field(default_factory=list)
    _stale: set[str] = field(default_factory=set)

    @property
    def left(self) -> int:
        """How many runs are neither done nor failed."""
        return len(self.waiting) + len(self.running) + len(self.skipped)

    def ready(self) -> Iterator[dag.Task]:
        """Take runs that can start now from those that wait; what is current or can't start is filed on the way."""
        for task in list(self.waiting):
            needs = self.needs[task.name]
            if any(name in self.failed or name in self.skipped for name in needs):
                self.waiting.remove(task)
                self.skipped.add(task.name)
            elif all(name in self.done for name in needs):
                # Only now can it be told: what a run reads may have been made anew.
                if task.name not in self._stale and current(self.plan, task):
                    self.waiting.remove(task)
                    self.done.add(task.name)
                else:
                    self._stale.add(task.name)
                    yield task

    def start(self, task: dag.Task) -> None:
        """Start a run in a process of its own, with its log below logs/."""
        self.waiting.remove(task)
        log = log_of(task)
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "edc", task.stage, "--run", task.key]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={"EDC_TRACKING": "off", **os.environ},
            )
        self.running.append(_Process(task, process, time.monotonic()))

    def collect(self) -> None:
        """File what has ended, with a line each."""
        for one in list(self.running):
            code = one.process.poll()
            if code is None:
                continue
            self.running.remove(one)
            name = one.task.name
            # Trusting the exit code alone could start a run that leaves nothing again and again.
            if code == 0 and current(self.plan, one.task):
                self.done.add(name)
                said = f"{time.monotonic() - one.started:.1f} s"
            else:
                self.failed.add(name)
                last = _last_line(log_of(one.task)) if code else "ended well, but its results are not the plan's"
                said = f"failed, exit code {code}: {last} ({log_of(one.task)})"
            print(f"{name}: {said} ({len(self.done)} done, {self.left} left)", flush=True)

    def stop(self) -> None:
        """End what is under way; it goes on from its checkpoint another time."""
        for one in self.running:
            one.process.terminate()
        limit = time.monotonic() + PATIENCE
        for one in self.running:
            try:
                one.process.wait(max(0.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
        self.waiting += [one.task for one in self.running]
        self.running.clear()


def run(plan: Plan, only: Sequence[str] = (), minutes: float | None = None, jobs: int = 1) -> int:
    """Bring the runs of a plan up to date, or as many as a deadline allows.

    Args:
        plan: the active plan.
        only: patterns of run names; what these need is run as well. None: all runs.
        minutes: after these, runs under way are ended and nothing more is started.
        jobs: how many runs at once.

    Returns:
        Exit code: 1 if a run failed, else 0, whether the work is finished or the time was up.

    Raises:
        EdcError: a pattern matches nothing, or somebody else is at work in this checkout.
    """
    deadline = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    tasks = list(dag.tasks(plan))
    pieces, started, late = Pieces(plan, ordered(tasks, only), upstream(tasks)), False, False
    with _alone(), _told_to_end(), ExitStack() as held:
        try:
            while time.monotonic() < deadline:
                pieces.collect()
                for task in pieces.ready():  # to the end, for what is done already to be counted
                    if len(pieces.running) < jobs:
                        if not started:
                            held.enter_context(libraries(plan.machine.threads))
                        started = True
                        pieces.start(task)
                if not pieces.running:
                    break
                time.sleep(POLL)
            else:
                late = True
            pieces.collect()
        finally:
            interrupted = len(pieces.running)
            pieces.stop()
    why = f"; time is up, {interrupted} interrupted" if late and pieces.left else ""
    print(f"{len(pieces.done)} runs done, {pieces.left} left, {len(pieces.failed)} failed{why}", flush=True)
    return 1 if pieces.failed else 0


def log_of(task: dag.Task) -> Path:
    """Where what a run says is kept."""
    return LOGS / task.stage / f"{task.key}.log"


@contextmanager
def _alone() -> Iterator[None]:
    """Two of these in one checkout would do every run twice."""
    from filelock import FileLock, Timeout

    try:
        STATE.mkdir(exist_ok=True)
    except OSError as error:
        raise EdcError(f"{STATE}: {error.strerror}; expected a folder to keep the state of runs in") from None
    lock = FileLock(STATE / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise EdcError("another `edc run` is at work in this checkout") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that runs under way end with this process."""

    def leave(*_: object) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _last_line(log: Path) -> str:
    lines: Iterable[str] = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(list(lines)) if line.strip()), "it said nothing")
