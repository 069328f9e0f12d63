"""Commands that a process with the libraries loaded works for: they do, say and end as by themselves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import Checkout, until

from edc.pipeline.warm import ADDRESS, LIBRARIES, ONE_THREAD, _installation, hand_over, libraries

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="libraries survive forks on Linux")]

RUN = ("edc", "evaluate", "--run", "tiny-edc-ipc1-convnet_d2-edc")
KEY = RUN[-1]


@pytest.fixture
def warm() -> Iterator[dict[str, str]]:
    """What a command's environment must hold to be worked for."""
    with libraries(1):
        yield {ADDRESS: os.environ[ADDRESS]}


@pytest.fixture
def emptied(by_dvc, tmp_path) -> Checkout:
    """A checkout where one run has still to be done."""
    project = by_dvc.copy(tmp_path / "project")
    for path in project.path("results/evaluate", KEY).iterdir():
        path.unlink()
    return project


@pytest.fixture
def lasting(emptied) -> Checkout:
    """A checkout with a run to do that takes long enough to be disturbed."""
    emptied.edit("params.yaml", {f"evaluate.{KEY}.seeds": list(range(40))})
    return emptied


@pytest.fixture
def started(lasting, warm) -> Iterator[subprocess.Popen[str]]:
    """The lasting run, under way and worked for: it has saved a checkpoint."""
    process = lasting.start(*RUN, EDC_CHECKPOINT_SECONDS="0", **warm)
    try:
        assert until(lasting.path(".edc/checkpoints/evaluate", f"{KEY}.pt").exists), process.poll()
        assert len(processes(warm[ADDRESS])) == 2, "nobody works for it"
        yield process
    finally:
        process.kill()
        process.communicate()


def processes(address: str) -> set[int]:
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


def serving(address: str) -> int:
    """The process that serves a socket; it leads its session."""
    (found,) = {pid for pid in processes(address) if os.getsid(pid) == pid}
    return found


def working(address: str) -> int:
    """The process that works for the only command."""
    (found,) = processes(address) - {serving(address)}
    return found


def state(pid: int) -> str:
    """A letter: R, S, T, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_it_leaves_and_says_the_same(emptied, by_dvc, warm):
    done = emptied.run(*RUN, **warm)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert emptied.outputs("evaluate", KEY) == by_dvc.outputs("evaluate", KEY) != {}
    assert until(lambda: processes(warm[ADDRESS]) == {serving(warm[ADDRESS])}), "what worked has not ended"


def variables(pid: int) -> bytes:
    """What a process was started with."""
    return Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="another allocator")
def test_the_allocator_keeps_no_lists_of_small_pieces(lasting, warm):
    wanted = b"GLIBC_TUNABLES=glibc.malloc.tcache_count=0"
    assert until(lambda: processes(warm[ADDRESS])), "it has not started"
    assert wanted in variables(serving(warm[ADDRESS]))
    with lasting.start(*RUN, **{ADDRESS: ""}) as alone:
        try:
            assert until(lambda: wanted in variables(alone.pid))
        finally:
            alone.kill()


def test_mistakes_are_told_as_ever(by_dvc, warm):
    said = [by_dvc.refused("edc", "evaluate", "--run", "nonsense", **more) for more in ({}, warm)]
    assert said[0] == said[1]
    used = [by_dvc.run("edc", "evaluate", **more) for more in ({}, warm)]
    assert (used[0].returncode, used[0].stderr) == (used[1].returncode, used[1].stderr)
    assert used[0].returncode == 2


def test_sources_are_those_of_the_commands_checkout_as_they_are_now(emptied, warm):
    for word in ("first", "second"):
        emptied.path("src/edc/evaluate.py").write_text(
            f"import sys\nraise SystemExit({word!r} * ('torch' in sys.modules))"
        )
        done = emptied.run(*RUN, **warm)
        assert (done.returncode, done.stderr) == (1, f"{word}\n")


def test_a_signal_reaches_the_work_and_its_end_the_command(started, warm):
    started.terminate()
    started.communicate()
    assert started.returncode == -signal.SIGTERM
    assert until(lambda: len(processes(warm[ADDRESS])) == 1)


def test_the_work_is_suspended_with_its_command(started, warm):
    worker = working(warm[ADDRESS])
    started.send_signal(signal.SIGTSTP)
    assert until(lambda: (state(started.pid), state(worker)) == ("T", "T"))
    started.send_signal(signal.SIGCONT)
    assert until(lambda: state(worker) in "RSD")


def test_the_work_dies_with_its_command_and_goes_on_with_the_next(lasting, started, warm, tmp_path):
    started.kill()
    started.communicate()
    assert until(lambda: len(processes(warm[ADDRESS])) == 1)
    assert "manifest.json" not in lasting.outputs("evaluate", KEY)
    whole = lasting.copy(tmp_path / "whole")
    shutil.rmtree(whole.path(".edc/checkpoints"))
    whole.ok(*RUN)
    said = lasting.run(*RUN, **warm)
    assert said.stderr == f"edc: evaluate {KEY} goes on from its checkpoint\n"
    assert lasting.outputs("evaluate", KEY) == whole.outputs("evaluate", KEY)


def test_the_work_dies_with_a_command_that_has_not_heard_of_its_beginning(lasting, warm):
    asked = {"arguments": list(RUN), "environment": lasting.environment(), "folder": str(lasting.root)}
    asked |= {"python": _installation(), "path": [str(lasting.path("src")), *sys.path], "package": None}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(warm[ADDRESS])
        socket.send_fds(connection, [json.dumps(asked).encode() + b"\n"], (0, 1, 2))
        assert connection.recv(5, socket.MSG_PEEK) == b"begun"
        assert len(processes(warm[ADDRESS])) == 2
    assert until(lambda: len(processes(warm[ADDRESS])) == 1)


def test_a_command_whose_work_is_killed_says_so(started, warm):
    os.kill(working(warm[ADDRESS]), signal.SIGKILL)
    started.communicate()
    assert started.returncode == -signal.SIGKILL


def test_work_outlives_whoever_forked_it(emptied, by_dvc, warm):
    emptied.edit("params.yaml", {f"evaluate.{KEY}.seeds": list(range(10))})
    whole = emptied.copy(emptied.root.parent / "whole")
    process = emptied.start(*RUN, EDC_CHECKPOINT_SECONDS="0", **warm)
    assert until(emptied.path(".edc/checkpoints/evaluate", f"{KEY}.pt").exists)
    os.kill(serving(warm[ADDRESS]), signal.SIGKILL)
    process.communicate()
    assert process.returncode == 0
    whole.ok(*RUN)
    assert emptied.outputs("evaluate", KEY) == whole.outputs("evaluate", KEY) != {}


def test_without_anybody_there_a_command_works_itself(emptied, by_dvc, tmp_path, monkeypatch):
    gone = str(tmp_path / "socket")
    emptied.ok(*RUN, **{ADDRESS: gone})
    assert emptied.outputs("evaluate", KEY) == by_dvc.outputs("evaluate", KEY) != {}
    monkeypatch.setenv(ADDRESS, gone)
    assert hand_over(["edc"]) is None


def test_where_there_is_no_place_for_a_socket_nothing_is_kept(tmp_path, monkeypatch):
    deep = tmp_path / ("a" * 120)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with libraries(1):
        assert ADDRESS not in os.environ
    assert list(deep.iterdir()) == []


def test_it_ends_with_whoever_started_it():
    code = "import os, time, edc.pipeline.warm as w\nheld = w.libraries(1)\nheld.__enter__()\n"
    code += "print(os.environ[w.ADDRESS], flush=True)\ntime.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        address = owner.stdout.readline().strip()
        assert len(processes(address)) == 1
        owner.kill()
    assert until(lambda: not processes(address))
    assert until(lambda: not Path(address).parent.exists())


@pytest.mark.parametrize("command", [("edc", "run"), ("snakemake", "--cores", "1")], ids=lambda command: command[0])
def test_runners_use_it(emptied, command):
    source, word = emptied.path("src/edc/evaluate.py"), "'loaded' if 'torch' in sys.modules else 'not loaded'"
    source.write_text(source.read_text() + f"\nimport sys\nraise SystemExit({word})\n")
    emptied.run(*command)
    assert {path.read_text() for path in emptied.path("logs/evaluate").glob("*.log")} == {"loaded\n"}


def test_nothing_of_this_project_is_loaded_before_a_command_comes():
    assert not [name for name in LIBRARIES if name.partition(".")[0] == "edc"]
    code = f"import importlib, sys\nfor name in {LIBRARIES!r}: importlib.import_module(name)\n"
    code += "assert not [name for name in sys.modules if name.partition('.')[0] == 'edc']\n"
    code += "print(open('/proc/self/status').read().partition('Threads:')[2].split()[0])"
    said = subprocess.check_output([sys.executable, "-c", code], env=os.environ | ONE_THREAD, text=True)
    assert said.strip() == "1", "threads are lost in a fork"
