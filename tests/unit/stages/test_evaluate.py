"""Evaluation on the test split and on held-out training images, and what a manifest holds."""

import json
from unittest.mock import Mock

import numpy as np
import pytest
from support import laboratory as lab

from edc.config.rows import Dataset
from edc.data import sets
from edc.stages import context, progress
from edc.stages.progress import ProgressLog
from edc.storage import run_folder


@pytest.fixture
def splits_read(monkeypatch):
    """Names the splits of the dataset that were read."""
    load = Mock(wraps=sets.load_split)
    monkeypatch.setattr(context, "load_split", load)
    return lambda: [call.args[1] for call in load.call_args_list]


@pytest.mark.parametrize("split", ["test", "val"])
def test_students_are_evaluated_on_the_split_of_their_row(project, splits_read, split, tmp_path):
    lab.run("evaluate", split=split)
    assert splits_read() == [split]
    images, manifest = sets.load_split(Dataset.model_validate(lab.DATA), split), lab.manifest("evaluate")
    assert (manifest["test_digest"], manifest["test_images"]) == (images.digest, len(images))
    packed = np.load(run_folder("evaluate", "row") / "correct.npy")
    assert (packed.dtype, "correct.npy" in manifest["files"]) == (np.uint8, True)
    correct = np.unpackbits(packed, axis=1)
    assert not correct[:, len(images) :].any()
    assert [100.0 * count / len(images) for count in correct.sum(axis=1)] == manifest["scores"]["final"]
    assert str(tmp_path) not in json.dumps(manifest)
    assert not {"seconds", "device", "threads", "commit", "torch"} & set(manifest)
    assert json.loads((run_folder("evaluate", "row") / "run.json").read_text())["seconds"] > 0


@pytest.mark.parametrize("stage", ["pretrain", "statistics", "synthesize", "relabel"])
def test_no_stage_before_the_evaluation_reads_the_test_split(project, splits_read, stage):
    lab.run(stage)
    assert splits_read()
    assert "test" not in splits_read()


@pytest.mark.parametrize("stage", ["pretrain", "synthesize", "evaluate", "continual", "slimming"])
def test_progress_shows_the_loss(project, stage, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    lab.run(stage)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"edc: {stage} row: ")]
    assert lines
    assert all(", loss " in line for line in lines)


def test_progress_prints_a_line_with_the_time_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log = ProgressLog(1000, "evaluate row", 100, "epoch")
    for now[0] in (10.0, 29.0, 30.0, 31.0, 59.0, 7300.0):
        log.update(10, {"loss": f"{1 / 3:.3g}"})
    assert capsys.readouterr().err.splitlines() == [
        "edc: evaluate row: epoch 130 of 1000, loss 0.333, 14 min 30 s left",
        "edc: evaluate row: epoch 160 of 1000, loss 0.333, 28 h 23 min left",
    ]
