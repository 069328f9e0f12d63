"""What makes a run stale: its values, its inputs, the version of its stage's numerics, a missing file."""

import json
import os
from itertools import product
from pathlib import Path

import pytest
from support.workers import IMAGES, JOINED, RUNS, A, B
from support.workers import plan as make_plan

from edc.config.rows import Plan
from edc.pipeline import status
from edc.stages.versions import VERSIONS
from edc.storage import digest, manifest_in, run_folder, write_json, write_manifest, write_text


def finish(plan: Plan, run: status.Run, text: str = "x") -> None:
    """Leave a finished run."""
    folder = run_folder(*run)
    write_text(folder / "file", text)
    manifests = {up: json.loads((run_folder(*up) / "manifest.json").read_text()) for up in plan.upstream(*run)}
    inputs = {"/".join(up): digest(manifest) for up, manifest in manifests.items()}
    files = {"file": {"bytes": len(text), "sha256": text}}
    values = {"version": VERSIONS[run[0]], "params": plan.resolved(*run), "inputs": inputs, "files": files}
    write_manifest(folder, values | {"accuracy": 91.25})


@pytest.fixture
def finished(tmp_path, monkeypatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    plan = make_plan()
    assert status.runs(plan) == RUNS == status.stale(plan)
    for run in RUNS:
        finish(plan, run)
    assert status.stale(plan) == []
    return plan


def test_a_value_concerns_its_run_and_what_builds_on_it(finished):
    assert status.stale(make_plan(epochs=2)) == [B, JOINED]
    machine = {"device": "cpu", "threads": 7, "memory": 3.0}  # no part of any run
    assert status.stale(Plan.model_validate(finished.model_dump() | {"machine": machine})) == []


def test_a_choice_that_is_newer_than_a_manifest_has_its_default(finished):
    for run, section, key in ((B, "pretrain", "seed"), (IMAGES, "synthesize", "jpeg"), (IMAGES, "dataset", "streamed")):
        path = run_folder(*run) / "manifest.json"
        manifest = manifest_in(path.parent)
        del manifest["params"][section][key]
        write_json(path, manifest)
    assert status.stale(finished) == [B, JOINED]  # whose seed is 1, and 0 by default
    manifest["params"]["synthesize"]["gone"] = 1
    write_json(path, manifest)
    assert IMAGES in status.stale(finished)


def test_a_raised_version_makes_the_runs_of_its_stage_stale(finished, monkeypatch):
    monkeypatch.setitem(VERSIONS, "statistics", 99)
    assert status.stale(finished) == [JOINED]


def test_an_input_made_again_with_other_bytes_makes_a_run_stale_and_with_the_same_bytes_does_not(finished):
    finish(finished, A)
    assert status.stale(finished) == []
    finish(finished, A, "other")
    assert status.stale(finished) == [JOINED]


def other_accuracy(path: Path) -> None:
    """One bit is another."""
    path.write_text(path.read_text().replace("91.25", "91.35"))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *product(["file", "manifest.json"], [Path.unlink, lambda path: path.write_text("")]),
        ("manifest.json", other_accuracy),
    ],
)
def test_a_missing_or_damaged_file_makes_a_run_stale(finished, name, damage):
    for path in run_folder(*A).iterdir():  # times do not matter
        os.utime(path, (0, 0))
    damage(run_folder(*B) / name)
    assert status.stale(finished) == [B, JOINED]


def test_the_tables_belong_to_the_runs_they_were_made_from(finished):
    assert not status.tables_up_to_date(finished)
    status.tables_made(finished)
    assert status.tables_up_to_date(finished)
    finish(finished, IMAGES, "other")
    assert not status.tables_up_to_date(finished)
