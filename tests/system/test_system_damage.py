"""Damaged results, and a machine that lacks something: one line, exit code 2, and nothing lost or half-written."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest
from samples import PRETRAIN

# Results of earlier stages


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


READERS = {
    "pretrain/tiny-convnet_w32/weights.safetensors": ("statistics", "tiny-p4"),
    "statistics/tiny-p4/tiny-convnet_w32.safetensors": ("synthesize", "tiny-edc-ipc1"),
    "synthesize/tiny-edc-ipc1/images.safetensors": ("relabel", "tiny-edc-ipc1-edc"),
    "relabel/tiny-edc-ipc1-edc/logits.npy": ("evaluate", "tiny-edc-ipc1-convnet_d2-edc"),
}
WEIGHTS = next(iter(READERS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage"),
    [*((name, cut) for name in READERS), (WEIGHTS, change), (WEIGHTS, Path.unlink)],
    ids=[*(name.split("/")[-1] for name in READERS), "changed", "missing"],
)
def test_a_damaged_result_of_an_earlier_stage(done, refused, name, damage):
    damage(done.path("results", name))
    stage, key, _ = name.split("/")
    reader, run = READERS[name]
    line = refused(done, "edc", reader, "--run", run)
    assert line.startswith(f"edc: results/{name}: ")
    assert f"`edc {stage} --run {key}`" in line


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", '{"stage": "pretrain"}', "[]"], ids=["cut", "keys", "list"])
def test_a_damaged_manifest(done, refused, text):
    done.path("results/pretrain/tiny-convnet_w32/manifest.json").write_text(text)
    line = refused(done, "edc", "statistics", "--run", "tiny-p4")
    assert line.startswith("edc: results/pretrain/tiny-convnet_w32/manifest.json: ")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", "{}", '{"params": {"evaluate": []}, "scores": {}}'])
def test_a_damaged_manifest_below_the_tables(done, refused, text):
    name = "results/evaluate/tiny-edc-ipc1-convnet_d2-edc/manifest.json"
    done.path(name).write_text(text)
    assert refused(done, "edc", "tables", "--run", "tiny").startswith(f"edc: {name}: ")


@pytest.mark.slow
def test_a_stage_before_the_one_it_builds_on(project, refused):
    line = refused(project, "edc", "statistics", "--run", "tiny-p4")
    assert "results/pretrain/tiny-convnet_w32/manifest.json: no such file" in line
    line = refused(project, "edc", "tables", "--run", "tiny")
    assert "results/evaluate/tiny-edc-ipc1-convnet_d2-edc/manifest.json: no such file" in line


@pytest.mark.slow
def test_an_observer_that_is_implausibly_bad(done):
    shutil.rmtree(done.path("results/relabel/tiny-edc-ipc1-edc"))
    done.edit("params.yaml", {"relabel.tiny-edc-ipc1-edc.min_accuracy": 0.99})
    line = done.refused("edc", "relabel", "--run", "tiny-edc-ipc1-edc")
    assert "observer tiny-convnet_w32 is right on" in line
    assert "relabel.tiny-edc-ipc1-edc.min_accuracy" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("pretrain", "tiny-convnet_w32", {"optimiser.lr": 1e30}),
        ("synthesize", "tiny-edc-ipc1", {"match.weight": 1e38}),
        ("evaluate", "tiny-edc-ipc1-convnet_d2-edc", {"optimiser.lr": 1e30}),
    ],
)
def test_a_loss_that_is_no_number(done, stage, key, value):
    shutil.rmtree(done.path(f"results/{stage}/{key}"))
    done.edit("params.yaml", {f"{stage}.{key}.{name}": number for name, number in value.items()})
    line = done.refused("edc", stage, "--run", key)
    assert f"{stage}.{key}: diverged in" in line
    assert f"lower {stage}.{key}.optimi" in line


@pytest.mark.slow
def test_weights_of_another_network(done):
    done.edit(
        "params.yaml", {"pretrain.tiny-convnet_w32.weights": "results/pretrain/tiny-wrn_16_2/weights.safetensors"}
    )
    line = done.refused(*PRETRAIN)
    assert "results/pretrain/tiny-wrn_16_2/weights.safetensors" in line


# The machine


def test_a_gpu_where_there_is_none(project):
    project.edit("params.yaml", {"machine.device": "cuda"})
    line = project.refused(*PRETRAIN, CUDA_VISIBLE_DEVICES="")
    assert "machine.device = 'cuda'" in line


@pytest.mark.slow
def test_a_gpu_that_torch_cannot_use(project, tmp_path):
    project.edit("params.yaml", {"machine.device": "cuda"})
    line = project.refused(*PRETRAIN, CUDA_VISIBLE_DEVICES="GPU-00000000", TMPDIR=str(tmp_path))
    assert "machine.device" in line


def small_files():
    """No file may grow beyond 300 bytes: what a full disk looks like to a program."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["statistics", "relabel", "tables"])
def test_a_disk_without_room_for_the_results(done, stage):
    key = next(iter(done.plan()[stage]))
    shutil.rmtree(done.path("results", stage))
    line = done.refused("edc", stage, "--run", key, before=small_files)
    assert "cannot be written" in line
    assert "File too large" in line


@pytest.mark.slow
def test_a_disk_without_room_for_a_checkpoint(done):
    shutil.rmtree(done.path("results/statistics"))
    line = done.refused("edc", "statistics", "--run", "tiny-p4", before=small_files, EDC_CHECKPOINT_SECONDS="0")
    assert ".edc/checkpoints/statistics/tiny-p4.pt: cannot be written" in line


def test_a_disk_without_room_for_a_plan(project):
    project.path("params.yaml").unlink()
    project.path("dvc.yaml").unlink()
    assert "cannot be written (File too large)" in project.refused("edc", "plan", "tiny", before=small_files)


@pytest.mark.slow
def test_results_that_are_no_folder(project):
    project.path("results").write_text("")
    line = project.refused("edc", "synthesize", "--run", "tiny-random-ipc1")
    assert "results" in line


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_results_that_may_not_be_written(project):
    project.path("results").mkdir(mode=0o500)
    line = project.refused("edc", "synthesize", "--run", "tiny-random-ipc1")
    assert "Permission denied" in line
