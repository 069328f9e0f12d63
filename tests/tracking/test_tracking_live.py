"""Background senders and a real server: several processes, a fresh database, a server that goes away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edc.tracking import Run, drain, sender, spool

ROOT = Path(".edc/tracking")

JOB = """
    import sys, time
    from edc.tracking import sender
    from edc.tracking import Run
    sender.BACKGROUND_WATCH = 1.0
    seed = int(sys.argv[1])
    with Run(stage="evaluate", row="row", params={"ipc": 10}, study="digits", seed=seed) as run:
        for step in range(20):
            run.metrics({"accuracy": step + seed / 10}, step)
            time.sleep(float(sys.argv[2]))
"""


def until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether it became true in time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def all_sent() -> bool:
    return not list(ROOT.glob("*.jsonl")) and not list(ROOT.glob("*.sent.json"))


def test_eight_processes_at_once_on_a_fresh_database(fresh_database, python):
    jobs = [python(JOB, seed, 0.05, EDC_TRACKING="on") for seed in range(8)]
    for job in jobs:
        assert job.communicate(timeout=60) == ("", "")
        assert job.returncode == 0
    assert until(all_sent, 60), (ROOT / "sender.log").read_text()
    assert fresh_database.metrics() == sorted(
        ("accuracy", step, step + seed / 10) for step in range(20) for seed in range(8)
    )
    assert {run.info.status for run in fresh_database.runs()} == {"FINISHED"}
    assert len(fresh_database.runs()) == 8
    assert not (ROOT / "sender.log").exists()


def test_background_sender_follows_a_live_run_and_its_death(database, python):
    job = python(JOB, 0, 1.0, EDC_TRACKING="on")
    assert until(lambda: len(database.metrics()) >= 2, 30)
    assert database.run().info.status == "RUNNING"
    job.kill()
    job.wait()
    assert until(all_sent, 30)
    assert database.run().info.status == "KILLED"


def test_sender_that_died_is_replaced_while_the_run_goes_on(database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDC_TRACKING", "on")
    monkeypatch.setattr(sender, "BACKGROUND_WATCH", 1.0)
    monkeypatch.setattr(spool, "ASK_AGAIN", 0.5)
    with Run(stage="evaluate", row="row", params={}, study="digits") as run:
        (first,) = sender._started
        time.sleep(0.3)
        first.kill()
        first.wait()
        for step in range(100):
            run.metrics({"accuracy": step}, step)
            time.sleep(0.01)
        assert sender._started != [first]
    assert until(all_sent, 30)
    assert [step for _, step, _ in database.metrics()] == list(range(100))
    assert all(process.wait(10) == 0 for process in sender._started)


def test_following_a_run_without_a_server_ends_soon_after_it(python, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    job = python(JOB, 0, 0.05)
    assert until(lambda: list(ROOT.glob("*.jsonl")) != [], 10)
    follower = python("from edc.tracking import drain; print(drain(watch=1.0))")
    assert job.wait(30) == 0
    assert "1 pending" in follower.communicate(timeout=30)[0]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def server(port: int, folder: Path) -> Iterator[None]:
    """A real tracking server; its workers end with it."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    process = subprocess.Popen(
        command,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def answers() -> bool:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200
        except OSError:
            return False

    try:
        assert until(answers, 90), "the server did not start"
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.early(8)
def test_real_server_that_goes_away_and_comes_back(database, monkeypatch: pytest.MonkeyPatch):
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    Path("sheet.txt").write_text("picture")
    about = {"stage": "evaluate", "row": "row", "params": {"ipc": 10}, "study": "digits"}
    with Run(**about) as run:
        run.dataset("digits", "d" * 64)
        run.artifact(Path("sheet.txt"))
        with server(port, database.path.parent):
            for step in range(1200):
                run.metrics({"accuracy": step}, step)
            run.metrics({"odd": float("nan"), "steep": float("inf")}, 0)
            assert drain().error is None
        for step in range(1200, 1300):
            run.metrics({"accuracy": step}, step)
    start = time.monotonic()
    summary = drain()
    assert time.monotonic() - start < 15
    assert (summary.pending_runs, summary.error is None) == (1, False)
    with server(port, database.path.parent):
        assert drain().error is None
        assert all_sent()
    assert [m for m in database.metrics() if m[0] == "accuracy"] == [("accuracy", s, float(s)) for s in range(1300)]
    assert database.run().info.status == "FINISHED"
    assert len(database.run().inputs.dataset_inputs) == 1
    assert [path.read_text() for path in Path("artifacts").rglob("sheet.txt")] == ["picture"]
