"""MLflow runs from finished runs, in a real store (SQLite): what is recorded, recorded once, and what goes wrong."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.tracking import EDC, HISTORY, SCORES, STUDENT, client, finish, history, identifiers, make_plan, runs
from typer.testing import CliRunner

import edc.config.references
from edc import tracking
from edc.cli import app
from edc.config import rows
from edc.config.rows import EvaluateRow, StudyRuns
from edc.errors import EdcError
from edc.storage import run_folder
from edc.tracking import location
from edc.tracking.describe import experiment_tags


def test_a_cell_is_a_parent_run_and_one_child_for_each_seed(plan, project):
    assert tracking.sync(plan) == f"tracking: 4 runs recorded, 0 unchanged in sqlite:///{project}/mlflow.db"
    recorded = runs()
    assert set(recorded) == {f"evaluate/{EDC}", f"evaluate/{EDC}/0", f"evaluate/{EDC}/1"}
    parent, child = recorded[f"evaluate/{EDC}"], recorded[f"evaluate/{EDC}/1"]
    assert (parent.info.run_name, child.info.run_name) == ("edc ipc10 convnet_d2", "seed 1 edc ipc10 convnet_d2")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {run.info.status for run in recorded.values()} == {"FINISHED"}
    assert parent.info.end_time - parent.info.start_time == 12500
    expected = {"final_accuracy": 91.0, "final_accuracy_std": 1.4142, "best_accuracy": 92.0}
    expected |= {"image_kb": 6.4, "label_kb": 160.0, "seconds": 12.5, "accuracy": 91.0, "lr": 0.001}
    assert parent.data.metrics == expected
    assert child.data.metrics == {"final_accuracy": 92, "best_accuracy": 93, "accuracy": 92, "train_loss": 3}
    assert history(child, "accuracy") == [(1, 91.0), (2, 92.0)]
    assert history(child, "train_loss") == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert history(parent, "lr") == [(0, 0.003), (1, 0.002), (2, 0.001)]
    assert parent.data.params | {"seed": "1"} == child.data.params
    params = {"recipe": "edc", "ipc": "10", "lr": "0.001", "epochs": "3", "optimiser": "adamw", "optimiser_steps": "12"}
    assert params.items() <= parent.data.params.items()
    assert len(child.data.params) <= 20
    assert not {"variant", "ema"} & set(parent.data.params)
    tags = {"edc.commit": "c" * 40, "edc.dirty": "False", "edc.device": "CPU", "mlflow.source.git.commit": "c" * 40}
    assert tags.items() <= parent.data.tags.items()
    (dataset,) = (given.dataset for given in parent.inputs.dataset_inputs)
    assert (dataset.name, dataset.digest) == ("digits", "d" * 16)
    assert {file.path for file in client().list_artifacts(parent.info.run_id)} == {"contact_sheet.png", "curves.png"}
    # Stages have an experiment of their own.
    recorded = runs("digits stages")
    names = {run.info.run_name for run in recorded.values()}
    assert names == {"pretrain convnet_d1", "synthesize edc ipc10", "relabel edc ipc10 edc"}
    observer = recorded["pretrain/digits-convnet_d1"]
    assert history(observer, "val_accuracy") == [(0, 77.9), (1, 92.4)]
    images = recorded["synthesize/digits-edc-ipc10"]
    assert history(images, "cross_entropy") == [(0, 5.0), (1, 3.0)]  # means of the groups
    assert {"iterations": "2", "recipe": "edc"}.items() <= images.data.params.items()
    labels = recorded["relabel/digits-edc-ipc10-edc"].data.metrics
    assert labels == {"val_accuracy": 91.0, "agreement": 95.0, "seconds": 12.5}


def test_applications_are_recorded_by_step_and_ratio():
    row = STUDENT | {"seeds": [0], "student": "vgg11_bn"}
    plan = make_plan()
    plan.continual["c"] = rows.ContinualRow.model_construct(**row)
    plan.slimming["s"] = rows.SlimmingRow.model_construct(**row)
    plan.analysis["a"] = rows.AnalysisRow.model_construct(**row)
    plan.studies["digits"] = StudyRuns(continual=["c"], slimming=["s"], analysis=["a"])
    steps = {"classes": [2, 4], "accuracy": [[90.0, 80.0]], "accuracy_mean": [90.0, 80.0], "average": [85.0]}
    finish("continual", "c", row, scores=steps | {"average_mean": 85.0, "average_std": None, "forgetting_mean": 4.0})
    ratios = {"ratios": [0.0, 0.3], "before": [[50.0, 10.0]], "before_mean": [50.0, 10.0], "after_mean": [50.0, 40.0]}
    finish("slimming", "s", row, scores=ratios | {"after_std": [None, None], "parameters_mean": [9e6, 4e6]})
    finish("analysis", "a", row, scores={"hessian_norm": 0.13, "entropy_mixture": [1.0, 2.0]})
    tracking.sync(plan)
    recorded = runs()
    continual, slimming = recorded["continual/c"], recorded["slimming/s"]
    assert continual.info.run_name == "continual edc ipc10 vgg11_bn"
    assert history(continual, "accuracy") == [(2, 90.0), (4, 80.0)]
    assert {"average_accuracy": 85.0, "forgetting": 4.0}.items() <= continual.data.metrics.items()
    assert "average_accuracy_std" not in continual.data.metrics
    assert history(slimming, "accuracy_before") == [(0, 50.0), (30, 10.0)]
    assert history(slimming, "accuracy_after") == [(0, 50.0), (30, 40.0)]
    assert history(slimming, "parameters") == [(0, 9e6), (30, 4e6)]
    assert recorded["analysis/a"].data.metrics == {"hessian_norm": 0.13, "seconds": 12.5}


def test_names_start_with_what_differs(plan):
    for lr in ("1", "2"):
        row = STUDENT | {"variant": f"lr={lr}"}
        plan.evaluate[lr] = EvaluateRow.model_construct(**row)
        finish("evaluate", lr, row, HISTORY, scores=SCORES)
    plan.studies["choices"] = StudyRuns(evaluate=["1", "2"])
    tracking.sync(plan)
    parents = runs("choices", "tags.`edc.seed` = 'all'").values()
    assert {run.info.run_name for run in parents} == {"lr=1 edc ipc10 convnet_d2", "lr=2 edc ipc10 convnet_d2"}


def test_only_a_changed_run_is_recorded_again(plan):
    tracking.sync(plan)
    before = identifiers()
    (run_folder("evaluate", EDC) / "run.json").write_text('{"seconds": 99}')  # made again, with the same bytes
    assert "0 runs recorded, 4 unchanged" in tracking.sync(plan)
    assert identifiers() == before
    facts = {"scores": SCORES | {"final": [95.0, 97.0], "final_mean": 96.0}}
    finish("evaluate", EDC, STUDENT | {"epochs": 4}, HISTORY, **facts)
    assert "1 runs recorded, 3 unchanged" in tracking.sync(plan)
    after = identifiers()
    replaced = {tag for tag in after if after[tag] != before.get(tag)}
    assert replaced == {f"evaluate/{EDC}{end}" for end in ("", "/0", "/1")}
    assert runs()[f"evaluate/{EDC}"].data.metrics["final_accuracy"] == 96.0
    assert client().get_run(before[f"evaluate/{EDC}"]).info.lifecycle_stage == "deleted"


def test_incomplete_cell_is_recorded_again_and_doubled_runs_are_removed(plan):
    (run_folder("evaluate", EDC) / "history.csv").unlink()
    tracking.sync(plan)
    assert "0 runs recorded" in tracking.sync(plan)
    before = identifiers()
    client().delete_run(before[f"evaluate/{EDC}/1"])
    assert "1 runs recorded, 3 unchanged" in tracking.sync(plan)
    assert len(runs()) == 3
    assert not {run.info.run_id for run in runs().values()} & set(before.values())
    before = runs()
    again = before[f"evaluate/{EDC}"]
    for tags in (again.data.tags, before[f"evaluate/{EDC}/0"].data.tags):
        double = client().create_run(again.info.experiment_id, tags=tags)
        client().set_terminated(double.info.run_id)
    assert "0 runs recorded" in tracking.sync(plan)
    assert {run.info.run_id for run in runs().values()} == {run.info.run_id for run in before.values()}


def test_runs_of_others_stay_and_a_deleted_experiment_is_restored(plan):
    tracking.sync(plan)
    before, number = identifiers(), client().get_experiment_by_name("digits").experiment_id
    other = client().create_run(number, run_name="by hand").info.run_id
    client().delete_experiment(number)
    assert "0 runs recorded" in tracking.sync(plan)
    assert client().get_run(other).info.lifecycle_stage == "active"
    client().delete_run(other)
    assert identifiers() == before


def test_active_run_of_the_caller_and_several_pages_change_nothing(plan, monkeypatch):
    monkeypatch.setattr("edc.tracking.store.PER_CALL", 2)
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    assert "4 runs recorded" in tracking.sync(plan)
    assert "mlflow.parentRunId" not in runs()[f"evaluate/{EDC}"].data.tags
    assert history(runs()[f"evaluate/{EDC}/0"], "train_loss") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert "0 runs recorded, 4 unchanged" in tracking.sync(plan)


def test_long_histories_are_thinned_and_keep_their_last_value():
    plan = make_plan()
    lines = "".join(f"0,{i},0,{i}\n" for i in range(2000))
    row = {"dataset": "digits", "recipe": "edc", "ipc": 10}
    finish("synthesize", "digits-edc-ipc10", row, "group,iteration,observer,matching\n" + lines)
    tracking.sync(plan)
    points = history(runs("digits stages")["synthesize/digits-edc-ipc10"], "matching")
    assert 100 <= len(points) <= 200
    assert points[-1] == (1999, 1999.0)


def test_views_name_metrics_and_parameters_that_are_recorded(plan):
    tracking.sync(plan)
    experiment = client().get_experiment_by_name("digits")
    view = json.loads(experiment.tags["mlflow.sharedViewState.accuracy"])
    state = json.loads(view["state"])
    shown = runs("digits", state["searchFilter"])
    assert list(shown) == [f"evaluate/{EDC}"]
    recorded = {f"metrics.`{name}`" for name in shown[f"evaluate/{EDC}"].data.metrics}
    metrics = [column for column in state["selectedColumns"] if column.startswith("metrics.")]
    assert set(metrics) <= recorded
    assert state["columnOrder"][1] == metrics[0] == state["orderByKey"] == "metrics.`final_accuracy`"
    assert f"#/experiments/{experiment.experiment_id}/runs" in experiment.tags["mlflow.note.content"]
    assert set(experiment_tags("digits stages", "7")) & {"mlflow.sharedViewState.seconds"}


@pytest.mark.parametrize(("value", "on"), [("", 1), ("on", 1), ("TRUE", 1), ("1", 1), ("Off", 0), ("no", 0), ("0", 0)])
def test_tracking_is_switched_by_a_variable(plan, monkeypatch, value, on):
    monkeypatch.setenv("EDC_TRACKING", value)
    assert tracking.enabled() == bool(on)
    if not on:
        assert tracking.sync(plan) == ""
        assert client().get_experiment_by_name("digits") is None
    monkeypatch.setenv("EDC_TRACKING", "maybe")
    with pytest.raises(EdcError, match=r"^EDC_TRACKING=maybe: expected on or off"):
        tracking.sync(plan)


NOTHING_FINISHED = """
import sys
from edc import tracking
from support.tracking import make_plan
assert tracking.sync(make_plan()) == ""
assert not {"mlflow", "pandas"} & set(sys.modules)
"""


def test_mlflow_is_imported_only_for_finished_runs():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", NOTHING_FINISHED], check=True, env=environment)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite:////data/a@b.db", "sqlite:////data/a@b.db"),
        ("http://me:secret@host:5000/path?token=secret#secret", "http://host:5000/path"),
        ("postgresql://me:se/cret@host/db", "postgresql://host/db"),
        ("http://me:se@cret@host", "http://host"),
        ("http://token@host", "http://host"),
        ("http://me:se?cret@host", "http://..."),
        ("http://host/?token=a@secret", "http://..."),
        ("databricks", "databricks"),
        ("me:secret@host:5000", "host:5000"),
    ],
)
def test_addresses_are_shown_without_credentials(uri, expected):
    assert location.shown(uri) == expected


def test_messages_are_shown_without_credentials():
    uri = "http://me:se/cret@host/?token=abc"
    error = ValueError(f"none at {uri}\nnor at http://me:se/cret@host/api; port 'se', token=abc")
    assert location.one_line(error, uri) == "none at http://host/ nor at http://host/api; port '...', ..."


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:pa/ss@127.0.0.1:9",
        "http://me:secret@127.0.0.1:9/?token=secret",
        "sqlite:///folder",
        "sqlite:///text",
        "sqlite:///text/mlflow.db",
    ],
)
def test_store_that_is_down_or_cannot_be_written_is_one_line(plan, monkeypatch, capfd, uri):
    Path("folder").mkdir()
    Path("text").write_text("text" * 1000)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    line = tracking.sync(plan)
    assert line.startswith(f"tracking: {location.shown(uri)}: ")
    assert line.endswith("no result is lost, `edc track` records what is missing")
    assert "\n" not in line
    assert not [secret for secret in ("secret", "me:", "pa/ss", "'pa'", ":pa") if secret in line]
    assert capfd.readouterr() == ("", "")
    with pytest.raises(tracking.TrackingError):
        tracking.sync(plan, strict=True)


class Refusal(http.server.BaseHTTPRequestHandler):
    """A server that knows no password."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"You are not authenticated")

    def log_message(self, *_: object) -> None:
        pass


def test_wrong_password_is_one_line(plan, monkeypatch, capfd):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{server.server_port}")
        line = tracking.sync(plan)
        server.shutdown()
    assert "401" in line
    assert "secret" not in line + "".join(capfd.readouterr())


def test_damaged_manifest_is_one_line(plan):
    (run_folder("evaluate", EDC) / "manifest.json").write_text("{")
    assert tracking.sync(plan).startswith(f"tracking: runs/evaluate/{EDC}/manifest.json: damaged or truncated")


def test_command_fails_where_runs_cannot_be_recorded(plan, monkeypatch):
    monkeypatch.setattr(edc.config.references, "load_plan", lambda: plan)
    done = CliRunner().invoke(app, ["track"])
    assert (done.exit_code, "4 runs recorded" in done.output) == (0, True)
    monkeypatch.setenv("EDC_TRACKING", "off")
    done = CliRunner().invoke(app, ["track"])
    assert (done.exit_code, done.output) == (0, "tracking is off (EDC_TRACKING)\n")
    monkeypatch.delenv("EDC_TRACKING")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    done = CliRunner().invoke(app, ["track"])
    assert done.exit_code == 1
    assert done.stderr.startswith("edc: tracking: http://127.0.0.1:9: ")
    assert done.stdout == ""
