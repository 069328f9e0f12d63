"""Commands that a process with the libraries loaded works for: nobody can tell but by the time they take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import Checkout

from edc.warm import ADDRESS, LIBRARIES, hand_over, libraries

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="libraries survive forks on Linux")]

RUN = ("edc", "evaluate", "--run", "tiny-edc-ipc1-convnet_d2-edc")
KEY = RUN[-1]


@pytest.fixture
def warm() -> Iterator[dict[str, str]]:
    """What a command's environment must hold to be worked for."""
    with libraries():
        yield {ADDRESS: os.environ[ADDRESS]}


@pytest.fixture
def lasting(by_dvc, tmp_path) -> Checkout:
    """A checkout with a run that takes long enough to be disturbed."""
    project = by_dvc.copy(tmp_path / "project")
    project.edit("params.yaml", {f"evaluate.{KEY}.seeds": list(range(40))})
    for path in project.path("results/evaluate", KEY).iterdir():
        path.unlink()
    return project


def workers(address: str) -> set[int]:
    """The process that serves a socket, and those that work for its commands."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # ended meanwhile
            if os.path.dirname(address).encode() in words:
                found.add(int(folder.name))
    return found


def until(true) -> bool:
    """Wait for something to become true."""
    limit = time.monotonic() + 60
    while not true() and time.monotonic() < limit:
        time.sleep(0.01)
    return bool(true())


def started(project: Checkout, environment: dict[str, str]) -> subprocess.Popen[str]:
    """The lasting run, under way: it has saved a checkpoint."""
    process = project.start(*RUN, EDC_CHECKPOINT_SECONDS="0", **environment)
    assert until(project.path(".edc/checkpoints/evaluate", f"{KEY}.pt").exists), process.poll()
    return process


def test_it_leaves_and_says_the_same(by_dvc, tmp_path, warm):
    project = by_dvc.copy(tmp_path / "project")
    for path in project.path("results/evaluate", KEY).iterdir():
        path.unlink()
    done = project.run(*RUN, **warm)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert project.outputs("evaluate", KEY) == by_dvc.outputs("evaluate", KEY) != {}
    assert len(workers(warm[ADDRESS])) == 1, "what worked has ended"


def test_mistakes_are_told_as_ever(by_dvc, warm):
    said = [by_dvc.refused("edc", "evaluate", "--run", "nonsense", **more) for more in ({}, warm)]
    assert said[0] == said[1]
    used = [by_dvc.run("edc", "evaluate", **more) for more in ({}, warm)]
    assert (used[0].returncode, used[0].stderr) == (used[1].returncode, used[1].stderr)
    assert used[0].returncode == 2


def test_sources_are_those_of_the_commands_checkout_as_they_are_now(by_dvc, tmp_path, warm):
    project = by_dvc.copy(tmp_path / "project")
    for word in ("first", "second"):
        module = project.path("src/edc/evaluate.py")
        module.write_text(f"raise SystemExit({word!r})\n")
        done = project.run(*RUN, **warm)
        assert (done.returncode, done.stderr) == (1, f"{word}\n")


def test_a_signal_reaches_the_work_and_its_end_the_command(lasting, warm):
    process = started(lasting, warm)
    assert len(workers(warm[ADDRESS])) == 2
    process.terminate()
    process.communicate()
    assert process.returncode == -signal.SIGTERM
    assert until(lambda: len(workers(warm[ADDRESS])) == 1)


def test_the_work_dies_with_its_command_and_goes_on_with_the_next(lasting, warm, tmp_path):
    whole = lasting.copy(tmp_path / "whole")
    whole.ok(*RUN)
    process = started(lasting, warm)
    process.kill()
    process.communicate()
    assert until(lambda: len(workers(warm[ADDRESS])) == 1)
    assert "manifest.json" not in lasting.outputs("evaluate", KEY)
    said = lasting.run(*RUN, **warm)
    assert said.stderr == f"edc: evaluate {KEY} goes on from its checkpoint\n"
    assert lasting.outputs("evaluate", KEY) == whole.outputs("evaluate", KEY)


def test_a_command_whose_work_is_killed_says_so(lasting, warm):
    process = started(lasting, warm)
    (serving,) = {pid for pid in workers(warm[ADDRESS]) if os.getsid(pid) == pid}
    (working,) = workers(warm[ADDRESS]) - {serving}
    os.kill(working, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_without_anybody_there_a_command_works_itself(by_dvc, tmp_path):
    gone = {ADDRESS: str(tmp_path / "socket")}
    project = by_dvc.copy(tmp_path / "project")
    for path in project.path("results/evaluate", KEY).iterdir():
        path.unlink()
    project.ok(*RUN, **gone)
    assert project.outputs("evaluate", KEY) == by_dvc.outputs("evaluate", KEY) != {}
    assert hand_over(["edc"]) is None


def test_it_ends_with_whoever_started_it(tmp_path):
    code = "import os, signal, edc.warm as w\nheld = w.libraries()\nheld.__enter__()\n"
    code += "print(os.environ[w.ADDRESS], flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    address = done.stdout.strip()
    assert done.returncode == -signal.SIGKILL
    assert until(lambda: not workers(address))
    assert not Path(address).parent.exists()


def test_nothing_of_this_project_is_loaded_before_a_command_comes():
    assert not [name for name in LIBRARIES if name.partition(".")[0] == "edc"]
    code = f"import importlib, sys\nfor name in {LIBRARIES!r}: importlib.import_module(name)\n"
    code += "assert not [name for name in sys.modules if name.partition('.')[0] == 'edc']\n"
    code += "print(open('/proc/self/status').read().partition('Threads:')[2].split()[0])"
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip() == "1"
