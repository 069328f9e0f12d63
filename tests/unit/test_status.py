"""What makes a run stale: its values, its inputs, the version of its stage's numerics, a missing file."""

import json
from pathlib import Path

import pytest

from edc.config.rows import Plan
from edc.pipeline import status
from edc.stages.versions import VERSIONS
from edc.storage import digest, run_folder, write_json, write_text

OPTIMISER = {"name": "sgd", "lr": 0.1}
SCHEDULE = {"name": "constant"}
DATASET = {
    "name": "tiny", "family": "tiny", "kind": "digits", "image_size": 8, "channels": 1, "classes": 10, "mean": [0.3],
    "std": [0.3],
}  # fmt: skip


@pytest.fixture
def plan() -> Plan:
    pretrain = {"dataset": "tiny", "epochs": 1, "batch": 8, "optimiser": OPTIMISER, "schedule": SCHEDULE, "seed": 0}
    return Plan.model_validate(
        {
            "studies": {"s": {"evaluate": []}},
            "datasets": {"tiny": DATASET},
            "pretrain": {name: pretrain | {"network": name} for name in ("convnet_d1", "convnet_d2")},
            "statistics": {
                "p4": {"dataset": "tiny", "observers": ["convnet_d1", "convnet_d2"], "patch": 4, "batch": 8, "seed": 0}
            },
        }
    )


RUNS = [("pretrain", "convnet_d1"), ("pretrain", "convnet_d2"), ("statistics", "p4")]


def finish(plan: Plan, run: status.Run, text: str = "x") -> None:
    """Leave a finished run."""
    folder = run_folder(*run)
    write_text(folder / "file", text)
    inputs = {
        "/".join(u): digest(json.loads((run_folder(*u) / "manifest.json").read_text())) for u in plan.upstream(*run)
    }
    write_json(
        folder / "manifest.json",
        {
            "version": VERSIONS[run[0]],
            "params": plan.resolved(*run),
            "inputs": inputs,
            "files": {"file": {"bytes": len(text), "sha256": text}},
        },
    )


@pytest.fixture
def finished(plan, tmp_path, monkeypatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    for run in RUNS:
        finish(plan, run)
    return plan


def test_without_results_everything_is_stale(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert status.runs(plan) == RUNS == status.stale(plan)


def test_finished_runs_are_up_to_date(finished):
    assert status.stale(finished) == []


def test_a_value_concerns_its_run_and_what_builds_on_it(finished):
    edited = finished.model_dump()
    edited["pretrain"]["convnet_d2"]["epochs"] = 2
    assert status.stale(Plan.model_validate(edited)) == [RUNS[1], RUNS[2]]


def test_threads_device_and_memory_are_no_part_of_a_run(finished):
    edited = finished.model_dump()
    edited["machine"] = {"device": "cpu", "threads": 7, "memory": 3.0}
    assert status.stale(Plan.model_validate(edited)) == []


def test_a_raised_version_makes_the_runs_of_its_stage_stale(finished, monkeypatch):
    monkeypatch.setitem(VERSIONS, "statistics", 99)
    assert status.stale(finished) == [RUNS[2]]


def test_an_input_made_again_with_other_bytes_makes_a_run_stale_and_with_the_same_bytes_does_not(finished):
    finish(finished, RUNS[0])
    assert status.stale(finished) == []
    finish(finished, RUNS[0], "other")
    assert status.stale(finished) == [RUNS[2]]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("")])
@pytest.mark.parametrize("name", ["file", "manifest.json"])
def test_a_missing_or_truncated_file_makes_a_run_stale(finished, name, damage):
    damage(run_folder(*RUNS[1]) / name)
    assert status.stale(finished) == [RUNS[1], RUNS[2]]


def test_times_of_files_do_not_matter(finished):
    import os

    os.utime(run_folder(*RUNS[0]) / "file", (0, 0))
    os.utime(run_folder(*RUNS[2]) / "manifest.json", (0, 0))
    assert status.stale(finished) == []


def test_the_tables_belong_to_the_runs_they_were_made_from(finished):
    assert not status.tables_up_to_date(finished)
    status.tables_made(finished)
    assert status.tables_up_to_date(finished)
    finish(finished, RUNS[2], "other")
    assert not status.tables_up_to_date(finished)
