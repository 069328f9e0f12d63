"""`edc bench` in processes of its own."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from support import REPOSITORY

from edc.bench.cases import Case
from edc.bench.run import run_bench

pytestmark = pytest.mark.slow


def test_measured_cases_are_not_repeated(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    to = tmp_path / "bench.csv"
    todo = [Case("relabel", "digits", network, 100) for network in ("convnet_d1", "convnet_d2")]
    first = run_bench(todo[:1], "cpu", 1, 0, "edc_code", to)
    both = run_bench(todo, "cpu", 1, 0, "edc_code", to)
    assert both["network"].tolist() == ["convnet_d1", "convnet_d2"]
    assert both["milliseconds"].iloc[0] == pytest.approx(first["milliseconds"].iloc[0], abs=1e-4)
    assert run_bench(todo[:1], "cpu", 1, 0, "edc", to)["recipe"].tolist() == ["edc"]
    stored = pd.read_csv(to)
    assert stored["recipe"].tolist() == ["edc_code", "edc_code", "edc"]
    assert set(stored["threads"]) == {1}
    assert stored[["device", "torch", "commit", "dirty"]].notna().all(axis=None)


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_bench_leaves_no_process(number, tmp_path):
    options = ["--stage", "relabel", "--network", "convnet_d1", "--images", "100", "--seconds", "600"]
    command = [sys.executable, "-m", "edc.cli", "bench", "--dataset", "digits", *options]
    with subprocess.Popen([*command, "--to", str(tmp_path / "bench.csv")], cwd=REPOSITORY) as bench:
        while not (started := children(bench.pid)) and bench.poll() is None:
            time.sleep(0.1)
        assert len(started) == 1
        time.sleep(1)
        bench.send_signal(number)
        bench.wait()
    until = time.monotonic() + 60
    while Path(f"/proc/{started[0]}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(f"/proc/{started[0]}").exists()
    assert not list(tmp_path.iterdir())
