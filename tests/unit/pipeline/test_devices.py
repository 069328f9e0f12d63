"""Claiming a GPU (no two runs of one machine share one, a killed run releases its own), and memory facts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from edc.errors import EdcError
from edc.pipeline import devices

CLAIM = """
import os, sys
from edc.pipeline.devices import claim
with claim(sys.argv[1]) as device:
    print(device, os.environ["CUDA_VISIBLE_DEVICES"], "torch" in sys.modules, flush=True)
    sys.stdin.readline()
"""
Process = subprocess.Popen[str]


@pytest.fixture
def claim(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a process that claims a device and holds it until it reads a line, or is killed."""
    started: list[Process] = []
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "EDC_"))}

    def start(gpus: str, device: str = "auto", **changes: str) -> Process:
        environment = inherited | {"CUDA_VISIBLE_DEVICES": gpus, "TMPDIR": str(tmp_path)} | changes
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", CLAIM, device]
        started.append(subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line(process: Process) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def waiting(process: Process) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


WAITING = "edc: other runs hold all GPUs (0, 1); waiting for one\n"


def test_two_runs_get_two_gpus_and_a_third_waits_until_one_was_killed(claim: Callable[..., Process]) -> None:
    first, second = claim("0,1"), claim("0,1")
    lines = [line(process) for process in (first, second)]
    assert sorted(lines) == [["cuda", "0", "False"], ["cuda", "1", "False"]]
    third = claim("0,1")
    assert waiting(third) == WAITING
    assert third.poll() is None
    first.kill()
    assert line(third) == lines[0]


def test_several_runs_share_a_gpu_where_the_environment_allows_it(claim: Callable[..., Process]) -> None:
    start = partial(claim, EDC_RUNS_PER_GPU="2")
    assert [line(start("0,1"))[1] for _ in range(4)] == ["0", "1", "0", "1"]
    assert waiting(start("0,1")) == WAITING


def test_a_run_that_ends_releases_its_gpu(claim: Callable[..., Process]) -> None:
    first = claim("GPU-5f2c/1")
    assert line(first)[:2] == ["cuda", "GPU-5f2c/1"]
    first.communicate("\n")
    assert line(claim("GPU-5f2c/1"))[:2] == ["cuda", "GPU-5f2c/1"]


def test_the_cpu_is_taken_without_gpus_or_where_the_plan_has_it_and_never_waited_for(
    claim: Callable[..., Process],
) -> None:
    for process in (claim(""), claim("-1"), claim("0", "cpu"), claim("0", "cpu")):
        assert line(process) == ["cpu", "False"]  # no GPU is visible


def test_the_devices_of_a_slurm_job_are_not_locked(claim: Callable[..., Process], tmp_path: Path) -> None:
    for process in (claim("3", SLURM_JOB_ID="1"), claim("3", SLURM_JOB_ID="2")):
        assert line(process)[:2] == ["cuda", "3"]
    assert not list(tmp_path.glob("edc-gpus-*"))


def test_a_gpu_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(EdcError, match=r"machine\.device = 'cuda': no GPU is visible"), devices.claim("cuda"):
        pass


@pytest.mark.parametrize(("gpus", "runs", "expected"), [("0,1", "1", 2), ("0,1", "3", 6), ("", "1", None)])
def test_runs_at_once_by_devices(monkeypatch: pytest.MonkeyPatch, gpus: str, runs: str, expected: int | None) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setenv("EDC_RUNS_PER_GPU", runs)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert devices.slots("auto", 3) == (expected or 2)
    assert devices.slots("cpu", 16) == 1


@pytest.mark.parametrize(
    ("name", "value", "call"),
    [
        *(("EDC_RUNS_PER_GPU", value, devices.runs_per_gpu) for value in ("0", "-1", "1.5", "x")),
        *(
            ("EDC_GPU_MEMORY", value, lambda: devices.share_of_memory(None, "cpu"))
            for value in ("0", "nan", "inf", "x")
        ),
    ],
)
def test_a_variable_that_is_no_number(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, call: Callable[[], object]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(EdcError, match=f"^{name}={value}: expected "):
        call()


def python(code: str) -> int:
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_peak_memory_is_not_inherited_from_the_process_that_started_this_one() -> None:
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
def test_freed_memory_is_used_again_without_page_faults() -> None:
    """Forty times eight maps of 4 MiB would be 327,680 faults, were they mapped each time."""
    assert python(HEAP) < 8 * 1024
