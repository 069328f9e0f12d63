"""Claiming a GPU (no two runs of one machine share one, a killed run releases its own), and memory facts."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch

from edc.errors import EdcError
from edc.pipeline import devices

CLAIM = """
import os, sys
from edc.pipeline.devices import claim
with claim(sys.argv[1]) as device:
    print(device, os.environ["CUDA_VISIBLE_DEVICES"], "torch" in sys.modules, flush=True)
    sys.stdin.readline()
"""
WAITING = "edc: other runs hold all GPUs (0, 1); waiting for one\n"


@pytest.fixture
def claim(tmp_path):
    """Starts a process that claims a device and holds it until it reads a line, or is killed."""
    started = []
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "EDC_"))}

    def start(gpus, device="auto", **changes):
        environment = inherited | {"CUDA_VISIBLE_DEVICES": gpus, "TMPDIR": str(tmp_path)} | changes
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, "-c", CLAIM, device]
        started.append(subprocess.Popen(command, env=environment, text=True, **streams))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_runs_get_two_gpus_and_a_third_waits_until_one_was_killed(claim):
    first, second = claim("0,1"), claim("0,1")
    lines = [process.stdout.readline().split() for process in (first, second)]
    assert sorted(lines) == [["cuda", "0", "False"], ["cuda", "1", "False"]]
    third = claim("0,1")
    assert third.stderr.readline() == WAITING
    assert third.poll() is None
    first.kill()
    assert third.stdout.readline().split() == lines[0]
    second.communicate("\n")
    assert claim("0,1").stdout.readline().split() == lines[1]


def test_several_runs_share_a_gpu_where_the_environment_allows_it(claim):
    start = partial(claim, EDC_RUNS_PER_GPU="2")
    assert [start("0,1").stdout.readline().split()[1] for _ in range(4)] == ["0", "1", "0", "1"]
    assert start("0,1").stderr.readline() == WAITING


def test_the_cpu_and_the_devices_of_a_slurm_job_are_never_waited_for(claim):
    for process in (claim(""), claim("-1"), claim("0", "cpu"), claim("0", "cpu")):
        assert process.stdout.readline().split() == ["cpu", "False"]  # no GPU is visible
    for process in (claim("3", SLURM_JOB_ID="1"), claim("3", SLURM_JOB_ID="2")):
        assert process.stdout.readline().split()[:2] == ["cuda", "3"]


def test_a_gpu_where_there_is_none(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(EdcError, match=r"machine\.device = 'cuda': no GPU is visible"), devices.claim("cuda"):
        pass


@pytest.mark.parametrize("value", ["0", "-1", "x", "nan"])
def test_a_variable_that_is_no_number(monkeypatch, value):
    monkeypatch.setenv("EDC_RUNS_PER_GPU", value)
    with pytest.raises(EdcError, match=f"^EDC_RUNS_PER_GPU={value}: expected a whole number"):
        devices.runs_per_gpu()
    monkeypatch.setenv("EDC_GPU_MEMORY", value)
    with pytest.raises(EdcError, match=f"^EDC_GPU_MEMORY={value}: expected a number of GB"):
        devices.share_of_memory(None, torch.device("cpu"))


def python(code):
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_peak_memory_is_not_inherited_from_the_process_that_started_this_one():
    large = bytearray(400 * 2**20)
    peak = python("from edc.pipeline.devices import peak_memory; print(peak_memory())")
    assert 2**20 < peak < len(large)


HEAP = """
import resource
from edc.pipeline.devices import keep_freed_memory
import torch
keep_freed_memory()
def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        maps = [torch.full((2**20,), 1.0) for _ in range(8)]
        del maps
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(5)
print(faults(40))
"""


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}), reason="another allocator")
def test_freed_memory_is_used_again_without_page_faults():
    """Forty times eight maps of 4 MiB would be 327,680 faults, were they mapped each time."""
    assert python(HEAP) < 8 * 1024


def test_a_slurm_job_makes_as_many_runs_at_once_as_its_cores_allow(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert [devices.slots("cpu", threads) for threads in (1, 2, 4, 8)] == [6, 3, 1, 1]
