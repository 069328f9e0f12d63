"""Runs in worker processes that stay alive: each claims a device and imports PyTorch once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import cache

from edc.config.rows import Plan
from edc.errors import EdcError
from edc.pipeline.devices import claim, slots
from edc.pipeline.execute import execute, prepare
from edc.pipeline.status import Run, stale
from edc.storage.provenance import unknown_commit

_claims = ExitStack()
"""Of a worker process: holds its device until it ends."""


def run_all(
    plan: Plan,
    todo: Sequence[Run],
    jobs: int | None = None,
    force: bool = False,
    minutes: float | None = None,
    seconds: Callable[[Run], float] = lambda run: 0.0,
) -> int:
    """Make runs in parallel, each after those it builds on; up-to-date ones are skipped. Returns how many were made.

    Args:
        todo: which runs, in the order the data flows.
        jobs: how many at once; None: as many as the devices take.
        force: make them again even if they are up to date.
        minutes: end the process then; unfinished runs keep their checkpoints.
        seconds: estimate of a run's duration; the longest start first.

    Raises:
        EdcError: runs failed; all others were made but those that build on them.
    """
    pending = list(dict.fromkeys(todo)) if force else stale(plan, todo)
    if not pending:  # no worker starts, and PyTorch is not imported
        return 0
    if problem := unknown_commit():
        print(f"edc: the commit is unknown, runs are made without it ({problem})", file=sys.stderr, flush=True)
    jobs = min(jobs or slots(plan.machine.device, plan.machine.threads), len(pending))
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    # Python's helper process removes the semaphores of a pool that is left at once; it need not report that.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker")
    with _interruptible(), ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _follow_parent) as pool:
        return Schedule(plan, pending, jobs, force, pool).run(deadline, seconds)


class Schedule:
    """Runs that wait, in the order the data flows, that are being made by a pool of workers, and that failed."""

    def __init__(self, plan: Plan, waiting: list[Run], jobs: int, force: bool, pool: ProcessPoolExecutor) -> None:
        self.plan, self.waiting, self.jobs, self.force, self.pool = plan, waiting, jobs, force, pool
        self.running: dict[Future[float | None], Run] = {}
        self.failed: dict[Run, str] = {}
        self.total, self.made, self.begun = len(waiting), 0, time.monotonic()

    def run(self, deadline: float | None, seconds: Callable[[Run], float]) -> int:
        """Make them all; see :func:`run_all`."""
        while self.waiting or self.running:
            self._submit(seconds)
            if not self.running:  # all that waited build on failed runs
                continue
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            done, _ = wait(self.running, timeout, FIRST_COMPLETED)
            if not done:
                left = len(self.waiting) + len(self.running)
                _leave(f"the time is up with {left} runs left; the next call resumes them", 3)
            for future in done:
                self._finish(self.running.pop(future), future)
        if self.failed:
            lines = "\n".join(f"edc: {' '.join(run)} failed: {text}" for run, text in self.failed.items())
            raise EdcError(f"{len(self.failed)} of {self.total} runs failed\n{lines}")
        return self.made

    def _submit(self, seconds: Callable[[Run], float]) -> None:
        unfinished = {*self.waiting, *self.running.values()}
        ready = []
        for run in list(self.waiting):
            upstream = self.plan.upstream(*run)
            if failed := next((u for u in upstream if u in self.failed), None):
                self.waiting.remove(run)
                self.failed[run] = f"it builds on {' '.join(failed)}"
            elif not any(u in unfinished for u in upstream):
                ready.append(run)
        for run in sorted(ready, key=seconds, reverse=True)[: self.jobs - len(self.running)]:
            self.waiting.remove(run)
            self.running[self.pool.submit(_make, self.plan, run, self.force)] = run

    def _finish(self, run: Run, future: Future[float | None]) -> None:
        try:
            seconds = future.result()
        except EdcError as error:
            self.failed[run] = str(error)
            print(f"edc: {' '.join(run)} failed: {error}", file=sys.stderr, flush=True)
            return
        except BrokenProcessPool:
            raise EdcError(
                f"a worker ended while {' '.join(run)} was being made: killed, or the machine is out of memory; "
                "finished runs are kept, call again with fewer --jobs"
            ) from None
        if seconds is not None:
            self.made += 1
        done = self.total - len(self.waiting) - len(self.running) - len(self.failed)
        left = (time.monotonic() - self.begun) / done * (self.total - done)
        took = "was up to date" if seconds is None else f"took {seconds:.1f} s"
        print(
            f"edc: {' '.join(run)} {took} ({done} of {self.total}, about {left / 60:.1f} min left)",
            file=sys.stderr,
            flush=True,
        )


def _make(plan: Plan, run: Run, force: bool) -> float | None:
    """In a worker: make a run; seconds it took, None where nothing had to be done."""
    device = _claimed(plan.machine.device)
    prepare(plan, device)
    begun = time.monotonic()
    return time.monotonic() - begun if execute(plan, run, device, force) else None


@cache
def _claimed(device: str) -> str:
    return _claims.enter_context(claim(device))


def _follow_parent() -> None:
    """In a worker: leave signals to the parent, and end when it ends, however that happens."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end this process at once, and with it its workers; checkpoints are kept."""

    def stop(number: int, _: object) -> None:
        _leave("interrupted; finished runs are kept, the others resume from their checkpoints", 128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if "DVC_STAGE" in os.environ:  # DVC passes no signal on to what it started
        threading.Thread(target=_follow_dvc, args=[os.getppid()], daemon=True).start()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow_dvc(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    _leave("DVC has ended; finished runs are kept, the others resume from their checkpoints", 128 + signal.SIGTERM)


def _leave(message: str, code: int) -> None:
    print(f"edc: {message}", file=sys.stderr, flush=True)
    os._exit(code)
