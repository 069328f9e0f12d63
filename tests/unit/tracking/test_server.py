"""Tracking with a real MLflow server: over HTTP, away for a while, and a synchronisation that is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import free_ports
from support.tracking import EDC, finish, identifiers, runs, server

from edc import tracking

KILLED = """
import os, signal
from edc import tracking
from edc.tracking.store import Store
from support.tracking import make_plan
calls = iter(range(100))
create = Store.create
def killed(self, run, parent=None):
    if next(calls) == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    create(self, run, parent)
Store.create = killed
tracking.sync(make_plan())
"""


@pytest.mark.slow
def test_server_that_goes_away_and_comes_back(plan, project, monkeypatch, capfd):
    (port,) = free_ports(1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    with server(f"sqlite:///{project}/mlflow.db", port, project):
        assert tracking.sync(plan) == f"tracking: 4 runs recorded, 0 unchanged in http://127.0.0.1:{port}"
        before = identifiers()
    finish("evaluate", EDC, {"dataset": "digits", "seeds": [0]}, scores={"final": [1.0], "best": [1.0]})
    assert tracking.sync(plan).startswith(f"tracking: http://127.0.0.1:{port}: ")
    with server(f"sqlite:///{project}/mlflow.db", port, project):
        assert "1 runs recorded, 3 unchanged" in tracking.sync(plan)
        after = identifiers()
        assert "0 runs recorded, 4 unchanged" in tracking.sync(plan)
        assert identifiers() == after
    assert {tag for tag in before if after.get(tag) == before[tag]} == {tag for tag in before if "evaluate" not in tag}
    assert [path.read_bytes() for path in Path("artifacts").rglob("curves.png")]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 2, 4])
def test_killed_synchronisation_is_completed(plan, after):
    path = os.pathsep.join(sys.path)
    killed = subprocess.run([sys.executable, "-c", KILLED.format(after=after)], env=os.environ | {"PYTHONPATH": path})
    assert killed.returncode == -signal.SIGKILL
    tracking.sync(plan)
    assert set(runs()) == {f"evaluate/{EDC}{end}" for end in ("", "/0", "/1")}
    assert len(runs("digits stages")) == 3
    assert {run.info.status for name in ("digits", "digits stages") for run in runs(name).values()} == {"FINISHED"}
    assert "0 runs recorded, 4 unchanged" in tracking.sync(plan)
