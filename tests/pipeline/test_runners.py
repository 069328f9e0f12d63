"""DVC, Snakemake and `edc run` make the same runs from one plan, and agree on what is up to date."""

import json
import os
import re
import time

import pytest
from checkout import RUNNERS

from edc import STAGES

EVALUATE = "tiny-random-ipc1-convnet_d2-hard_label"
RELABEL = "tiny-random-ipc1-edc"


@pytest.mark.parametrize("runner", ["dvc", "snakemake"])
def test_every_runner_makes_the_same_bytes(by, runner):
    expected = by("edc").outputs()
    assert {name.split("/")[1] for name in expected} >= {"pretrain", "statistics", "evaluate", "continual", "slimming"}
    assert by(runner).outputs() == expected


@pytest.mark.parametrize("runner", RUNNERS)
def test_after_one_runner_the_others_have_nothing_to_do(by, tmp_path, runner):
    project = by(runner).copy(tmp_path / "project")
    assert "Nothing to be done" in project.ok("snakemake", "-n")
    assert "up to date" in project.ok("dvc", "status")
    before = project.files()
    assert project.made_by("edc", "run") == set()
    assert project.made_by("dvc", "repro") == set()
    assert project.files() == before


@pytest.mark.parametrize(
    "runner", ["edc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dvc", "snakemake"))]
)
def test_an_edited_row_is_made_again_with_what_builds_on_it_and_nothing_else(by, tmp_path, runner):
    project = by("edc").copy(tmp_path / "project")
    project.edit({f"relabel.{RELABEL}.seed": 43})
    downstream = {run for run in project.times() if run.startswith(("evaluate/tiny-random", "slimming/tiny-random"))}
    assert project.made_by(*RUNNERS[runner]) == {f"relabel/{RELABEL}", *downstream}
    manifest = json.loads(project.path("runs/relabel", RELABEL, "manifest.json").read_text())
    assert manifest["params"]["relabel"]["seed"] == 43
    assert "Nothing to be done" in project.ok("snakemake", "-n")
    assert project.made_by("edc", "run") == set()
    assert "up to date" in project.ok("dvc", "status")


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_files_of_tomorrow_as_after_a_clock_was_set_back_change_nothing(finished, runner):
    tomorrow = time.time() + 86_400
    for path in finished.root.rglob("*"):
        os.utime(path, (tomorrow, tomorrow), follow_symlinks=False)
    assert finished.made_by(*RUNNERS[runner]) == set()
    finished.edit({f"relabel.{RELABEL}.seed": 43})
    downstream = {run for run in finished.times() if run.startswith(("evaluate/tiny-random", "slimming/tiny-random"))}
    assert finished.made_by(*RUNNERS[runner]) == {f"relabel/{RELABEL}", *downstream}
    assert finished.made_by(*RUNNERS[runner]) == set()


@pytest.mark.slow
def test_a_leaf_edited_with_dvc_exp_is_the_only_run_made(finished):
    project = finished
    project.ok("git", "-c", "user.name=t", "-c", "user.email=t@t", "add", ".")
    project.ok("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "a plan and its results")
    assert project.made_by("dvc", "exp", "run", "-S", f"evaluate.{EVALUATE}.epochs=3") == {f"evaluate/{EVALUATE}"}
    shown = project.ok("dvc", "exp", "show", "--only-changed", "--drop", "runs/", "--csv").splitlines()[0].split(",")
    assert f"evaluate.{EVALUATE}.epochs" in shown
    assert len(shown) <= 12


@pytest.mark.slow
def test_a_store_that_refuses_runs_is_one_line_and_gets_them_later(finished):
    command = ("edc", "evaluate", "--force", "--run", EVALUATE)
    done = finished.run(*command, EDC_TRACKING="on", MLFLOW_TRACKING_URI="sqlite:///runs")
    assert done.returncode == 0
    assert done.stderr.count("edc: tracking: sqlite:///runs: ") == 1
    assert "Traceback" not in done.stderr
    assert "recorded, 0 unchanged in sqlite:///mlflow.db" in finished.ok("edc", "track", EDC_TRACKING="on")


@pytest.mark.slow
def test_a_forced_run_leaves_the_same_bytes(finished):
    before = finished.outputs()
    assert finished.made_by("edc", "evaluate", "--force", "--run", EVALUATE) == {f"evaluate/{EVALUATE}"}
    assert finished.made_by("edc", "pretrain", "--force") == {"pretrain/tiny-convnet_w32", "pretrain/tiny-wrn_16_2"}
    assert finished.outputs() == before
    assert "Nothing to be done" in finished.ok("snakemake", "-n")


@pytest.mark.slow
def test_a_missing_or_truncated_file_makes_its_run_stale(finished):
    finished.path("runs/relabel", RELABEL, "logits.npy").write_bytes(b"\x93NUMPY")
    finished.path("runs/evaluate", EVALUATE, "manifest.json").unlink()
    before = finished.outputs()
    made = finished.made_by("edc", "run")
    assert made == {f"relabel/{RELABEL}", f"evaluate/{EVALUATE}"}
    assert len(finished.outputs()) == len(before) + 1
    assert finished.outputs().keys() >= before.keys()


def test_dvc_shows_nine_stages_and_snakemake_has_no_lints(planned):
    assert set(re.findall(r'"(\w+)"', planned.ok("dvc", "dag", "--dot"))) == set(STAGES)
    assert len(STAGES) == 9
    # The Snakefile has no lints but that its rules name no Conda environment.
    result = planned.run("snakemake", "--lint")
    text = result.stdout + result.stderr
    assert "Traceback" not in text
    lints = {line.strip().removeprefix("* ") for line in text.splitlines() if line.startswith("    * ")}
    assert lints <= {"Specify a conda environment or container for each rule.:"}
