"""Runs in worker processes: order, failures, force; nothing heavy is imported without work."""

import os
import signal
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from support.workers import IMAGES, JOINED, RUNS, A, B, call, plan

from edc.errors import EdcError
from edc.pipeline import workers
from edc.pipeline.execute import execute
from edc.pipeline.status import stale
from edc.pipeline.workers import run_all
from edc.storage import run_folder

LONG = plan(epochs=100_000)
DIVERGING = plan(optimiser={"name": "sgd", "lr": 1e30})


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def order(monkeypatch):
    """The runs in the order they were begun, in this process."""
    begun = []

    class InlinePool:
        def __init__(self, *_):
            begun.clear()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, function, plan, run, force):
            future = Future()
            begun.append(run)
            try:
                future.set_result(1.5 if execute(plan, run, "cpu", force) else None)
            except EdcError as error:
                future.set_exception(error)
            return future

    monkeypatch.setattr(workers, "ProcessPoolExecutor", InlinePool)
    return begun


def test_two_workers_make_runs_after_those_they_build_on(capsys):
    assert run_all(plan(), RUNS, jobs=2) == 4
    made = {run: (run_folder(*run) / "manifest.json").stat().st_mtime_ns for run in RUNS}
    assert max(made[A], made[B]) < made[JOINED]
    lines = [line for line in capsys.readouterr().err.splitlines() if " took " in line]
    assert {tuple(line.split()[1:3]) for line in lines} == set(RUNS)
    assert lines[-1].endswith("(4 of 4, about 0.0 min left)")


def test_up_to_date_runs_are_skipped(order, capsys):
    assert run_all(plan(), RUNS, jobs=1) == 4
    assert run_all(plan(), RUNS) == 0
    assert run_all(plan(seed=2), RUNS, jobs=1) == 2
    assert order == [B, JOINED]
    (run_folder(*B) / "weights.safetensors").unlink()
    assert run_all(plan(seed=2), RUNS, jobs=1) == 1
    assert order == [B, JOINED]  # the latter only to find that its input came out with the same bytes
    assert "edc: statistics joined was up to date (2 of 2, about 0.0 min left)" in capsys.readouterr().err


def test_the_longest_runs_start_first_and_all_again_where_forced(order):
    seconds = {A: 1.0, B: 3.0, IMAGES: 2.0}
    assert run_all(plan(), [A, B, IMAGES], jobs=1, seconds=seconds.__getitem__) == 3
    assert order == [B, IMAGES, A]
    assert run_all(plan(), [A], jobs=1, force=True) == 1
    assert order == [A]


def test_a_failed_run_stops_what_builds_on_it_and_nothing_else(order):
    with pytest.raises(EdcError) as error:
        run_all(DIVERGING, RUNS, jobs=1)
    first, *lines = str(error.value).splitlines()
    assert first == "2 of 4 runs failed"
    assert lines[0].startswith("edc: pretrain b failed: pretrain.b: diverged in epoch 0")
    assert lines[1] == "edc: statistics joined failed: it builds on pretrain b"
    assert stale(DIVERGING) == [B, JOINED]
    with pytest.raises(EdcError, match="2 of 2 runs failed"):  # nothing else is left that could be made
        run_all(DIVERGING, [B, JOINED], jobs=1)


def test_without_anything_to_do_nothing_heavy_is_imported(order):
    assert run_all(plan(), [B], jobs=1) == 1
    assert call(plan()).communicate() == ("[]\n", "")


# Workers that end early: by the time limit, killed, or with their parent


def workers_of(process):
    """Workers of a process, once a checkpoint was saved."""
    saved, limit = Path(".edc/checkpoints/pretrain/b.pt"), time.monotonic() + 120
    while not saved.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    assert saved.exists(), process.communicate()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.slow
def test_the_time_limit_leaves_a_checkpoint():
    process = call(LONG, minutes=0.5)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 3
    unknown, last = errors.splitlines()  # this folder is no repository, which is said once
    assert unknown.startswith("edc: the commit is unknown, runs are made without it (")
    assert last == "edc: the time is up with 1 runs left; the next call resumes them"
    assert Path(".edc/checkpoints/pretrain/b.pt").exists()


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_line():
    process = call(LONG)
    (worker,) = workers_of(process)
    os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert "EdcError: a worker ended while pretrain b was being made: killed, or the machine is out of memory" in errors


@pytest.mark.slow
def test_workers_end_with_their_parent():
    process = call(LONG)
    (worker,) = workers_of(process)
    process.kill()
    process.communicate(timeout=120)  # its pipes are closed when the workers have ended too
    stat = Path(f"/proc/{worker}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
