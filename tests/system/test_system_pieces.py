"""A machine without runners: the plan runs there in pieces, and what comes home is as if it had run at home."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from checkout import LIMIT, REPOSITORY, Checkout, until

POISON = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"dvc", "dvc_data", "mlflow", "snakemake"}:
            raise ImportError(f"{name} is not on this machine")

sys.meta_path.insert(0, Missing())
"""


@pytest.fixture(scope="session")
def bare(once, planned) -> Checkout:
    """The tiny study after one interrupted and one whole ``edc run``, with no repository and no runner there."""

    def make(folder: Path) -> None:
        made = planned.copy(folder / "project")
        shutil.rmtree(made.path(".git"))
        # At home something else was planned and locked; the copy has DVC's files all the same.
        locked = "schema: '2.0'\nstages:\n  tables-other:\n    cmd: edc tables --run other\n"
        made.write("dvc.lock", locked)
        made.write(".edc-commit", "0123abc\nfalse\n")
        made.write("src/sitecustomize.py", POISON)
        assert "is not on this machine" in made.run("python", "-c", "import mlflow").stderr
        made.ok("python", "-m", "edc", "plan", "tiny")
        assert made.path("results/locked.yaml").read_text() == locked
        command = ("python", "-m", "edc", "run", "--jobs", "2")
        environment = {"EDC_CHECKPOINT_SECONDS": "0", "EDC_RUNS_PER_GPU": "2"}
        with made.start(*command, **environment) as first:
            assert until(lambda: list(made.path(".edc/checkpoints").rglob("*.pt")) or first.poll() is not None)
            first.terminate()
            _, err = first.communicate(timeout=LIMIT)
        assert first.returncode == 128 + signal.SIGTERM, err
        assert list(made.path(".edc/checkpoints").rglob("*.pt")), "nothing was interrupted"
        said = made.ok(*command, **environment)
        assert said.splitlines()[-1] == "17 runs done, 0 left, 0 failed"

    return Checkout(once("bare", make) / "project")


def run_names(checkout: Checkout) -> list[tuple[str, str]]:
    return [tuple(name.split("-", 1)) for name in checkout.stages() if not name.startswith("tables")]


@pytest.mark.slow
@pytest.mark.early(3)
def test_pieces_make_what_a_runner_makes(bare, by_dvc):
    for stage, key in run_names(by_dvc):
        assert bare.outputs(stage, key) == by_dvc.outputs(stage, key), f"{stage} {key}"
        made = json.loads(bare.path("results", stage, key, "run.json").read_text())
        assert (made["commit"], made["dirty"]) == ("0123abc", "false")
    assert bare.path("results/tables/table1.csv").read_bytes() == by_dvc.path("results/tables/table1.csv").read_bytes()


@pytest.mark.slow
def test_what_comes_home_is_locked_as_if_it_had_run_there(bare, by_dvc, planned, tmp_path):
    away, home = bare.copy(tmp_path / "away"), planned.copy(tmp_path / "home")
    assert "wrote out/results-01.tar.xz" in away.ok("python", "-m", "edc", "pack", "out", "--largest-mb", "0.005")
    assert not home.path("dvc.lock").exists()
    said = home.ok("edc", "unpack", str(away.path("out/results-01.tar.xz")))
    assert said.startswith("16 runs taken in, 0 refused\n")
    weights = [path.stat().st_size for path in by_dvc.path("results").rglob("*.safetensors")]
    brought = [path.stat().st_size for path in home.path("results").rglob("*.safetensors")]
    assert sorted(brought) == sorted(size for size in weights if size <= 5000) != []
    home.ok("edc", "tables", "--run", "tiny")
    home.ok("dvc", "commit", "--force", "tables-tiny")
    by_runner = by_dvc.copy(tmp_path / "runner")
    by_runner.path("dvc.lock").unlink()
    by_runner.ok("dvc", "commit", "--force")
    assert home.path("dvc.lock").read_bytes() == by_runner.path("dvc.lock").read_bytes()
    again = home.ok("edc", "unpack", str(away.path("out/results-01.tar.xz")))
    assert again.startswith("16 runs taken in")
    assert home.path("dvc.lock").read_bytes() == by_runner.path("dvc.lock").read_bytes()


@pytest.mark.slow
def test_runs_of_other_code_are_refused_and_those_that_need_them(bare, planned, tmp_path):
    away, home = bare.copy(tmp_path / "away"), planned.copy(tmp_path / "home")
    away.ok("python", "-m", "edc", "pack", "out", "--only", "pretrain-*", "--only", "*-tiny-random-*")
    path = home.path("src/edc/relabel.py")
    path.write_text(path.read_text() + "\n")
    done = home.run("edc", "unpack", str(away.path("out/results-01.tar.xz")))
    assert done.returncode == 2
    refused = [line for line in done.stdout.splitlines() if line.startswith("refused")]
    assert refused[0] == "refused relabel-tiny-random-ipc1-edc: made by other code than is here"
    assert all(line.startswith("refused evaluate-tiny-random-ipc1") for line in refused[1:])
    assert len(refused) == 3
    assert not home.path("results/relabel").exists()
    assert not home.path("results/evaluate").exists()
    locked = home.path("dvc.lock").read_text()
    assert "synthesize-tiny-random-ipc1:" in locked
    assert "relabel-tiny" not in locked


@pytest.mark.slow
@pytest.mark.parametrize(("minutes", "interrupted"), [("0", 0), ("0.2", 2)])
def test_a_deadline_ends_what_is_under_way(minutes, interrupted, planned, tmp_path):
    """Without a loaded process runs start at once, and these would end long after either deadline."""
    made = planned.copy(tmp_path / "project")
    keys = [key for stage, key in run_names(made) if stage == "pretrain"][:2]
    made.edit("params.yaml", {f"pretrain.{key}.epochs": 100_000 for key in keys})
    only = [word for key in keys for word in ("--only", f"pretrain-{key}")]
    said = made.ok("edc", "run", "--jobs", "2", "--minutes", minutes, *only, EDC_WARM="")
    assert said == f"0 runs done, 2 left, 0 failed; time is up, {interrupted} interrupted\n"
    assert not made.path("results/pretrain").exists()


@pytest.mark.slow
def test_a_failure_is_told_and_what_needs_it_is_left(project):
    project.edit("params.yaml", {"relabel.tiny-rded-ipc1-rded.min_accuracy": 1.0})
    project.ok("edc", "plan", "--sync")
    done = project.run("edc", "run", "--jobs", "2", "--only", "evaluate-tiny-rded-*")
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stderr
    assert lines[-2].startswith("relabel-tiny-rded-ipc1-rded: failed, exit code 2: edc: ")
    assert "(logs/relabel/tiny-rded-ipc1-rded.log)" in lines[-2]
    assert lines[-1].endswith("1 left, 1 failed")


@pytest.mark.slow
def test_the_script_runs_packs_and_shows(bare, tmp_path):
    made = bare.copy(tmp_path / "project")
    shutil.copytree(REPOSITORY / "scripts", made.path("scripts"))
    shutil.rmtree(made.path("results/evaluate/tiny-edc-ipc1-convnet_d2-edc"))
    said = made.ok("scripts/cifar10_gpu.sh", "5", STUDY="tiny", JOBS="2", PYTHON="python", ONLY="evaluate-*")
    lines = said.splitlines()
    assert lines[0].startswith("evaluate-tiny-edc-ipc1-convnet_d2-edc: ")
    assert "wrote results-gpu/results-01.tar.xz" in said
    assert lines[-1] == "7 of 7 evaluations, on test"
    assert any(line.split()[:4] == ["rded", "1", "convnet_d2", "rded"] for line in lines)


def test_the_script_notes_the_commit_before_the_checkout_travels(planned, tmp_path):
    made = planned.copy(tmp_path / "project")
    shutil.copytree(REPOSITORY / "scripts", made.path("scripts"))
    made.ok("scripts/cifar10_gpu.sh", "prepare", PYTHON="python")
    assert made.path(".edc-commit").read_text() == "none\ntrue\n"
    said = subprocess.run(["git", "status", "--short"], cwd=made.root, capture_output=True, text=True).stdout
    assert ".edc-commit" not in said
