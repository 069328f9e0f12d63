"""Imported sets in the stages: the same images and labels give the same students, others are refused."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support import laboratory as lab
from support.pets import write_yaml

from edc.errors import EdcError
from edc.exchange.export import export
from edc.exchange.external import Options
from edc.exchange.importing import import_set
from edc.storage import run_folder

FACTS = ("scores", "image_bytes", "label_bytes", "steps", "test_digest")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation, and its images and labels imported as ``back`` and ``unlabelled``; only to be copied."""
    folder = tmp_path_factory.mktemp("evaluated")
    rates = {"optimiser": lab.OPTIMISER, "schedule": lab.SCHEDULE}
    data = {name: value for name, value in lab.DATA.items() if name != "name"}
    dataset = {"description": "d", "title": "t", "observers": ["convnet_d1"], "data": data}
    dataset |= {"pretrain": {"epochs": 1, "batch": 4, **rates}, "statistics": {"patch": 4, "batch": 4}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        lab.prepare()
        lab.run("evaluate")
        write_yaml("workflow/datasets/tiny.yaml", dataset)
        for name, labels in (("back", "labels"), ("unlabelled", None)):
            import_set(name, export("images", Path(f"export_{name}"), "parquet", labels), "tiny")
    return folder


@pytest.fixture
def project(evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in."""
    folder = tmp_path / "project"
    shutil.copytree(evaluated, folder)
    monkeypatch.chdir(folder)
    return folder


def rows(name: str = "back", **labels: Any) -> dict[str, dict[str, Any]]:
    """Images and labels of an imported set, in place of the plan's own."""
    start = yaml.safe_load(Path(f"workflow/recipes/{name}.yaml").read_text())["synthesize"]["initialise"]
    return {"images": {"recipe": name, "initialise": start}, "labels": {"source": "imported"} | labels}


def execute(upstream: dict[str, dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Synthesize, relabel and evaluate; the manifest of the evaluation."""
    plan = lab.plan("evaluate", upstream, **changes)
    for stage, key in (("synthesize", "images"), ("relabel", "labels"), ("evaluate", "row")):
        lab.execute(plan, stage, key)
    return lab.manifest("evaluate")


@pytest.mark.parametrize("source", ["imported", "observers"])
def test_imported_images_and_labels_give_the_same_students(source, project):
    expected = lab.manifest("evaluate")
    logits = {name: (run_folder("relabel", "labels") / name).read_bytes() for name in ("logits.npy", "static.npy")}
    manifest = execute(rows(source=source))
    assert {name: manifest[name] for name in FACTS} == {name: expected[name] for name in FACTS}
    for name, content in logits.items():
        assert (run_folder("relabel", "labels") / name).read_bytes() == content
    protocol = yaml.safe_load(Path("workflow/protocols/back.yaml").read_text())
    assert (protocol["regime"], protocol["inherits"]) == ("soft", "edc")
    layer = protocol["families"]["digits"]["ipc"][2]
    assert layer["student"] == {"epochs": lab.LABELS["epochs"], "batch": lab.LABELS["batch"]}
    assert (layer["relabel"]["source"], layer["relabel"]["mix"]) == ("imported", "cutmix")


def test_labels_that_went_through_fkd_give_the_same_students(project):
    expected = lab.manifest("evaluate")
    out = export("images", Path("out"), "fkd", "labels")
    import_set("views", out / "train", "tiny", Options(names="index", labels=out / "labels"))
    manifest = execute(rows("views", replay="stored"))
    assert manifest["scores"] == expected["scores"]
    assert manifest["label_bytes"] > expected["label_bytes"], "the views' coordinates count"
    export("images", Path("again"), "fkd", "labels")
    for path in out.rglob("*.tar"):
        first, second = (torch.load(Path(name, path.relative_to(out))) for name in (out, "again"))
        assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(first, second, strict=True))


def test_under_another_augmentation_only_static_labels_are_used(project):
    changed = rows(crop_scale=[0.4, 1.0])
    with pytest.raises(EdcError, match=r"crop_scale = \[0.5, 1.0\], the row has \[0.4, 1.0\]; .* of evaluate.row"):
        execute(changed)
    assert execute(changed, regime="static")["scores"]["final"]
    assert np.load(run_folder("relabel", "labels") / "logits.npy").shape == (0, 20, 10)


@pytest.mark.parametrize(
    ("upstream", "message"),
    [
        (lambda: rows("unlabelled"), "the set 'unlabelled' was imported without labels; expected 'observers'"),
        (lambda: rows() | {"images": {}}, "the images 'images' are not imported; expected 'observers'"),
        (lambda: rows() | {"images": rows()["images"] | {"ipc": 1}}, "2 images per class; expected ipc = 1"),
        (lambda: rows() | {"images": rows()["images"] | {"jpeg": 10}}, "differ from those of 'back'"),
        (lambda: rows() | {"images": {"initialise": {"method": "imported"}}}, "initialise.source: missing"),
    ],
)
def test_rows_that_do_not_fit_the_set(upstream, message, project):
    with pytest.raises(EdcError, match=message):
        execute(upstream())


@pytest.mark.parametrize("shift", [0, 1])
def test_classes_in_an_order_the_teachers_contradict(shift, project):
    """Class folders of numbers that count from another class are told from right ones when they are labelled."""
    out = export("images", Path("out"), "folder", None, "index") / "train"
    for c in range(10):
        (out / f"{c:05}").rename(out / f"new{(c + shift) % 10}")
    import_set("numbers", out, "tiny", Options(names="index"))
    upstream = rows("numbers", source="observers")
    if not shift:
        assert execute(upstream)["scores"]["final"]
        return
    with pytest.raises(EdcError, match=r"relabel.labels: the teachers agree .* of 'numbers'; expected at least 20.0 %"):
        execute(upstream)
