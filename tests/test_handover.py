"""Sets that leave and come back: what `edc.load` shows, what an export holds, what an import refuses."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

import edc
from edc.data.augment import Normaliser
from edc.data.images import ImageSet
from edc.data.replay import Replay
from edc.data.sets import load_split
from edc.exchange.load import CondensedDataset
from edc.errors import EdcError
from edc.exchange.export import export
from edc.exchange.handover import StoredLogits, read_handed
from edc.exchange.imported import IMPORTED, difference, replay_of, stored
from edc.exchange.importing import bring
from edc.config.rows import Dataset, RelabelRow
from edc.storage import fingerprint, sha256, write_json, write_tensors

RUN, LABELS = "pets-edc-ipc3", "pets-edc-ipc3-edc"
CLASSES = ("cat", "ant", "bee")  # not by the alphabet
DATASET: dict[str, Any] = {
    "name": "pets",
    "family": "pets",
    "kind": "digits",
    "image_size": 8,
    "channels": 3,
    "classes": 3,
    "class_names": list(CLASSES),
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.25, 0.3],
}
CHOICES: dict[str, Any] = {
    "dataset": "pets",
    "images": RUN,
    "observers": ["pets-o"],
    "flip": True,
    "epochs": 4,
    "batch": 4,
}
FORMATS = ("folder", "parquet", "torch")


def pixels(n: int = 9, channels: int = 3, size: int = 8) -> Tensor:
    return torch.randint(
        0, 256, (n, channels, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one finished condensed set, its labels, and an evaluation of it."""
    monkeypatch.chdir(tmp_path)
    images, labels = pixels(), torch.arange(3).repeat_interleave(3)
    row = {"dataset": "pets", "recipe": "edc", "ipc": 3, "seed": 0, "optimise": {"iterations": 0}}
    finish("synthesize", RUN, {"synthesize": row}, {"images.safetensors": {"images": images, "labels": labels}})
    rng = np.random.default_rng(0)
    fixed = (8 * np.eye(3)[labels] + rng.normal(size=(9, 3))).astype(np.float16)
    logits = rng.normal(size=(4, 9, 3)).astype(np.float16)
    finish("relabel", LABELS, {"relabel": CHOICES}, {"static.npy": fixed, "logits.npy": logits}, (RUN,))
    judged = {"student": "convnet_d2", "protocol": "edc", "regime": "soft", "seeds": [0, 1]}
    finish("evaluate", f"{RUN}-e", {"evaluate": judged}, {}, (RUN,), scores={"final_mean": 81.25, "final_std": 0.5})
    file = {"description": "d", "title": "t", "data": DATASET, "observers": ["convnet_d1"]}
    rates = {"optimiser": {"name": "sgd", "lr": 0.1}, "schedule": {"name": "constant"}}
    file |= {"pretrain": {"epochs": 1, "batch": 4, **rates}, "statistics": {"patch": 1, "batch": 4}}
    for kind, name, content in (
        ("datasets", "pets", file),
        ("recipes", "edc", {"description": "d", "source": "s", "protocol": "edc"}),
    ):
        path = Path("workflow", kind, f"{name}.yaml")
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump(content))
    return tmp_path


def finish(
    stage: str, run: str, params: dict[str, Any], files: dict[str, Any], inputs: tuple[str, ...] = (), **facts: Any
) -> None:
    """Leave a run as a stage does."""
    folder = Path("results", stage, run)
    folder.mkdir(parents=True)
    for name, content in files.items():
        if isinstance(content, dict):
            write_tensors(folder / name, content)
        else:
            np.save(folder / name, content)
    upstream = {f"synthesize/{i}": fingerprint(manifest(Path("results/synthesize", i))["files"]) for i in inputs}
    params |= {"machine": {"device": "cpu", "threads": 1}, "dataset": DATASET | {"root": "/here"}}
    about = {"stage": stage, "run": run, "params": params, "inputs": upstream, "dataset_digest": "0" * 64}
    entries = {n: {"bytes": (folder / n).stat().st_size, "sha256": sha256(folder / n)} for n in files}
    write_json(folder / "manifest.json", {**about, **facts, "classes": list(CLASSES), "files": entries})
    write_json(folder / "run.json", {"commit": "c0ffee", "dirty": "false"})


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def line(call: Callable[[], object], *parts: str) -> str:
    """The one line a call refuses with; nothing may be left behind."""
    before = sorted(Path().rglob("*"))
    with pytest.raises(EdcError) as error:
        call()
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)
    assert sorted(Path().rglob("*")) == before
    return str(error.value)


# ------------------------------------------------------------------------------------------------------- edc.load

VIEWS: dict[str, dict[str, Any]] = {
    "cutmix": {},
    "mixup": {"mix": "mixup"},
    "plain": {"mix": "none", "crop_scale": [1.0, 1.0]},
    "everything": {"pad": 2, "shuffle": 2, "randaugment": {"ops": 2, "magnitude": 9}},
    "lone last image": {"batch": 4},
    "one batch": {"batch": 50},
}


def dataset_of(folder: Path, choices: dict[str, Any], **more: Any) -> tuple[CondensedDataset, Replay, np.ndarray]:
    row = RelabelRow(**(CHOICES | {"batch": 5} | choices))
    images = ImageSet(pixels(), torch.arange(3).repeat_interleave(3), CLASSES)
    logits = np.random.default_rng(0).normal(size=(4, 9, 3)).astype(np.float16)
    np.save(folder / "logits.npy", logits)
    config = Dataset(**DATASET)
    made = CondensedDataset(images, config, row, StoredLogits(folder / "logits.npy"), **more)
    return made, Replay(images.images, row, Normaliser(config.mean, config.std)), logits


@pytest.mark.parametrize("choices", VIEWS.values(), ids=VIEWS)
def test_items_are_what_students_saw(choices, tmp_path):
    """Bit for bit, image by image, epoch by epoch, whatever order they are asked for in."""
    condensed, replay, logits = dataset_of(tmp_path, choices)
    for epoch in (0, 3, 1):
        condensed.set_epoch(epoch)
        seen = list(replay.epoch(epoch, replay.row.batch))
        index, expected = (torch.cat(part) for part in zip(*seen, strict=True))
        assert torch.equal(condensed.order, index)
        for place in torch.randperm(9, generator=torch.Generator().manual_seed(epoch)).tolist():
            image, soft, label = condensed[place]
            assert torch.equal(image, expected[place])
            assert np.array_equal(soft.numpy(), logits[epoch, index[place]].astype(np.float32))
            assert label == index[place] // 3


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("choices", [VIEWS["cutmix"], VIEWS["lone last image"]])
def test_a_loader_gives_the_students_batches(choices, workers, tmp_path):
    condensed, replay, logits = dataset_of(tmp_path, choices)
    loader = DataLoader(
        condensed, batch_sampler=condensed.batches(), num_workers=workers, persistent_workers=bool(workers)
    )
    for epoch in (0, 2):
        condensed.set_epoch(epoch)
        expected = list(replay.epoch(epoch, replay.row.batch))
        found = list(loader)
        assert len(found) == len(expected)
        for (index, view), (images, soft, labels) in zip(expected, found, strict=True):
            assert images.dtype == soft.dtype == torch.float32
            assert torch.equal(images, view)
            assert np.array_equal(soft.numpy(), logits[epoch][index].astype(np.float32))
            assert torch.equal(labels, index // 3)


def test_little_memory_changes_nothing(tmp_path, monkeypatch):
    roomy, *_ = dataset_of(tmp_path, {})
    wanted = [roomy[i][0] for i in range(9)]
    monkeypatch.setattr("edc.exchange.load.HELD", 1)
    narrow, *_ = dataset_of(tmp_path, {})
    for i in (8, 0, 4, 5, 1):
        assert torch.equal(narrow[i][0], wanted[i])
    assert len(narrow._held) == 1


def test_it_is_a_sequence_that_can_be_sent(tmp_path):
    condensed, *_ = dataset_of(tmp_path, {}, epoch=2)
    assert len(condensed) == 9
    assert len(list(condensed)) == 9
    assert torch.equal(condensed[-1][0], condensed[8][0])
    with pytest.raises(IndexError):
        condensed[9]
    for other in (pickle.loads(pickle.dumps(condensed)), copy.deepcopy(condensed)):
        assert other.epoch == 2
        assert torch.equal(other[3][0], condensed[3][0])


@pytest.mark.parametrize("epoch", [-1, 4])
def test_an_epoch_without_labels_is_refused(epoch, tmp_path):
    condensed, *_ = dataset_of(tmp_path, {})
    with pytest.raises(EdcError, match=rf"epoch {epoch}; expected 0 to 3"):
        condensed.set_epoch(epoch)


def test_labels_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(EdcError, match=r"labels of shape \[4, 9, 3\]; expected \[7, 9, 3\]"):
        dataset_of(tmp_path, {"epochs": 7})


def test_a_run_and_its_exports_load_the_same(project):
    runs = [edc.load(RUN, epoch=2)]
    for layout in FORMATS:
        export(RUN, Path(layout), layout, LABELS)
        runs.append(edc.load(layout, epoch=2))
    fixed = [edc.load(where, regime="static", epoch=9) for where in (RUN, *FORMATS)]
    for several in (runs, fixed):
        first = several[0]
        assert first.classes == CLASSES
        for other in several[1:]:
            for (image, soft, label), (image_2, soft_2, label_2) in zip(first, other, strict=True):
                assert torch.equal(image, image_2)
                assert torch.equal(soft, soft_2)
                assert label == label_2
    assert runs[0].epochs == 4
    assert fixed[0].epochs is None
    one = load_file("torch/condensed.safetensors")
    assert torch.equal(torch.from_numpy(runs[0].targets.read(2)), one["logits"][2])


def test_which_labels(project):
    for key in ("other", "more"):
        made = manifest(Path("results/relabel", LABELS))
        arrays = {n: np.load(f"results/relabel/{LABELS}/{n}") for n in ("static.npy", "logits.npy")}
        finish("relabel", key, {"relabel": made["params"]["relabel"]}, arrays, (RUN,))
    assert edc.load(RUN).targets.path.parent.name == LABELS, "those of the recipe's own protocol"
    assert edc.load(RUN, labels="more").targets.path.parent.name == "more"
    Path("results/relabel", LABELS).rename("results/gone")
    line(lambda: edc.load(RUN), "several labels", "more, other")
    line(lambda: edc.load(RUN, labels="moore"), "unknown finished relabel run 'moore'", "'more'")
    line(lambda: edc.load("pets-edc-ipc4"), "unknown finished synthesize run", RUN)
    line(lambda: edc.load("results"), "results: no manifest.json of `edc export`")
    line(lambda: edc.load(RUN, regime="hard"), "unknown regime 'hard'")
    export(RUN, Path("bare"), "torch")
    line(lambda: edc.load("bare"), "bare: exported without labels")
    line(lambda: edc.load("bare", labels="more"), "labels = 'more'")


def test_edc_has_no_other_attributes():
    with pytest.raises(AttributeError, match="lode"):
        edc.lode  # noqa: B018


# --------------------------------------------------------------------------------------------------------- export


@pytest.mark.parametrize("layout", FORMATS)
def test_an_export_says_what_it_is(layout, project):
    export(RUN, Path("out"), layout, LABELS)
    found = manifest(Path("out"))
    assert found["classes"] == list(CLASSES)
    assert found["run"] == RUN
    assert found["class_hash"] == ImageSet(pixels(), torch.zeros(9), CLASSES).class_hash
    assert found["dataset"]["root"] is None
    assert "/here" not in json.dumps(found)
    assert found["labels"]["replay"] == replay_of(RelabelRow(**CHOICES))
    assert found["labels"]["logits"] == [4, 9, 3]
    assert found["made_from"]["commit"] == "c0ffee"
    card = Path("out/README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "other"
    assert ("configs" in front) == (layout == "parquet")
    for part in ("**pets**", "9 images of 3 classes", "c0ffee", "## Licence", "filled in", "| convnet_d2 | edc | soft"):
        assert part in card
    assert "81.2 ± 0.5 |" in card
    handed = read_handed(Path("out"))
    assert torch.equal(handed.images.images, pixels())
    assert handed.images.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("layout", FORMATS)
def test_an_export_made_again_has_the_same_bytes(layout, project):
    for name in ("one", "two"):
        export(RUN, Path(name), layout, LABELS)
    one, two = (
        {p.relative_to(name): p.read_bytes() for p in Path(name).rglob("*") if p.is_file()} for name in ("one", "two")
    )
    assert one == two


def test_the_folder_opens_with_torchvision(project):
    export(RUN, Path("out"), "folder", LABELS)
    found = ImageFolder("out")
    table = json.loads(Path("out/classes.json").read_text())
    assert found.classes == ["ant", "bee", "cat"]
    assert table["classes"] == list(CLASSES)
    assert [CLASSES[label] for label in table["imagefolder_to_label"]] == found.classes
    again = ImageFolder("out", target_transform=table["imagefolder_to_label"].__getitem__)
    original = pixels()
    for (path, _), (picture, label) in zip(again.samples, again, strict=True):
        number = int(Path(path).stem)
        assert label == number // 3
        assert np.array_equal(np.asarray(picture).transpose(2, 0, 1), original[number].numpy())


def test_the_parquet_opens_with_pyarrow_and_as_a_dataset(project):
    export(RUN, Path("out"), "parquet", LABELS)
    path = Path("out/data/train-00000-of-00001.parquet")
    table = pq.read_table(path)
    assert str(table.schema.field("img").type) == "struct<bytes: binary, path: string>"
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features == {"img": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    assert table.column("label").to_pylist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    # A dataset has a test part; a condensed set has none, so one is put beside it.
    Path("out/data/test-00000-of-00001.parquet").write_bytes(path.read_bytes())
    found = load_split(Dataset(**(DATASET | {"kind": "parquet", "root": "out/data", "val_fraction": 0.0})), "train")
    assert found.classes == CLASSES
    assert torch.equal(found.read(torch.arange(9)), pixels())


def test_the_tensors_open_without_this_project(project):
    export(RUN, Path("out"), "torch", LABELS)
    tensors = load_file("out/condensed.safetensors")
    assert torch.equal(tensors["images"], pixels())
    assert {name: list(t.shape) for name, t in tensors.items() if name != "images"} == {
        "labels": [9], "static": [9, 3], "logits": [4, 9, 3],
    }  # fmt: skip
    with safe_open("out/condensed.safetensors", "pt") as file:
        about = json.loads(file.metadata()["edc"])
    assert about["classes"] == list(CLASSES)
    assert about["replay"] == replay_of(RelabelRow(**CHOICES))


def test_what_an_export_refuses(project):
    Path("there").mkdir()
    line(lambda: export(RUN, Path("there"), "torch"), "there: exists already")
    line(lambda: export(RUN, Path("out"), "tensor"), "--format: unknown format 'tensor'")
    line(lambda: export("pets-edc-ipc30", Path("out"), "torch"), "unknown finished synthesize run", RUN)
    line(lambda: export(RUN, Path("out"), "torch", "pets"), "unknown finished relabel run 'pets'")
    made = manifest(Path("results/relabel", LABELS))["params"]["relabel"]
    finish("relabel", "stranger", {"relabel": made | {"images": "else"}}, {"static.npy": np.zeros(1)})
    line(lambda: export(RUN, Path("out"), "torch", "stranger"), "labels of 'else'", RUN)
    finish("relabel", "old", {"relabel": made}, {"static.npy": np.zeros(1)})
    line(lambda: export(RUN, Path("out"), "torch", "old"), "earlier version", "edc relabel --run old")
    path = Path("results/synthesize", RUN, "images.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    line(lambda: export(RUN, Path("out"), "torch"), "damaged or truncated")


def test_a_class_that_can_not_be_a_folder(project):
    path = Path("results/synthesize", RUN, "manifest.json")
    text = path.read_text()
    path.write_text(text.replace('"bee"', '"bee/wasp"'))
    line(lambda: export(RUN, Path("out"), "folder"), "'bee/wasp'", "parquet or torch")
    path.write_text(text.replace('"bee"', '"README.md"'))
    line(lambda: export(RUN, Path("out"), "folder"), "out/README.md: cannot be written")


# --------------------------------------------------------------------------------------------------------- import


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_set_comes_back_as_it_left(layout, labels, project):
    export(RUN, Path("out"), layout, labels)
    folder, recipe = bring("back", Path("out"), "pets")
    name, found = stored("back")
    assert torch.equal(load_file(folder / "images.safetensors")["images"], pixels())
    values = yaml.safe_load(recipe.read_text())
    start = values["synthesize"]["initialise"]
    assert start == {"method": "imported", "source": f"back@{fingerprint(found['files'])}"}
    assert stored(start["source"]) == (name, found)
    assert found["exported"]["run"] == RUN
    assert (folder / "logits.npy").exists() == (labels is not None)
    if labels is None:
        assert found["labels"] is None
        return
    for file in ("static.npy", "logits.npy"):
        assert np.array_equal(np.load(folder / file), np.load(Path("results/relabel", LABELS, file)))
    assert difference(found["labels"]["replay"], RelabelRow(**CHOICES)) is None


def test_the_first_difference_is_named():
    replay = replay_of(RelabelRow(**CHOICES))
    row = RelabelRow(**(CHOICES | {"epochs": 5, "seed": 1, "observers": ["else"], "source": "imported"}))
    said = difference(replay, row)
    assert said is not None
    assert "seed = 42, the row has 1" in said
    assert "epochs = 4" in str(difference(replay, RelabelRow(**(CHOICES | {"epochs": 5}))))


def tensors(**changes: Any) -> dict[str, Tensor]:
    return {"images": pixels(), "labels": torch.arange(3).repeat_interleave(3)} | changes


def write(path: str, content: Any) -> Path:
    """A file as others make it."""
    target = Path(path)
    if target.suffix == ".safetensors":
        save_file({name: t.contiguous() for name, t in content.items()}, target)
    elif target.suffix == ".pt":
        torch.save(content, target)
    elif target.suffix == ".npz":
        np.savez(target, **{name: t.numpy() for name, t in content.items()})
    else:
        np.save(target, content.numpy())
    return target


MEAN, STD = (torch.tensor(DATASET[name]).view(3, 1, 1) for name in ("mean", "std"))
FILES: dict[str, tuple[str, Callable[[], Any], dict[str, Any]]] = {
    "safetensors": ("s.safetensors", tensors, {}),
    "npz": ("s.npz", tensors, {}),
    "dictionary": ("s.pt", tensors, {}),
    "pair": ("s.pt", lambda: tuple(tensors().values()), {}),
    "channels last": ("s.pt", lambda: tensors(images=pixels().permute(0, 2, 3, 1)), {}),
    "unit": ("s.pt", lambda: tensors(images=pixels() / 255), {"values": "unit"}),
    "normalised": ("s.pt", lambda: tensors(images=(pixels() / 255 - MEAN) / STD), {"values": "normalised"}),
    "float64": ("s.npz", lambda: tensors(images=pixels().double() / 255), {"values": "unit"}),
    "images alone": ("s.npy", pixels, {"classes_file": "c.npy"}),
    "images alone, pt": ("s.pt", pixels, {"classes_file": "c.npy"}),
}


@pytest.mark.parametrize("case", FILES)
def test_tensors_from_elsewhere(case, project):
    name, content, options = FILES[case]
    write("c.npy", torch.arange(3).repeat_interleave(3))
    options = {key: Path(value) if key == "classes_file" else value for key, value in options.items()}
    folder, _ = bring("back", write(name, content()), "pets", **options)
    found = load_file(folder / "images.safetensors")
    assert torch.equal(found["images"], pixels())
    assert found["labels"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert manifest(folder)["values"] == options.get("values", "uint8")


def test_images_in_another_order_come_class_after_class_with_their_labels(project):
    order = torch.tensor([8, 0, 4, 1, 5, 2, 7, 3, 6])
    fixed = 5 * torch.eye(3)[order // 3] + order[:, None] / 10
    write("l.pt", fixed)
    write("s.pt", {"images": pixels()[order], "labels": order // 3})
    folder, _ = bring("back", Path("s.pt"), "pets", labels=Path("l.pt"))
    found, place = load_file(folder / "images.safetensors"), (order // 3).argsort(stable=True)
    assert torch.equal(found["images"], pixels()[order][place])
    assert torch.equal(found["labels"], torch.arange(3).repeat_interleave(3))
    assert torch.equal(torch.from_numpy(np.load(folder / "static.npy")), fixed[place].half())


def test_probabilities_become_logits(project):
    logits = 4 * torch.eye(3)[torch.arange(9) // 3] + 0.1 * torch.rand(9, 3)
    write("s.pt", tensors(soft_labels=logits.softmax(1)))
    folder, recipe = bring("back", Path("s.pt"), "pets")
    found = np.load(folder / "static.npy")
    assert manifest(folder)["labels"]["were"] == "probabilities"
    np.testing.assert_allclose(found, logits - logits.mean(1, keepdim=True), atol=2e-3)
    note = [text[4:] for text in recipe.read_text().splitlines() if text.startswith("#   ")]
    assert yaml.safe_load("\n".join(note))["regime"] == "static"
    write("hot.pt", tensors(soft_labels=torch.eye(3)[torch.arange(9) // 3]))
    folder, _ = bring("hot", Path("hot.pt"), "pets")
    assert np.isfinite(np.load(folder / "static.npy")).all()


def test_an_image_folder_from_elsewhere(project):
    export(RUN, Path("out"), "folder")
    for name in ("manifest.json", "classes.json", "README.md"):
        Path("out", name).unlink()
    folder, _ = bring("back", Path("out"), "pets")
    assert torch.equal(load_file(folder / "images.safetensors")["images"], pixels())
    Path("out/ant").rename("out/dog")
    line(lambda: bring("more", Path("out"), "pets"), "unknown class folder 'dog'")
    Path("out/dog").rename("out/ant")
    Path("out/ant/00003.png").unlink()
    line(lambda: bring("more", Path("out"), "pets"), "class 'ant' has 2 images, class 'cat' has 3")
    Path("out/ant/00003.png").write_bytes(b"no picture")
    line(lambda: bring("more", Path("out"), "pets"), "out/ant/00003.png: not a known image format")


REFUSED: dict[str, tuple[Callable[[], Any], dict[str, Any], tuple[str, ...]]] = {
    "size": (lambda: tensors(images=pixels(size=9)), {}, ("[9, 3, 9, 9]", "(N, 3, 8, 8)", "nothing is resized")),
    "channels": (lambda: tensors(images=pixels(channels=1)), {}, ("[9, 1, 8, 8]", "(N, 3, 8, 8)")),
    "too many classes": (lambda: tensors(labels=torch.arange(9) // 2), {}, ("image 6 has class 3", "0 to 2")),
    "too few classes": (lambda: tensors(labels=torch.arange(9) // 5), {}, ("class 'ant' has 4", "'cat' has 5")),
    "unequal": (lambda: tensors(labels=torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])), {}, ("'ant' has 2 images",)),
    "class count": (lambda: tensors(labels=torch.arange(6) // 2), {}, ("classes are [6]", "each of 9 images")),
    "float classes": (lambda: tensors(labels=torch.zeros(9)), {}, ("classes are [9] of float32", "one integer")),
    "no classes": (pixels, {}, ("no classes of the images", "--classes FILE")),
    "no images": (lambda: {"pictures": pixels()}, {}, ("no images in it", "'images'", "found 'pictures'")),
    "unsaid floats": (lambda: tensors(images=pixels() / 255), {}, ("--values unit or normalised",)),
    "unit range": (lambda: tensors(images=pixels() / 100), {"values": "unit"}, ("to 2.55", "[0, 1]", "clipped")),
    "normalised range": (lambda: tensors(images=pixels() / 9), {"values": "normalised"}, ("expected [0, 1]",)),
    "not a number": (
        lambda: tensors(images=torch.full((9, 3, 8, 8), float("nan"))),
        {"values": "unit"},
        ("values nan to nan",),
    ),
    "values of bytes": (tensors, {"values": "unit"}, ("holds uint8",)),
    "meaning": (tensors, {"values": "units"}, ("unknown meaning of values 'units'", "'unit'")),
    "integers": (lambda: tensors(images=pixels().long()), {}, ("dtype int64", "uint8 or floats")),
    "not tensors": (lambda: {"images": [1, 2]}, {}, ("'images' is a list", "tensors by name")),
    "soft shape": (lambda: tensors(static=torch.rand(9, 4)), {}, ("soft labels are [9, 4]", "expected [9, 3]")),
    "soft order": (
        lambda: tensors(static=torch.eye(3)[(torch.arange(9) // 3 + 1) % 3]),
        {},
        ("agree with the class of 0.0 % of the images", "another order?"),
    ),
    "soft infinite": (lambda: tensors(static=torch.full((9, 3), 1e9)), {}, ("not finite in half precision",)),
    "per epoch": (lambda: tensors(logits=torch.rand(4, 9, 3)), {}, ("labels per epoch", "edc export")),
    "two labels": (lambda: tensors(static=torch.eye(3)[torch.arange(9) // 3]), {"labels": "l.pt"}, ("of its own",)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_an_import_refuses(case, project):
    content, options, parts = REFUSED[case]
    path = write("s.pt", content())
    write("l.pt", torch.eye(3)[torch.arange(9) // 3])
    options = {key: Path(value) if key == "labels" else value for key, value in options.items()}
    line(lambda: bring("back", path, "pets", **options), *parts)


def test_names_and_files_an_import_refuses(project):
    path = write("s.pt", tensors())
    line(lambda: bring("Back!", path, "pets"), "name 'Back!'", "lower-case")
    line(lambda: bring("edc", path, "pets"), "workflow/recipes/edc.yaml: exists already")
    line(lambda: bring("back", path, "petz"), "unknown dataset 'petz'", "'pets'")
    line(lambda: bring("back", Path("gone.pt"), "pets"), "--data gone.pt: no such file")
    line(lambda: bring("back", path, "pets", labels=Path("gone.pt")), "gone.pt: no such file")
    Path("s.pkl").write_bytes(b"")
    line(lambda: bring("back", Path("s.pkl"), "pets"), "unknown kind '.pkl'")
    for ending in (".pt", ".npz", ".npy", ".safetensors"):
        Path(f"cut{ending}").write_bytes(path.read_bytes()[:300])
        line(lambda e=ending: bring("back", Path(f"cut{e}"), "pets"), f"cut{ending}: not readable as {ending}")
    torch.save({"images": Evil()}, "evil.pt")
    line(lambda: bring("back", Path("evil.pt"), "pets"), "evil.pt: not readable as .pt")
    assert not Path("ran").exists()
    bring("back", path, "pets")
    line(lambda: bring("back", path, "pets"), "back.yaml: exists already")
    Path("workflow/recipes/back.yaml").unlink()
    line(lambda: bring("back", path, "pets"), "results/imported/back: exists already")


class Evil:
    """Would leave a file if it were unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("layout", FORMATS)
def test_a_damaged_export_is_refused(layout, project):
    export(RUN, Path("out"), layout, LABELS)
    found = manifest(Path("out"))
    # Pictures are known by their pixels, everything else by its bytes.
    victims = [*found["files"]] + (["ant/00003.png"] if layout == "folder" else [])
    for victim in victims:
        path = Path("out", victim)
        kept = path.read_bytes()
        path.write_bytes(kept[: len(kept) // 2])
        line(lambda: bring("back", Path("out"), "pets"), f"out/{victim}")
        line(lambda: edc.load("out"), f"out/{victim}")
        path.unlink()
        line(lambda: bring("back", Path("out"), "pets"), "out")
        path.write_bytes(kept)
    if layout == "folder":
        Path("out/ant/00003.png").rename("out/bee/00003.png")
        line(lambda: bring("back", Path("out"), "pets"), "out: images, classes or their order changed")
    Path("out/manifest.json").write_text("{")
    line(lambda: bring("back", Path("out"), "pets"), "out/manifest.json: damaged")
    write_json(Path("out/manifest.json"), found | {"format": "edc condensed set, version 9"})
    line(lambda: bring("back", Path("out"), "pets"), "version 9", "version 1")


def test_an_export_of_other_classes_is_refused(project):
    export(RUN, Path("out"), "torch")
    path = Path("workflow/datasets/pets.yaml")
    values = yaml.safe_load(path.read_text())
    changes = {
        ("class 0 is 'cat'", "'ant'"): {"class_names": ["ant", "bee", "cat"]},
        ("3 classes; expected 2",): {"class_names": ["cat", "ant"], "classes": 2},
        ("[3, 8, 8]", "[3, 16, 16]", "nothing is resized"): {"image_size": 16},
    }
    for parts, change in changes.items():
        path.write_text(yaml.safe_dump(values | {"data": DATASET | change}))
        line(lambda: bring("back", Path("out"), "pets"), *parts)


def test_another_set_under_the_name_is_refused(project):
    folder, recipe = bring("back", write("s.pt", tensors()), "pets")
    source = yaml.safe_load(recipe.read_text())["synthesize"]["initialise"]["source"]
    for path in (folder, recipe):
        path.rename(f"{path.name}.old")
    line(lambda: stored(source), "results/imported/back: no such imported set")
    bring("back", write("t.pt", tensors(images=255 - pixels())), "pets")
    line(lambda: stored(source), "another set than the recipe's", source)
    path = IMPORTED / "back" / "images.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    line(lambda: stored("back"), "images.safetensors: damaged", "import the set again")
