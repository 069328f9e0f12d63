"""Killed runs: every long stage goes on from its checkpoint and ends with the same bytes as if nothing had happened."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from checkout import Checkout
from PIL import Image

RUNS = {
    "pretrain": ("tiny-convnet_w32", {}),
    "statistics": ("tiny-p4", {"batch": 2}),
    "synthesize": ("tiny-edc-ipc1", {}),
    "relabel": ("tiny-edc-ipc1-edc", {"epochs": 1000}),
    "evaluate": ("tiny-edc-ipc1-convnet_d2-edc", {"seeds": list(range(4)), "validations": 6}),
}
"""Of each stage one run, with other values where its own give it too little to do to be interrupted."""
SAVES = 3
"""Checkpoints that must have been written before the run is killed."""
ATTEMPTS = 5


def command(stage: str) -> tuple[str, ...]:
    return ("edc", stage, "--run", RUNS[stage][0])


def checkpoint(checkout: Checkout, stage: str, key: str = "", suffix: str = ".pt") -> Path:
    return checkout.path(".edc/checkpoints", stage, (key or RUNS[stage][0]) + suffix)


def prepare(checkout: Checkout, stage: str) -> None:
    """Give a run enough to do and take its results away."""
    key, values = RUNS[stage]
    checkout.edit("params.yaml", {f"{stage}.{key}.{name}": value for name, value in values.items()})
    shutil.rmtree(checkout.path("results", stage, key))


def kill(checkout: Checkout, stage: str, key: str) -> None:
    """Start a run, wait until it has saved a few checkpoints, and kill it the hard way.

    On a busy machine the run may end before this process looks again; then it is started anew.
    """
    path = checkpoint(checkout, stage, key)
    for _ in range(ATTEMPTS):
        shutil.rmtree(checkout.path("results", stage, key), ignore_errors=True)
        process = checkout.start("edc", stage, "--run", key, EDC_CHECKPOINT_SECONDS="0")
        saves, last = 0, 0
        while saves < SAVES and process.poll() is None:
            try:
                now = path.stat().st_mtime_ns
            except FileNotFoundError:
                now = last
            saves, last = saves + (now != last), now
            time.sleep(0.001)
        process.kill()
        _, said = process.communicate()
        if process.returncode == -9 and path.exists():
            return
        assert process.returncode in (0, -9), said
    pytest.fail(f"{stage} {key} always ended before it could be killed")


@pytest.fixture
def killed(once, by_dvc):
    """A checkout where a stage's run was killed, and the outputs of the same run undisturbed; only to be read."""

    def get(stage: str) -> tuple[Checkout, dict[str, str]]:
        def make(folder: Path) -> None:
            broken = by_dvc.copy(folder / "broken")
            prepare(broken, stage)
            if not values:
                kill(broken, stage, key)
                return
            whole = broken.copy(folder / "whole")
            beside = whole.start(*command(stage))
            kill(broken, stage, key)
            _, said = beside.communicate()
            assert beside.returncode == 0, said

        key, values = RUNS[stage]
        folder = once(f"killed-{stage}", make)
        whole = Checkout(folder / "whole") if values else by_dvc
        return Checkout(folder / "broken"), whole.outputs(stage, key)

    return get


@pytest.mark.slow
@pytest.mark.parametrize("stage", RUNS)
def test_a_killed_run_goes_on_and_ends_the_same(killed, tmp_path, stage):
    broken, expected = killed(stage)
    assert not {"manifest.json"} & set(broken.outputs(stage, RUNS[stage][0])), "a killed run looks finished"
    assert set(broken.outputs(stage, RUNS[stage][0])) <= set(expected), "half-written files among the results"
    project = broken.copy(tmp_path / "project")
    said = project.run(*command(stage))
    assert said.returncode == 0, said.stderr
    assert said.stderr == f"edc: {stage} {RUNS[stage][0]} goes on from its checkpoint\n"
    assert project.outputs(stage, RUNS[stage][0]) == expected
    assert "manifest.json" in expected
    left = [path.name for path in checkpoint(project, stage).parent.iterdir() if not path.name.endswith(".tmp")]
    assert left == [], "a finished run leaves no checkpoint"


@pytest.mark.slow
def test_a_truncated_checkpoint_is_ignored(killed, tmp_path):
    broken, expected = killed("relabel")
    project = broken.copy(tmp_path / "project")
    path = checkpoint(project, "relabel")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said = project.run(*command("relabel"))
    assert (said.returncode, said.stderr) == (0, "")
    assert project.outputs("relabel", RUNS["relabel"][0]) == expected


@pytest.mark.slow
def test_labels_cut_off_beside_a_checkpoint_are_made_again(killed, tmp_path):
    broken, expected = killed("relabel")
    project = broken.copy(tmp_path / "project")
    path = checkpoint(project, "relabel", suffix=".npy")
    path.write_bytes(path.read_bytes()[:1000])
    project.ok(*command("relabel"))
    assert project.outputs("relabel", RUNS["relabel"][0]) == expected


@pytest.mark.slow
def test_a_checkpoint_of_other_parameters_is_ignored(killed, tmp_path):
    broken, before = killed("statistics")
    project = broken.copy(tmp_path / "project")
    project.edit("params.yaml", {"statistics.tiny-p4.class_variance": "mixture"})
    fresh = project.copy(tmp_path / "fresh")
    checkpoint(fresh, "statistics").unlink()
    beside = fresh.start(*command("statistics"))
    said = project.run(*command("statistics"))
    beside.communicate()
    assert (said.returncode, said.stderr, beside.returncode) == (0, "", 0)
    assert project.outputs("statistics", "tiny-p4") == fresh.outputs("statistics", "tiny-p4") != before


@pytest.mark.slow
def test_a_checkpoint_of_other_observers_is_ignored(killed, tmp_path):
    broken, expected = killed("statistics")
    project = broken.copy(tmp_path / "project")
    project.edit("params.yaml", {"pretrain.tiny-convnet_w32.seed": 1})
    project.ok("edc", "pretrain", "--run", "tiny-convnet_w32")
    said = project.run(*command("statistics"))
    assert (said.returncode, said.stderr) == (0, "")
    found = project.outputs("statistics", "tiny-p4")
    assert found["tiny-convnet_w32.safetensors"] != expected["tiny-convnet_w32.safetensors"]
    assert found["tiny-wrn_16_2.safetensors"] == expected["tiny-wrn_16_2.safetensors"]


@pytest.mark.slow
def test_a_checkpoint_of_other_images_is_ignored(pets, tmp_path):
    project, key = pets.copy(tmp_path / "project"), "pets-convnet_d1"
    project.edit("params.yaml", {f"pretrain.{key}.epochs": 30})
    kill(project, "pretrain", key)
    for picture in project.path("data/train/ant").iterdir():
        Image.new("RGB", (8, 8), (200, 0, 0)).save(picture)
    fresh = project.copy(tmp_path / "fresh")
    checkpoint(fresh, "pretrain", key).unlink()
    beside = fresh.start("edc", "pretrain", "--run", key)
    project.ok("edc", "pretrain", "--run", key)
    beside.communicate()
    assert project.outputs("pretrain", key) == fresh.outputs("pretrain", key) != {}


@pytest.mark.slow
def test_a_run_killed_under_dvc_goes_on_when_dvc_is_called_again(killed, tmp_path):
    broken, expected = killed("synthesize")
    project = broken.copy(tmp_path / "project")
    said = project.run("dvc", "repro", "--single-item", f"synthesize-{RUNS['synthesize'][0]}")
    assert said.returncode == 0, said.stderr
    assert "goes on from its checkpoint" in said.stdout + said.stderr
    assert project.outputs("synthesize", RUNS["synthesize"][0]) == expected
