"""What a stage refuses in one line with nothing half-written: damaged, missing or unfitting inputs, a full disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import laboratory as lab
from support.disk import full_disk

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


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def refused(stage: str, upstream: dict[str, dict[str, Any]] | None = None, **changes: Any) -> str:
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
def test_a_damaged_file_of_an_earlier_stage(project: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(Path("runs", name))
    stage, key, _ = name.split("/")
    line = refused(READERS[name])
    assert line.startswith(f"runs/{name}: ")
    assert f"`edc {stage} --run {key}`" in line


@pytest.mark.parametrize("text", ["{", '{"stage": "pretrain"}', "[]", None], ids=["cut", "keys", "list", "missing"])
def test_a_damaged_manifest_of_an_earlier_stage(project: Path, text: str | None) -> None:
    path = Path("runs/pretrain/observer/manifest.json")
    path.unlink() if text is None else path.write_text(text)
    assert refused("statistics").startswith(f"{path}: ")


def test_labels_of_another_number_of_images(project: Path) -> None:
    lab.execute(lab.plan("evaluate", {"images": {"ipc": 3}}), "synthesize", "images")
    labels = lab.manifest("relabel", "labels")  # as if they had been made from these images
    labels["inputs"] = {}
    write_json(run_folder("relabel", "labels") / "manifest.json", labels)
    line = refused("evaluate", {"images": {"ipc": 3}})
    assert line.startswith("runs/relabel/labels: labels of shape [3, 20, 10]; expected 30 images and 10 classes")


def test_inputs_made_from_different_versions_of_one_run(project: Path) -> None:
    upstream = {"images": {"seed": 1}}
    lab.execute(lab.plan("evaluate", upstream), "synthesize", "images")
    line = refused("evaluate", upstream)
    assert line.startswith("runs/relabel/labels was made with another version of synthesize/images than is here ")
    assert line.endswith("run `edc relabel --run labels` again")


@pytest.mark.parametrize("stage", ["statistics", "synthesize", "relabel"])
def test_training_images_that_changed_since_the_observer_was_trained(project: Path, stage: str) -> None:
    upstream = {"dataset": {"split_seed": 1}}
    if stage == "relabel":
        lab.execute(lab.plan("relabel", upstream), "synthesize", "images")
    assert "are of different training images" in refused(stage, upstream)


@pytest.mark.parametrize("stage", ["statistics", "relabel"])
def test_classes_in_another_order_than_the_observer_was_trained_on(project: Path, stage: str) -> None:
    upstream = {"dataset": {"class_names": list("1023456789")}}
    if stage == "relabel":
        lab.execute(lab.plan("relabel", upstream), "synthesize", "images")
    line = refused(stage, upstream)
    assert "disagree on the classes: class 0 is '1' in the first, '0' in the second" in line or (
        "disagree on the classes: class 0 is '0' in the first, '1' in the second" in line
    )
    assert "runs/pretrain/observer" in line


@pytest.mark.parametrize("stage", ["relabel", "continual"])
def test_an_implausibly_bad_teacher(project: Path, stage: str) -> None:
    changes: dict[str, Any] = {"min_accuracy": 0.99}
    line = refused(stage, **changes) if stage == "relabel" else refused(stage, {"labels": changes})
    name = "row" if stage == "relabel" else "labels"
    assert line.startswith("observer observer has 9")
    assert f"expected at least 99.0 % (relabel.{name}.min_accuracy)" in line


def test_weights_from_elsewhere_whose_classes_are_in_another_order(project: Path) -> None:
    """Nothing in such a file names its classes: only its accuracy on held-out images shows it."""
    shutil.copy("runs/pretrain/observer/weights.safetensors", "elsewhere.safetensors")
    upstream = {
        "dataset": {"class_names": list("1234567890")},
        "observer": {"weights": "elsewhere.safetensors", "epochs": 0},
    }
    for stage, key in (("pretrain", "observer"), ("synthesize", "images")):
        lab.execute(lab.plan("relabel", upstream), stage, key)
    line = refused("relabel", upstream, min_accuracy=None)
    assert line.startswith("observer observer has ")
    assert "check the order of its classes" in line


def test_weights_of_another_network(project: Path) -> None:
    line = refused("pretrain", network="convnet_d2", weights=f"runs/{WEIGHTS}")
    assert f"runs/{WEIGHTS}" in line


@pytest.mark.parametrize(
    ("stage", "changes", "keys"),
    [
        ("pretrain", {"optimiser": {"name": "sgd", "lr": 1e30}}, "pretrain.row.optimiser.lr"),
        ("synthesize", {"match": {"weight": 1e38}}, "synthesize.row.optimise.lr or synthesize.row.match.weight"),
        ("evaluate", {"optimiser": {"name": "sgd", "lr": 1e30}}, "evaluate.row.optimiser.lr"),
        ("slimming", {"optimiser": {"name": "sgd", "lr": 1e12, "momentum": 0.9}}, "slimming.row.optimiser.lr"),
        ("continual", {"optimiser": {"name": "sgd", "lr": 1e30}}, "continual.row.optimiser.lr"),
    ],
)
def test_a_loss_that_diverges(project: Path, stage: str, changes: dict[str, Any], keys: str) -> None:
    line = refused(stage, **changes)
    assert line.startswith(f"{stage}.row: diverged in ")
    assert line.endswith(f"lower {keys}")


@pytest.mark.parametrize("stage", ["pretrain", "statistics", "synthesize", "relabel"])
def test_a_full_disk_leaves_no_manifest(project: Path, stage: str) -> None:
    with full_disk(300), pytest.raises(EdcError, match=r"cannot be written \(.*File too large.*\)$") as error:
        lab.run(stage)
    assert "\n" not in str(error.value)
    assert not (run_folder(stage, "row") / "manifest.json").exists()
    assert not list(Path("runs").rglob("*.tmp"))


def test_a_full_disk_while_a_checkpoint_is_saved(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDC_CHECKPOINT_SECONDS", "0")
    with full_disk(300):
        line = refused("statistics")
    assert line.startswith(".edc/checkpoints/statistics/row.pt: cannot be written")


def test_a_file_where_the_runs_belong(project: Path) -> None:
    shutil.rmtree("runs/statistics")
    Path("runs/statistics").write_text("")
    with pytest.raises(EdcError, match=r"runs/statistics/row/observer.safetensors: cannot be written"):
        lab.run("statistics")
