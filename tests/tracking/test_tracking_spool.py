"""The spool: what a run writes, and that nothing about it can fail the run."""

from __future__ import annotations

import json
import logging
import subprocess
from pathlib import Path

import pytest

from edc.tracking import Run, run_key
from edc.tracking.files import append, read, remove_if_read

ROOT = Path(".edc/tracking")
START = {"stage": "evaluate", "row": "digits-edc-ipc10", "study": "digits", "seed": 0}


def events(root: Path = ROOT) -> list[dict]:
    (spool,) = root.glob("*.jsonl")
    return [event for event, _ in read(spool)]


def steps(name: str) -> list[int]:
    return [e["step"] for e in events() if e["event"] == "metrics" and name in e["values"]]


def test_events_stand_in_the_spool_as_soon_as_they_are_said():
    with Run(**START, params={"ipc": 10, "match": {"alpha": 0.5, "deep": {"on": True}}}) as run:
        run.dataset("digits", "abc")
        run.metrics({"loss": 0.5}, step=1)
        start, dataset, metrics = events()
    assert start["params"] == {"ipc": "10", "match.alpha": "0.5", "match.deep.on": "True", "seed": "0"}
    assert start["name"] == "evaluate digits-edc-ipc10 seed 0"
    assert start["tags"]["edc.run_key"] == run.key == run_key("evaluate", "digits-edc-ipc10", run_params(), 0)
    assert (dataset["name"], dataset["digest"]) == ("digits", "abc")
    assert (metrics["step"], metrics["values"]) == (1, {"loss": 0.5})
    assert events()[-1]["status"] == "FINISHED"


def run_params() -> dict:
    return {"match": {"deep": {"on": True}, "alpha": 0.5}, "ipc": 10}  # the order is of no account


def test_key_is_readable_and_changes_with_seed_and_parameters():
    key = run_key("evaluate", "row", {"ipc": 1}, 3)
    assert key.startswith("evaluate/row/seed3/")
    assert len(key.rpartition("/")[2]) == 12
    assert run_key("evaluate", "row", {"ipc": 1}).count("/") == 2
    assert len({key, run_key("evaluate", "row", {"ipc": 2}, 3), run_key("evaluate", "row", {"ipc": 1}, 4)}) == 3


def test_step_is_skipped_per_metric():
    with Run(**START, params={}) as run:
        run.metrics({"loss": 1.0}, step=3)
        run.metrics({"loss": 2.0, "accuracy": 3.0}, step=3)
        run.metrics({"loss": 2.0}, step=2)
        run.metrics({"loss": 2.0}, step=4)
    assert steps("loss") == [3, 4]
    assert steps("accuracy") == [3]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("two\nlines"), "FAILED", "ValueError: two lines"),
        (KeyboardInterrupt(), "KILLED", "interrupted"),
        (SystemExit(2), "FAILED", "SystemExit: 2"),
        (SystemExit(0), "FINISHED", ""),
    ],
)
def test_end_says_how_it_ended(error: BaseException, status: str, reason: str):
    with pytest.raises(type(error)), Run(**START, params={}):
        raise error
    assert (events()[-1]["status"], events()[-1]["error"]) == (status, reason)


@pytest.mark.parametrize("error", [None, ValueError("bad")])
def test_started_again_goes_on_unless_it_had_finished(error: Exception | None):
    try:
        with Run(**START, params={}) as run:
            for step in range(5):
                run.metrics({"loss": 1.0}, step)
            if error:
                raise error
    except ValueError:
        pass
    with Run(**START, params={}) as run:
        for step in range(3, 8):
            run.metrics({"loss": 1.0}, step)
    assert steps("loss") == ([*range(5), 5, 6, 7] if error else [*range(5), *range(3, 8)])


def test_torn_last_line_is_cut_before_the_next_event():
    with Run(**START, params={}) as run:
        run.metrics({"loss": 1.0}, 0)
        with run.path.open("ab") as file:
            file.write(b'{"event":"metrics","t":1,"st')
        run.metrics({"loss": 1.0}, 1)
    assert steps("loss") == [0, 1]
    assert all("event" in event for event in events())


def test_spool_removed_under_a_run_begins_again_with_its_start():
    with Run(**START, params={}) as run:
        run.metrics({"loss": 1.0}, 0)
        run.path.unlink()
        run.metrics({"loss": 1.0}, 1)
    assert [event["event"] for event in events()] == ["start", "metrics", "end"]


def test_spool_is_not_removed_while_something_in_it_is_unread(tmp_path: Path):
    spool = tmp_path / "a.jsonl"
    append(spool, b"{}\n", b"")
    append(spool, b"{}\n", b"")
    assert not remove_if_read(spool, 3)
    assert remove_if_read(spool, 6)
    assert not spool.exists()


def test_off_writes_nothing(monkeypatch: pytest.MonkeyPatch, project: Path):
    monkeypatch.setenv("EDC_TRACKING", "off")
    with Run(**START, params={}) as run:
        run.metrics({"loss": 1.0}, 0)
        run.artifact(Path("x"))
        run.dataset("digits", "abc")
    assert list(project.iterdir()) == []


def test_folder_that_cannot_be_made_costs_one_warning(caplog: pytest.LogCaptureFixture):
    Path("file").write_text("")
    with caplog.at_level(logging.WARNING), Run(**START, params={}, root=Path("file/tracking")) as run:
        for step in range(5):
            run.metrics({"loss": 1.0}, step)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_value_that_is_no_number_costs_one_warning(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING), Run(**START, params={}) as run:
        run.metrics({"loss": "none", "accuracy": 1.0}, 0)  # type: ignore[dict-item]
        run.metrics({"loss": 1.0}, 0)
    assert len(caplog.records) == 1
    assert (steps("loss"), steps("accuracy")) == ([0], [0])


def test_full_disk_costs_one_warning_and_what_fits_later_is_written(python):
    process = python("""
        import resource, sys
        from edc.tracking import Run, spool
        spool.RETRY = 0
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        with Run(stage="evaluate", row="row", params={}, study="digits") as run:
            run.metrics({"loss": 1.0}, 0)
            sys.dont_write_bytecode = True  # it would be cut off
            resource.setrlimit(resource.RLIMIT_FSIZE, (run.path.stat().st_size + 100, hard))
            for step in range(1, 20):
                run.metrics({"loss": 1.0}, step)
            assert run.path.read_bytes().endswith(b"\\n")
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    """)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert errors.count("\n") == 1
    assert "kept in memory" in errors
    assert steps("loss") == list(range(20))


def test_names_mlflow_refuses_are_made_fit():
    with Run(**START, params={"a=b": 1, "../up": 2}) as run:
        run.metrics({"top-1 (%)": 1.0}, 0)
    assert set(events()[0]["params"]) == {"a_b", "up", "seed"}
    assert set(events()[1]["values"]) == {"top-1 ___"}


def test_commit_and_dirty_tree(project: Path):
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=project).stdout.strip()

    def tags() -> dict[str, str]:
        from edc.tracking.provenance import _git, provenance

        _git.cache_clear()
        return provenance()

    assert tags() == {"edc.commit": "none", "edc.dirty": "none", "edc.dvc_lock": "none"}
    git("init", "-q")
    Path("params.yaml").write_text("a: 1")
    git("add", "params.yaml")
    git("commit", "-q", "-m", "one")
    assert tags() == {"edc.commit": git("rev-parse", "HEAD"), "edc.dirty": "false", "edc.dvc_lock": "none"}
    Path("dvc.lock").write_text("")
    Path("results").mkdir()
    Path("results/table.csv").write_text("")
    assert tags()["edc.dirty"] == "false"
    assert tags()["edc.dvc_lock"] == "e3b0c44298fc"
    Path("params.yaml").write_text("a: 2")
    assert tags()["edc.dirty"] == "true"


def test_import_is_light(python):
    process = python("""
        import json, sys, time
        start = time.perf_counter()
        import edc.tracking
        seconds = time.perf_counter() - start
        heavy = [name for name in ("mlflow", "torch", "numpy", "pandas", "filelock") if name in sys.modules]
        print(json.dumps([heavy, seconds]))
    """)
    heavy, seconds = json.loads(process.communicate()[0])
    assert heavy == []
    assert seconds < 0.2
