"""The sender against real databases: everything arrives, and once."""

from __future__ import annotations

import math
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from edc.tracking import Run, drain
from edc.tracking.files import is_alive, only_one, owner
from edc.tracking.store import Store

ROOT = Path(".edc/tracking")
START = {"stage": "evaluate", "row": "digits-edc-ipc10", "study": "digits", "seed": 0}
DEAD = "http://127.0.0.1:9"  # the discard port: nothing listens

STEPS = """
    import sys, time
    from edc.tracking import Run
    first, behind, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    with Run(stage="evaluate", row="digits-edc-ipc10", params={"ipc": 10}, study="digits", seed=0) as run:
        for step in range(first, behind):
            run.metrics({"loss": step / 2, "accuracy": step}, step)
            print(step, flush=True)
            time.sleep(pause)
"""


def left(root: Path = ROOT) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.suffix not in (".lock", ".log"))


def both(steps: range) -> list[tuple[str, int, float]]:
    return sorted([("loss", s, s / 2) for s in steps] + [("accuracy", s, float(s)) for s in steps])


def write(steps: range, **params: object) -> None:
    with Run(**START, params={"ipc": 10, **params}) as run:
        for step in steps:
            run.metrics({"loss": step / 2, "accuracy": step}, step)


def test_everything_arrives(database):
    sheet = Path("sheet.png")
    with Run(**START, params={"ipc": 10, "text": "x" * 900, "empty": ""}, tags={"device": "cpu"}) as run:
        run.dataset("digits", "d" * 64)
        for step in range(1500):
            run.metrics({"loss": step / 2, "accuracy": step}, step)
        run.metrics({"odd": math.nan, "steep": math.inf}, 0)
        sheet.write_bytes(b"picture")
        run.artifact(sheet)
        sheet.write_bytes(b"better picture")
        run.artifact(sheet)
        run.artifact(Path("never written"))
    summary = drain()
    assert (summary.sent_runs, summary.pending_runs, summary.error) == (1, 0, None)
    assert left() == []

    run_ = database.run()
    assert run_.info.status == "FINISHED"
    assert run_.info.run_name == "evaluate digits-edc-ipc10 seed 0"
    assert run_.data.params == {"ipc": "10", "text": "x" * 500, "empty": "", "seed": "0"}
    tags = run_.data.tags
    assert tags["edc.run_key"] == run.key
    assert (tags["edc.stage"], tags["edc.row"], tags["device"]) == ("evaluate", "digits-edc-ipc10", "cpu")
    assert {"edc.commit", "edc.dirty", "edc.dvc_lock", "edc.executions"} <= set(tags)
    assert (tags["edc.superseded_by"], tags["edc.error"]) == ("none", "")
    assert [m for m in database.metrics() if m[0] in ("loss", "accuracy")] == both(range(1500))
    assert database.rows("select key, is_nan from metrics where key in ('odd', 'steep')") == [
        ("odd", 1),
        ("steep", 0),
    ]
    (dataset,) = run_.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", "d" * 36)
    sent = Path(run_.info.artifact_uri.removeprefix("file://")) / "sheet.png"
    assert sent.read_bytes() == b"better picture"
    assert "never written is gone" in (ROOT / "sender.log").read_text()
    assert database.rows("select name from experiments where experiment_id != 0") == [("digits",)]


def test_metric_times_come_from_the_spool(database):
    before = time.time_ns() // 1_000_000
    write(range(2))
    after = time.time_ns() // 1_000_000
    time.sleep(0.05)
    drain()
    assert all(before <= t <= after for (t,) in database.rows("select timestamp from metrics"))
    assert before <= database.run().info.start_time <= database.run().info.end_time <= after


def test_more_than_one_batch_of_parameters_and_metrics_in_one_event(database):
    with Run(**START, params={f"p{i}": i for i in range(250)}) as run:
        run.metrics({f"m{i}": i for i in range(2500)}, 0)
    assert drain().error is None
    assert len(database.run().data.params) == 251
    assert len(database.metrics()) == 2500


def test_live_run_is_sent_as_it_goes_and_stays_open(database):
    with Run(**START, params={}) as run:
        run.metrics({"loss": 1.0}, 0)
        assert drain().pending_runs == 0
        assert (database.run().info.status, len(database.metrics())) == ("RUNNING", 1)
        run.metrics({"loss": 1.0}, 1)
        drain()
        assert len(database.metrics()) == 2
    drain()
    assert database.run().info.status == "FINISHED"
    assert left() == []


def test_failed_run_says_why_and_a_rerun_goes_on_in_it(database):
    def fail() -> None:
        with Run(**START, params={"ipc": 10}) as run:
            run.metrics({"loss": 1.0}, 0)
            raise ValueError("too bad")

    with pytest.raises(ValueError, match="too bad"):
        fail()
    drain()
    assert database.run().info.status == "FAILED"
    assert database.run().data.tags["edc.error"] == "ValueError: too bad"
    write(range(3))
    drain()
    assert database.run().info.status == "FINISHED"
    assert database.run().data.tags["edc.error"] == ""
    assert len(database.run().data.tags["edc.executions"].split()) == 2
    assert [m[1] for m in database.metrics() if m[0] == "loss"] == [0, 1, 2]


@pytest.mark.parametrize("between", [True, False])
def test_rerun_of_a_finished_run_supersedes_it(database, between: bool):
    write(range(3))
    if between:
        drain()
    time.sleep(0.01)
    write(range(4))
    drain()
    old, new = database.runs()
    assert database.metrics(old.info.run_id) == both(range(3))
    assert database.metrics(new.info.run_id) == both(range(4))
    assert old.data.tags["edc.superseded_by"] == new.info.run_id
    assert new.data.tags["edc.superseded_by"] == "none"
    assert old.info.status == new.info.status == "FINISHED"


@pytest.mark.parametrize("between", [True, False])
def test_run_killed_and_resumed_has_each_step_once(database, python, between: bool):
    process = python(STEPS, 0, 1000, 0.02)
    while int(process.stdout.readline()) < 6:
        pass
    process.kill()
    process.wait()
    reached = process.stdout.read().split()
    if between:
        drain()
        assert database.run().info.status == "KILLED"
        assert left() == []
    assert python(STEPS, 4, 30, 0).wait() == 0
    assert drain().error is None
    assert int(["6", *reached][-1]) < 30
    assert database.metrics() == both(range(30))
    assert database.run().info.status == "FINISHED"
    assert left() == []


def test_torn_last_line_of_a_killed_run(database, python):
    process = python(STEPS, 0, 1000, 0.01)
    while int(process.stdout.readline()) < 3:
        pass
    process.kill()
    process.wait()
    (spool,) = ROOT.glob("*.jsonl")
    text = spool.read_bytes()
    spool.write_bytes(text[: text.rindex(b"\n", 0, -1) + 10])
    known = text.count(b"\n") - 2
    drain()
    assert database.metrics() == both(range(known))
    assert python(STEPS, 2, 20, 0).wait() == 0
    drain()
    assert database.metrics() == both(range(20))


def test_damaged_line_costs_that_line(database):
    write(range(5))
    (spool,) = ROOT.glob("*.jsonl")
    lines = spool.read_bytes().splitlines(keepends=True)
    spool.write_bytes(b"".join([*lines[:3], b"\0\0\0garbage\n", *lines[4:]]))
    assert drain().pending_runs == 0
    assert [step for _, step, _ in database.metrics()] == [0, 1, 3, 4] * 2
    assert "cannot be read" in (ROOT / "sender.log").read_text()


def test_server_that_is_down_costs_nothing(database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    write(range(3))
    write(range(3), ipc=50)
    start = time.monotonic()
    summary = drain()
    assert time.monotonic() - start < 15
    assert (summary.sent_runs, summary.pending_runs) == (0, 2)
    assert "\n" not in summary.error
    assert len((ROOT / "sender.log").read_text().splitlines()) == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert drain().sent_runs == 2
    assert len(database.runs()) == 2
    assert database.metrics() == sorted(both(range(3)) * 2)


def test_refused_file_store_is_told_and_nothing_is_lost(database):
    write(range(3))
    assert drain(uri="./mlruns").error
    assert drain().error is None
    assert database.metrics() == both(range(3))


@pytest.mark.parametrize("forget", [False, True])
def test_sender_killed_in_mid_send_leaves_no_step_twice(database, python, forget: bool):
    with Run(**START, params={"ipc": 10}) as run:
        for step in range(8_000):
            run.metrics({"loss": step / 2, "accuracy": step}, step)
    sender = python("import runpy; runpy.run_module('edc.tracking', run_name='__main__')")
    count = 0
    while not count:
        time.sleep(0.05)
        try:
            ((count,),) = database.rows("select count(*) from metrics")
        except sqlite3.OperationalError:
            continue
    sender.send_signal(signal.SIGKILL)
    sender.wait()
    ((count,),) = database.rows("select count(*) from metrics")
    assert 0 < count < 16_000
    if forget:
        for path in ROOT.glob("*.sent.json"):
            path.unlink()
    assert drain().error is None
    assert database.metrics() == both(range(8_000))
    assert database.run().info.status == "FINISHED"
    assert left() == []


def test_same_batch_twice_is_one_batch_in_sqlite(database):
    """The store's own guard, below ours: a row is the same when name, time, step and value are."""
    write(range(1))
    drain()
    run_id = database.run().info.run_id
    store = Store(f"sqlite:///{database.path}")
    batch = [("again", float(step), 1_700_000_000_000 + step, step) for step in range(1000)]
    store.metrics(run_id, batch)
    store.metrics(run_id, batch)
    store.dataset(run_id, "digits", "abc")
    store.dataset(run_id, "digits", "abc")
    assert len([m for m in database.metrics() if m[0] == "again"]) == 1000
    assert len(database.run().inputs.dataset_inputs) == 1


def test_run_deleted_by_a_user_is_sent_again_in_a_new_one(database):
    from mlflow import MlflowClient

    with Run(**START, params={}) as run:
        run.metrics({"loss": 1.0}, 0)
        drain()
        MlflowClient(f"sqlite:///{database.path}").delete_run(database.run().info.run_id)
        run.metrics({"loss": 1.0}, 1)
    assert drain().error is None
    assert [m[1] for m in database.metrics(database.run().info.run_id)] == [0, 1]


def test_half_sent_spool_goes_whole_to_another_store(database, project: Path, empty_database: Path):
    other = project / "other.db"
    other.write_bytes(empty_database.read_bytes())
    with Run(**START, params={}) as run:
        run.metrics({"loss": 1.0}, 0)
        drain(uri="sqlite:///other.db")
        run.metrics({"loss": 1.0}, 1)
    assert drain().error is None
    assert [m[1] for m in database.metrics()] == [0, 1]


def test_run_id_of_somebody_else_in_the_environment_is_ignored(database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    write(range(1))
    assert drain().error is None
    assert database.run().info.run_id != "0" * 32


def test_only_one_sender_at_a_time(database):
    write(range(2))
    with only_one(ROOT / "sender.lock") as held:
        assert held
        start = time.monotonic()
        summary = drain()
        assert time.monotonic() - start < 1
    assert (summary.sent_runs, summary.pending_runs) == (0, 1)
    assert "another sender" in summary.error
    assert drain().sent_runs == 1


def test_nothing_to_send_takes_no_time_and_no_mlflow(python):
    process = python("""
        import sys
        from edc.tracking import drain
        print(drain(), "mlflow" in sys.modules)
    """)
    assert process.communicate()[0] == "tracking: 0 runs sent, 0 pending False\n"


def test_no_telemetry(python, monkeypatch: pytest.MonkeyPatch):
    for name in ("CI", "PYTEST_CURRENT_TEST", "GITHUB_ACTIONS", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    process = python("""
        from edc.tracking.store import Store
        Store("sqlite:///unused.db")
        from mlflow.telemetry import get_telemetry_client
        from mlflow.telemetry.utils import is_telemetry_disabled
        print(is_telemetry_disabled(), get_telemetry_client())
    """)
    assert process.communicate()[0] == "True None\n"


def test_a_process_id_used_again_is_not_the_owner(python):
    process = python("import time; time.sleep(60)")
    who = {**owner(), "pid": process.pid}
    assert is_alive(owner(), 0)
    assert not is_alive(who, 0)  # born at another time
    assert not is_alive({**who, "host": "elsewhere"}, time.time() - 30 * 3600)
    assert is_alive({**who, "host": "elsewhere"}, time.time())


def test_many_short_drains_beside_a_writing_run_lose_nothing(database, python):
    process = python(STEPS, 0, 600, 0.005)
    drains = 0
    while process.poll() is None:
        assert drain().error is None
        drains += 1
    drain()
    assert drains > 5
    assert database.metrics() == both(range(600))
    assert database.run().info.status == "FINISHED"
