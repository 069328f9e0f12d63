"""Claiming a GPU: runs of one machine never share one, and a killed run gives its own back."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial

import pytest
from checkout import LIMIT

CLAIM = """
import os, sys
from edc.pipeline.devices import claim
with claim(sys.argv[1]) as device:
    print(device, os.environ["CUDA_VISIBLE_DEVICES"], "torch" in sys.modules, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def claim(planned, tmp_path):
    """Starts a process that claims a device and holds it until it is told to end, or killed."""
    started = []

    def start(gpus: str, wanted: str = "auto", **more: str) -> subprocess.Popen[str]:
        environment = planned.environment(CUDA_VISIBLE_DEVICES=gpus, TMPDIR=str(tmp_path), **more)
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", CLAIM, wanted], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        started.append(process)
        return process

    watchdog = threading.Timer(LIMIT, lambda: [process.kill() for process in started])
    watchdog.start()
    yield start
    watchdog.cancel()
    for process in started:
        process.kill()
        process.communicate()


def test_two_runs_get_two_gpus_and_a_third_waits_until_one_was_killed(claim):
    first, second = claim("0,1"), claim("0,1")
    answers = [process.stdout.readline().split() for process in (first, second)]
    assert sorted(answers) == [["cuda", "0", "False"], ["cuda", "1", "False"]]
    third = claim("0,1")
    assert third.stderr.readline() == "edc: all GPUs (0, 1) are claimed by other runs; waiting for one\n"
    assert third.poll() is None
    first.kill()
    assert first.wait() == -9
    assert third.stdout.readline().split() == answers[0]


def test_several_runs_share_a_gpu_where_the_environment_says_so(claim):
    start = partial(claim, EDC_RUNS_PER_GPU="2")
    answers = [start("0,1").stdout.readline().split()[1] for _ in range(4)]
    assert answers == ["0", "1", "0", "1"]
    fifth = start("0,1")
    assert fifth.stderr.readline() == "edc: all GPUs (0, 1) are claimed by other runs; waiting for one\n"


def test_a_run_that_ends_gives_its_gpu_back(claim):
    first = claim("GPU-5f2c/1")
    assert first.stdout.readline().split()[:2] == ["cuda", "GPU-5f2c/1"]
    first.communicate("\n")
    assert first.returncode == 0
    assert claim("GPU-5f2c/1").stdout.readline().split()[:2] == ["cuda", "GPU-5f2c/1"]


def test_without_gpus_auto_is_the_cpu(claim):
    assert claim("").stdout.readline().split()[0] == "cpu"
    assert claim("-1").stdout.readline().split()[0] == "cpu"


def test_the_cpu_is_never_waited_for_and_hides_the_gpus(claim):
    claimed = [claim("0", "cpu") for _ in range(2)]
    assert [process.stdout.readline().split() for process in claimed] == [["cpu", "False"]] * 2
