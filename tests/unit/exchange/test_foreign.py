"""`edc import` of the layouts in which others hand condensed sets around, each written here as its tool writes it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from support.pets import CLASSES, DATA, DATASET, OF_IMAGES, RUN, manifest, pixels, refused, write_yaml

from edc.exchange.export import export
from edc.exchange.external import DEFAULTS, Options
from edc.exchange.importing import import_set

ORDER = "classes are numbers, taken in the order of 'pets': 0 = cat, 1 = ant, 2 = bee"
UNIT = pixels() / 255
MEAN, STD = (torch.tensor(DATASET[name]).view(3, 1, 1) for name in ("mean", "std"))


def imported(data: Path, options: Options = DEFAULTS, classes_of: str | None = None) -> list[str]:
    """Import as pets, compare all images and classes with the original ones; the notes."""
    folder, *_ = import_set("back", data, "pets", options, classes_of)
    stored = load_file(folder / "condensed.safetensors")
    assert torch.equal(stored["images"], pixels())
    assert torch.equal(stored["labels"], OF_IMAGES)
    notes: list[str] = manifest(folder)["origin"]["notes"]
    return notes


def folders(*names: str) -> Path:
    """Class folders of these names, in label order."""
    out = (export(RUN, Path("exported"), "folder", None, "sre2l") / "train").rename("out")
    for c, name in enumerate(names):
        (out / f"new{c:03}").rename(out / f"{name}_")
    for name in names:
        (out / f"{name}_").rename(out / name)
    return out


@pytest.mark.parametrize("form", ["{:05}", "new{:03}", "class_{}", "{}"])
def test_class_folders_of_numbers(form, project, capsys):
    out = folders(*(form.format(c) for c in range(3)))
    refused(lambda: import_set("back", out, "pets"), "unknown class folder", "--names index")
    assert imported(out, Options(names="index")) == [f"out: {ORDER}"]
    assert capsys.readouterr().err == f"edc: out: {ORDER}\n"


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("00000", "00001", "00003"), ("no folder with number 2", "0 to 2")),
        (("1", "2", "3"), ("no folder with number 0",)),
        (("n01440764", "n01443537", "n01484850"), ("no folder with number 0",)),
        (("0", "1", "bee"), ("out/bee: no number",)),
        (("0", "1", "01"), ("both have number 1",)),
    ],
)
def test_numbers_that_are_not_complete(names, parts, project):
    out = folders(*names)
    refused(lambda: import_set("back", out, "pets", Options(names="index")), "--names index", *parts)


def parquet(path: Path, rows: slice, image: str = "image", label: str = "class_id", names: Any = None) -> None:
    """Rows of an export as another tool's columns."""
    if not Path("source").exists():
        export(RUN, Path("source"), "parquet")
    table = pq.read_table("source/data/train-00000-of-00001.parquet").slice(rows.start, rows.stop - rows.start)
    table = pa.table({image: table.column("image"), label: table.column("label")})
    if names is not None:
        features = {"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


@pytest.mark.parametrize("label", ["label", "labels", "class_id", "fine_label"])
@pytest.mark.parametrize("image", ["image", "img"])
def test_parquet_files(image, label, project):
    for part, rows in enumerate((slice(0, 4), slice(4, 9))):
        parquet(Path(f"set/data/train-{part:05}-of-00002-0a1b.parquet"), rows, image, label)
    parquet(Path("set/data/test-00000-of-00001.parquet"), slice(0, 1))
    assert imported(Path("set")) == [f"set: {ORDER}"]


def test_names_in_the_metadata_decide(project):
    parquet(Path("one.parquet"), slice(0, 9), names=["0", "1", "2"])
    assert imported(Path("one.parquet")) == [f"one.parquet: {ORDER}"]
    parquet(Path("two.parquet"), slice(0, 9), names=["ant", "bee", "cat"])
    folder, *_ = import_set("two", Path("two.parquet"), "pets")
    stored = load_file(folder / "condensed.safetensors")
    assert torch.equal(stored["images"], pixels().roll(3, 0)), "what the file calls cat is class 0"
    assert manifest(folder)["origin"]["notes"] == []
    parquet(Path("three.parquet"), slice(0, 9), names=["dog", "bee", "cat"])
    refused(lambda: import_set("three", Path("three.parquet"), "pets"), "unknown class 'dog'", "--names index")


def test_parquet_files_that_are_refused(project):
    parquet(Path("a.parquet"), slice(0, 9), label="y")
    refused(lambda: import_set("back", Path("a.parquet"), "pets"), "a.parquet: no column label or", "found image, y")
    parquet(Path("b.parquet"), slice(0, 8))
    refused(lambda: import_set("back", Path("b.parquet"), "pets"), "class 'bee' has 2", "--ipc 2")
    Path("c.parquet").write_bytes(Path("b.parquet").read_bytes()[:-9])
    refused(lambda: import_set("back", Path("c.parquet"), "pets"), "c.parquet: not readable as parquet")
    pq.write_table(pa.table({"image": [b"no picture"], "label": [0]}), "d.parquet")
    refused(lambda: import_set("back", Path("d.parquet"), "pets"), "d.parquet: row 0: not a known image format")
    pq.write_table(pa.table({"image": [None], "label": [0]}), "e.parquet")
    refused(lambda: import_set("back", Path("e.parquet"), "pets"), "e.parquet: column 'image': row 0 has no bytes")


FILES: dict[str, Callable[[], Any]] = {
    "CIM, GIFT": lambda: {"dataset": "pets", "data": UNIT, "label": OF_IMAGES},
    "DC, one of several": lambda: {
        "data": [[UNIT, OF_IMAGES], [1 - UNIT, OF_IMAGES]], "accs_all_exps": {"ConvNet": [np.float64(0.5), 0.25]},
    },
    "pairs": lambda: [[UNIT, OF_IMAGES]],
    "tuple": lambda: (UNIT, OF_IMAGES),
    "soft labels for classes": lambda: {"data": UNIT, "label": 5 * torch.eye(3)[OF_IMAGES]},
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_files_of_other_tools(case, project):
    torch.save(FILES[case](), "s.pt")
    notes = imported(Path("s.pt"), Options(values="unit"))
    assert notes == [*(["s.pt: the first of 2 sets in it is taken"] if "DC" in case else []), f"s.pt: {ORDER}"]


def test_mtt_has_images_and_classes_in_two_files(project):
    torch.save((UNIT - MEAN) / STD, "images_best.pt")
    torch.save(5 * torch.eye(3)[OF_IMAGES], "labels_best.pt")
    imported(Path("images_best.pt"), Options(values="normalised", classes_file=Path("labels_best.pt")))


def test_clipping_is_counted(project):
    images = UNIT.clone()
    images[0, 0, 0, :3] = torch.tensor([-0.2, 1.5, 1.001])  # the last one rounds to 1
    torch.save({"data": images, "label": OF_IMAGES}, "s.pt")
    refused(lambda: import_set("back", Path("s.pt"), "pets", Options(values="unit")), "-0.2 to 1.5", "--clip")
    folder, *_ = import_set("back", Path("s.pt"), "pets", Options(values="unit", clip=True))
    assert load_file(folder / "condensed.safetensors")["images"][0, 0, 0, :3].tolist() == [0, 255, 255]
    assert "2 of 1728 values (0.12 %) were outside [0, 1] and clipped" in manifest(folder)["origin"]["notes"][0]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(
    ("images", "values", "expected"),
    [
        (UNIT, "normalised", "expected --values unit"),
        (UNIT * 1.004, "normalised", "expected --values unit"),
        ((UNIT - MEAN) / STD, "unit", "or --values normalised"),
        (UNIT * 255, "unit", "expected [0, 1]"),
        (UNIT * float("nan"), "unit", "expected [0, 1]"),
    ],
)
def test_values_that_can_not_be_what_they_are_called(images, values, expected, clip, project):
    torch.save({"data": images, "label": OF_IMAGES}, "s.pt")
    refused(lambda: import_set("back", Path("s.pt"), "pets", Options(values=values, clip=clip)), expected)


def test_some_classes_of_a_larger_set(project):
    """Animals has pets' classes in another order and two others, of which one stands in the set too."""
    names = ["dog", "ant", "cat", "eel", "bee"]
    data = DATA | {"family": "animals", "classes": 5, "class_names": names}
    values: dict[str, Any] = {"data": data, "description": "d", "title": "t", "observers": ["convnet_d1"]}
    rates = {"optimiser": {"name": "sgd", "lr": 0.1}, "schedule": {"name": "constant"}}
    values |= {"pretrain": {"epochs": 1, "batch": 4, **rates}, "statistics": {"patch": 1, "batch": 4}}
    write_yaml("workflow/datasets/animals.yaml", values)
    images, labels = torch.cat([255 - pixels()[:4], pixels()]), torch.tensor([0, 3, 3, 0, 2, 2, 2, 1, 1, 1, 4, 4, 4])
    soft = 5 * torch.eye(5)[labels] + torch.arange(5.0)
    torch.save({"images": images, "labels": labels, "soft_labels": soft}, "s.pt")
    notes = imported(Path("s.pt"), classes_of="animals")
    assert "order of 'animals': 0 = dog, 1 = ant, 2 = cat, ..., 4 = bee" in notes[0]
    assert "9 of 13 images are of the classes of 'pets'" in notes[1]
    static = torch.from_numpy(np.load("runs/imported/back/static.npy"))
    assert torch.equal(static, soft[4:][:, [2, 1, 4]].half())
    refused(lambda: import_set("more", Path("s.pt"), "pets", classes_of="animal"), "unknown dataset 'animal'")


def test_the_first_images_of_every_class(project):
    labels = torch.cat([OF_IMAGES, torch.tensor([0, 2])])
    torch.save({"images": torch.cat([pixels(), 255 - pixels()[:2]]), "labels": labels}, "s.pt")
    refused(lambda: import_set("back", Path("s.pt"), "pets"), "'ant' has 3 images, class 'cat' has 4", "--ipc 3")
    refused(lambda: import_set("back", Path("s.pt"), "pets", Options(ipc=4)), "--ipc 4", "class 'ant' has 3")
    imported(Path("s.pt"), Options(ipc=3))


def test_options_that_do_not_fit_the_data(project):
    export(RUN, Path("out"), "folder", None, "index")
    refused(lambda: import_set("back", Path("out"), "pets", Options(names="index")), "out: an edc export", "--names")
    refused(lambda: import_set("back", Path("out"), "pets", Options(clip=True)), "out: pictures", "--clip")
    refused(lambda: import_set("back", Path("out"), "pets", Options(names="sre2l")), "unknown kind of names 'sre2l'")
    assert manifest("out")["classes"] == list(CLASSES)
