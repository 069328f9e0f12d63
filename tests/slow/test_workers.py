"""Worker processes that end early: by the time limit, killed, or with their parent."""

import os
import signal
import time
from pathlib import Path

import pytest
from support.workers import call, plan

pytestmark = pytest.mark.slow
LONG = plan(epochs=100_000)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def workers(process):
    """Workers of a process, once a checkpoint was saved."""
    saved, limit = Path(".edc/checkpoints/pretrain/b.pt"), time.monotonic() + 120
    while not saved.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    assert saved.exists(), process.communicate()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_the_time_limit_leaves_a_checkpoint():
    process = call(LONG, minutes=0.5)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 3
    assert errors == "edc: the time is up with 1 runs left; the next call resumes them\n"
    assert Path(".edc/checkpoints/pretrain/b.pt").exists()


def test_a_worker_that_is_killed_is_one_line():
    process = call(LONG)
    (worker,) = workers(process)
    os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert "EdcError: a worker ended while pretrain b was being made: killed, or the machine is out of memory" in errors


def test_workers_end_with_their_parent():
    process = call(LONG)
    (worker,) = workers(process)
    process.kill()
    process.communicate(timeout=120)  # its pipes are closed when the workers have ended too
    stat = Path(f"/proc/{worker}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
