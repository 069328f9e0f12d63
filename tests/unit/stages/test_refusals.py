"""What a stage refuses in one line with nothing half-written: damaged, missing or unfitting inputs, a full disk."""

import re
import shutil
from pathlib import Path

import pytest
from support import laboratory as lab
from support.faults import full_disk

from edc.errors import EdcError
from edc.storage import run_folder, write_json

READERS = {
    "pretrain/observer/weights.safetensors": "statistics",
    "statistics/statistics/observer.safetensors": "synthesize",
    "synthesize/images/images.safetensors": "relabel",
    "relabel/labels/logits.npy": "evaluate",
    "relabel/labels/static.npy": "slimming",
}
"""Files of finished runs, and a stage that reads them."""
WEIGHTS = "pretrain/observer/weights.safetensors"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def refused(stage, upstream=None, **changes):
    """The one line with which a run is refused; it leaves nothing."""
    with pytest.raises(EdcError) as error:
        lab.run(stage, upstream, **changes)
    assert "\n" not in str(error.value)
    assert not run_folder(stage, "row").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "damage"),
    [*((name, truncate) for name in READERS), *((name, flip_a_bit) for name in READERS), (WEIGHTS, Path.unlink)],
)
def test_a_damaged_file_of_an_earlier_stage(project, name, damage):
    damage(Path("runs", name))
    stage, key, _ = name.split("/")
    line = refused(READERS[name])
    assert line.startswith(f"runs/{name}: ")
    assert f"`edc {stage} --run {key}{' --force' if damage is flip_a_bit else ''}`" in line


def test_labels_of_another_number_of_images(project):
    lab.execute(lab.plan("evaluate", {"images": {"ipc": 3}}), "synthesize", "images")
    labels = lab.manifest("relabel", "labels")  # as if they had been made from these images
    labels["inputs"] = {}
    write_json(run_folder("relabel", "labels") / "manifest.json", labels)
    line = refused("evaluate", {"images": {"ipc": 3}})
    assert line.startswith("runs/relabel/labels: labels of shape [3, 20, 10]; expected 30 images and 10 classes")


def test_inputs_made_from_different_versions_of_one_run(project):
    upstream = {"images": {"seed": 1}}
    lab.execute(lab.plan("evaluate", upstream), "synthesize", "images")
    line = refused("evaluate", upstream)
    assert line.startswith("runs/relabel/labels was made with another version of synthesize/images than is here ")
    assert line.endswith("run `edc relabel --run labels` again")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split_seed": 1}, r"are of different training images"),
        ({"class_names": list("1023456789")}, r"disagree on the classes: class 0 is '[01]' in the first, '[01]'"),
    ],
)
@pytest.mark.parametrize("stage", ["statistics", "synthesize", "relabel"])
def test_training_images_or_classes_that_changed_since_the_observer_was_trained(project, stage, change, message):
    upstream = {"dataset": change}
    if stage == "relabel":
        lab.execute(lab.plan("relabel", upstream), "synthesize", "images")
    line = refused(stage, upstream)
    assert re.search(message, line)
    assert f"runs/{'statistics/statistics' if stage == 'synthesize' else 'pretrain/observer'}" in line


@pytest.mark.parametrize("stage", ["relabel", "continual"])
def test_an_implausibly_bad_teacher(project, stage):
    changes = {"min_accuracy": 0.99}
    line = refused(stage, **changes) if stage == "relabel" else refused(stage, {"labels": changes})
    name = "row" if stage == "relabel" else "labels"
    assert line.startswith("observer observer has 9")
    assert f"expected at least 99.0 % (relabel.{name}.min_accuracy, of workflow/protocols)" in line


def test_a_network_that_is_not_worth_pruning(project):
    line = refused("slimming", min_accuracy=0.999, epochs=1)
    assert re.search(r"^slimming\.row: the unpruned network reaches \d+\.\d %, expected at least 99\.9 %", line)
    assert "raise epochs = 1" in line


def test_weights_from_elsewhere_whose_classes_are_in_another_order(project):
    """Nothing in such a file names its classes: only its accuracy on held-out images shows it."""
    shutil.copy("runs/pretrain/observer/weights.safetensors", "elsewhere.safetensors")
    weights = {"weights": "elsewhere.safetensors", "epochs": 0}
    upstream = {"dataset": {"class_names": list("1234567890")}, "observer": weights}
    for stage, key in (("pretrain", "observer"), ("synthesize", "images")):
        lab.execute(lab.plan("relabel", upstream), stage, key)
    line = refused("relabel", upstream, min_accuracy=None)
    assert line.startswith("observer observer has ")
    assert "check the order of its classes" in line


FAST = {"optimiser": {"name": "sgd", "lr": 1e30}}


@pytest.mark.parametrize("stage", ["pretrain", "synthesize", "evaluate", "slimming", "continual"])
def test_a_loss_that_diverges(project, stage):
    line = refused(stage, **({"match": {"weight": 1e38}} if stage == "synthesize" else FAST))
    assert line.startswith(f"{stage}.row: diverged in ")
    names = ("optimise.lr", "match.weight") if stage == "synthesize" else ("optimiser.lr",)
    assert line.endswith("lower " + " or ".join(f"{stage}.row.{name}" for name in names))


@pytest.mark.parametrize("seconds", ["0", "3600"], ids=["checkpoint", "output"])
@pytest.mark.parametrize("stage", ["statistics", "synthesize", "relabel"])
def test_a_full_disk_leaves_no_manifest(project, monkeypatch, stage, seconds):
    monkeypatch.setenv("EDC_CHECKPOINT_SECONDS", seconds)
    with full_disk(300), pytest.raises(EdcError, match=r"^[^\n]*cannot be written \(.*File too large.*\)$"):
        lab.run(stage)
    assert not (run_folder(stage, "row") / "manifest.json").exists()
    assert not list(Path("runs").rglob("*.tmp"))
