"""The tables, from hand-made manifests: every column, empty cells, what is refused, which of the paper's figures stand
beside which cell. Numbers are computed by hand."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edc.reporting import markdown
from edc.reporting import render
from edc.stages import tables
from edc.reporting.applications import applications
from edc.errors import EdcError
from edc.reporting.evaluations import evaluations
from edc.config.rows import Plan, TablesRow
from edc.reporting.reported import FIGURES, REPORTED, TABLES, read_figures
from edc.storage import fingerprint
from edc.reporting.tabulate import tables as tabulate

REPOSITORY = Path(__file__).resolve().parents[1]
Row = dict[str, Any]
Store = Callable[..., Path]

# Recipes with their own protocols, as short as they can be.
RECIPES = {
    "edc": "edc", "edc_code": "edc_code", "random": "edc", "rded": "rded", "sre2l": "sre2l", "full": "real_data",
    "config_c": "config_c", "config_d": "config_c", "config_f": "config_e", "config_g": "config_g",
}  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty laboratory with the repository's figures of the paper."""
    monkeypatch.chdir(tmp_path)
    recipes = tmp_path / "workflow/recipes"
    recipes.mkdir(parents=True)
    for name, protocol in RECIPES.items():
        (recipes / f"{name}.yaml").write_text(f"description: d\nsource: s\nprotocol: {protocol}\n")
    REPORTED.parent.mkdir()
    shutil.copyfile(REPOSITORY / REPORTED, REPORTED)
    return tmp_path


@pytest.fixture
def store(place: Path) -> Store:
    """Writes the manifest of one evaluation."""

    def write(
        recipe: str = "edc", mean: float = 50.0, std: float | None = 1.0, *, dataset: str = "digits", run: str = "",
        data: Row | None = None, change: Callable[[Row], object] | None = None, **row: Any,
    ) -> Path:  # fmt: skip
        values = {"ipc": 10, "student": "resnet18", "protocol": "edc", "regime": "soft", "seeds": [0, 1, 2]}
        values |= {"variant": "", "images": "i", "labels": "l", "epochs": 3} | row
        values |= {"dataset": dataset, "recipe": recipe}
        scores = {"final": [mean], "final_mean": mean, "final_std": std, "best_mean": mean + 1, "best_std": std}
        manifest = {
            "params": {"evaluate": values, "dataset": {"name": dataset, "family": dataset} | (data or {})},
            "scores": scores,
            "steps": 480,
            "image_bytes": 6400,
            "label_bytes": 240000,
        }
        manifest |= {"stage": "evaluate", "run": run, "inputs": {}, "dataset_digest": "", "classes": [], "files": {}}
        name = run or "-".join(str(values[n]) for n in ("dataset", "recipe", "ipc", "student", "protocol", "variant"))
        if change:
            change(manifest)
        path = Path("results/evaluate") / name.replace(":", "_") / "manifest.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(manifest))
        return path

    return write


def ran(name: str) -> list[Row]:
    """Rows of a table that ran here, without empty cells."""
    rows = tabulate(evaluations(), read_figures())[name].rows
    kept = [row for row in rows if "seeds" not in row or row["seeds"] is not None]
    return [{column: value for column, value in row.items() if value is not None} for row in kept]


def only(name: str) -> Row:
    (row,) = ran(name)
    return row


def paper_only(name: str) -> list[Row]:
    """Rows of a table where only the paper has a figure."""
    return [row for row in tabulate(evaluations(), read_figures())[name].rows if row["seeds"] is None]


def write_all() -> dict[str, bytes]:
    """Every CSV file as its bytes."""
    made = tabulate(evaluations(), read_figures()) | applications()
    return {name: tables.as_csv(made[name].columns, made[name].rows).encode() for name in TABLES}


# Table 1


def test_every_column_of_table1(store: Store) -> None:
    store("edc", 78.123, 0.256, dataset="cifar10", protocol="edc")
    store("edc", 60.5, 0.4, dataset="cifar10", protocol="static_soft", regime="static")
    store("edc", 55.25, None, dataset="cifar10", protocol="hard_label", regime="hard", seeds=[0])
    store("random", 70.005, 0.5, dataset="cifar10", protocol="edc", seeds=[0, 1])
    random, edc = sorted(ran("table1"), key=lambda row: str(row["recipe"]), reverse=True)
    assert edc == {
        "dataset": "cifar10", "recipe": "edc", "protocol": "edc", "ipc": 10, "student": "resnet18", "seeds": 3,
        "final_mean": 78.123, "final_std": 0.256, "best_mean": 79.123, "best_std": 0.256, "static_mean": 60.5,
        "static_std": 0.4, "hard_mean": 55.25, "reported": 79.1, "reported_std": 0.3, "difference": -0.977,
        "image_bytes": 6400, "label_bytes": 240000, "steps": 480, "random_mean": 70.005, "random_std": 0.5,
        "gain": 8.118,
    }  # fmt: skip
    assert (random["seeds"], random["final_mean"], random["random_mean"], random["gain"]) == (2, 70.005, 70.005, 0.0)
    assert not {"static_mean", "hard_mean", "reported"} & set(random)
    header = write_all()["table1"].decode().splitlines()[0]
    assert header == (
        "dataset,recipe,protocol,ipc,student,seeds,final_mean,final_std,best_mean,best_std,static_mean,static_std,"
        "hard_mean,hard_std,reported,reported_std,difference,image_bytes,label_bytes,steps,random_mean,random_std,gain"
    )


def test_the_baseline_is_the_one_under_the_same_protocol(store: Store) -> None:
    for protocol, ours, theirs in (("edc", 50, 40), ("rded", 45, 48)):
        store("rded", ours, protocol=protocol)
        store("random", theirs, protocol=protocol)
    store("rded", 30, protocol="sre2l")
    store("rded", 20, protocol="rded", ipc=1)
    found = {(row["protocol"], row["ipc"]): row for row in ran("table1") if row["recipe"] == "rded"}
    assert [(row["random_mean"], row["gain"]) for row in (found["edc", 10], found["rded", 10])] == [(40, 10), (48, -3)]
    assert not {"random_mean", "random_std", "gain"} & (set(found["sre2l", 10]) | set(found["rded", 1]))


def test_a_protocol_that_teaches_alike_serves_as_the_baseline(store: Store) -> None:
    """Only where training and labelling are the same in every choice; the images' own key is no choice."""

    def labelled(key: str, weights: str = "w", **choices: Any) -> Row:
        files = {"logits.npy": {"sha256": key}}
        path = Path("results/relabel") / key / "manifest.json"
        path.parent.mkdir(parents=True)
        values = {"images": key, "observers": ["digits-a"], "mix": "cutmix"} | choices
        inputs = {f"synthesize/{key}": key, "pretrain/digits-a": weights}
        path.write_text(json.dumps({"params": {"relabel": values}, "inputs": inputs, "files": files}))
        return {"labels": key, "change": lambda made: made["inputs"].update({f"relabel/{key}": fingerprint(files)})}

    store("random", 40, **labelled("r"))
    store("edc_code", 50, protocol="edc_code", **labelled("c"))
    store("rded", 45, protocol="rded", **labelled("one", observers=["digits-b"]))
    store("sre2l", 45, protocol="sre2l", **labelled("short"), epochs=4)
    store("config_f", 45, protocol="config_e", **labelled("trained anew", weights="v"))
    store("config_d", 45, protocol="config_c", **(labelled("made since") | {"change": None}))
    store("config_c", 45, protocol="config_c", labels="gone")
    rows = {row["recipe"]: row for row in ran("table1")}
    assert (rows["edc_code"]["random_mean"], rows["edc_code"]["gain"]) == (40, 10)
    others = ("rded", "sre2l", "config_f", "config_d", "config_c")
    assert not any("gain" in rows[recipe] for recipe in others)
    scored = {row["recipe"]: row for row in ran("scores")}
    assert (scored["edc_code"]["random_own"], scored["edc_code"]["ior"]) == (0.4, 0.1)
    assert "random_own" not in scored["rded"]


def test_a_page_rounds_what_ran_once(store: Store) -> None:
    """61.32 minus 57.4733 is 3.8467: 3.8, but 3.9 by way of 3.85."""
    store("edc", 61.32)
    store("random", 57.47333333)
    made = tabulate(evaluations(), read_figures())["table1"]
    assert "| 57.5 ± 1.0 | +3.8 |" in render.markdown(markdown.table1(made, evaluations()))


def test_images_that_no_soft_protocol_judged_have_a_row_of_their_own(store: Store) -> None:
    store("edc", 40, protocol="static_soft", regime="static")
    store("edc", 30, protocol="hard_label", regime="hard")
    row = only("table1")
    assert (row["static_mean"], row["hard_mean"]) == (40, 30)
    assert not {"final_mean", "final_std", "best_mean", "best_std", "gain"} & set(row)


def test_the_whole_dataset_stands_with_zero_images_per_class(store: Store) -> None:
    store("full", 96.5, ipc=0, images=None, labels=None, protocol="real_data", regime="hard")
    row = only("table1")
    assert (row["recipe"], row["ipc"], row["hard_mean"]) == ("full", 0, 96.5)
    assert "final_mean" not in row
    made = tabulate(evaluations(), read_figures())["table1"]
    assert "| all | resnet18 | full | real_data | 3 |  |  |  | 96.5 ± 1.0 |" in render.markdown(
        markdown.table1(made, evaluations())
    )


def test_variants_are_not_in_table1(store: Store) -> None:
    store("edc", 50)
    store("edc", 51, variant="alpha=0.1")
    store("random", 40, variant="alpha=0.1")
    assert "gain" not in only("table1")
    assert {(row["recipe"], row["variant"], row["final_mean"]) for row in ran("variants")} == {
        ("edc", "alpha=0.1", 51),
        ("random", "alpha=0.1", 40),
    }


def test_cells_of_the_paper_that_did_not_run_stand_without_accuracies(store: Store) -> None:
    store("edc", 79.0, dataset="cifar10")
    rows = paper_only("table1")
    assert len(rows) == 103 - 1
    (row,) = [row for row in rows if row["recipe"] == "gvbsm" and row["dataset"] == "cifar100" and row["ipc"] == 1]
    assert {name: value for name, value in row.items() if value is not None} == {
        "dataset": "cifar100", "recipe": "gvbsm", "ipc": 1, "student": "resnet18", "reported": 25.9,
        "reported_std": 0.5,
    }  # fmt: skip
    text = render.markdown(markdown.table1(tabulate(evaluations(), read_figures())["table1"], evaluations()))
    block = text[text.index("## Not run here") :]
    assert (
        "- CIFAR-10, IPC 1: **edc**[^1][^2] mobilenet_v2 20.2 ± 0.4, resnet101 26.1 ± 0.2, resnet18 32.6 ± 0.1" in block
    )
    assert block.count("\n- ") == 15


# Which figures are the paper's


def test_a_dataset_that_inherits_from_the_papers_has_its_figures_and_footnotes(store: Store, place: Path) -> None:
    """The same images with other observers; a file that is gone is no relation."""
    datasets = place / "workflow/datasets"
    datasets.mkdir()
    (datasets / "light.yaml").write_text("inherits: cifar10\n")
    store(mean=60.0, dataset="light", ipc=1)
    found = only("table1")
    assert (found["reported"], found["difference"]) == (32.6, 27.4)
    text = render.markdown(markdown.table1(tabulate(evaluations(), read_figures())["table1"], evaluations()))
    assert "The paper's batch is 25, the published script's 10." in text
    (datasets / "light.yaml").unlink()
    assert only("table1").get("reported") is None


@pytest.mark.parametrize(
    ("row", "reported"),
    [
        ({}, 79.1),
        ({"recipe": "edc_code", "protocol": "edc_code"}, 79.1),
        ({"recipe": "sre2l", "protocol": "sre2l"}, 27.2),
        ({"student": "torchvision:resnet50"}, 76.0),
        ({"student": "mobilenet_v2_half"}, 42.0),
        ({"ipc": 50}, 87.0),
        ({"dataset": "tiny_imagenet"}, 51.2),
        ({"dataset": "imagenet10"}, 63.4),
        ({"recipe": "sre2l", "protocol": "edc"}, None),
        ({"recipe": "edc", "protocol": "rded"}, None),
        ({"recipe": "edc_code", "protocol": "edc"}, None),
        ({"recipe": "random"}, None),
        ({"recipe": "config_g", "protocol": "config_g"}, None),
        ({"student": "convnet_d2"}, None),
        ({"ipc": 20}, None),
        ({"dataset": "mine", "data": {"family": "cifar10"}}, None),  # other images that take CIFAR-10's values
        ({"data": {"train_per_class": 500}}, None),
        ({"data": {"test_per_class": 200}}, None),
        ({"dataset": "digits"}, None),
    ],
)
def test_the_figure_beside_a_cell_of_table1(store: Store, row: Row, reported: float | None) -> None:
    store(mean=60.0, **({"dataset": "cifar10"} | row))
    found = only("table1")
    assert found.get("reported") == reported
    assert found.get("difference") == (None if reported is None else round(60.0 - reported, 2))


def test_a_recipes_own_protocol_may_depend_on_family_and_images(store: Store) -> None:
    layers = "families: {cifar10: {protocol: rded, ipc: {50: {protocol: sre2l}}}}\n"
    path = Path("workflow/recipes/edc.yaml")
    path.write_text(path.read_text() + layers)
    for ipc in (10, 50):
        for protocol in ("edc", "rded", "sre2l"):
            store(dataset="cifar10", protocol=protocol, ipc=ipc)
            store(dataset="cifar100", protocol=protocol, ipc=ipc)
    compared = {(row["dataset"], row["ipc"], row["protocol"]) for row in ran("table1") if "reported" in row}
    assert compared == {
        ("cifar10", 10, "rded"), ("cifar10", 50, "sre2l"), ("cifar100", 10, "edc"), ("cifar100", 50, "edc"),
    }  # fmt: skip


def test_all_figures_of_the_paper_are_read_under_our_names() -> None:
    figures = read_figures()
    assert {table: len(figures.of(table)) for table in (1, 2, 3, 4, 5, 22)} == {
        1: 103, 2: 90, 3: 24, 4: 24, 5: 35, 22: 5,
    }  # fmt: skip
    assert len(figures.all) == 281
    full = figures.find(22, "ImageNet-21k", 0, "resnet18", "full")
    assert full is not None
    assert (full.accuracy, full.family) == (38.5, "imagenet21k")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1,CIFAR-10,1,resnet18,edc,lots,0.1,", "line 290: accuracy = 'lots'"),
        ("1,CIFAR-10,1,resnet18,edc,132.6,0.1,", "line 290: accuracy = '132.6'"),
        ("1,CIFAR-11,1,resnet18,edc,32.6,0.1,", "line 290: dataset = 'CIFAR-11'"),
        ("1,CIFAR-10,1,resnet18,edc,32.6,0.1,", "line 290: a second figure for 1, CIFAR-10, 1, resnet18, edc"),
    ],
)
def test_a_damaged_file_of_figures(line: str, words: str) -> None:
    with REPORTED.open("a") as file:
        file.write("1,CIFAR-10,2,resnet18,edc,32.6,0.1,\n" + line + "\n")
    with pytest.raises(EdcError, match=words) as caught:
        read_figures()
    assert str(caught.value).startswith("workflow/paper/reported.csv: ")
    REPORTED.unlink()
    with pytest.raises(EdcError, match="cannot be read"):
        read_figures()


# The other tables of the paper


def test_table2_has_the_papers_students_on_any_dataset(store: Store) -> None:
    store("edc", 40.0, dataset="imagenet1k", student="timm:deit_tiny_patch16_224.fb_in1k", ipc=30)
    store("rded", 20.0, dataset="imagenet1k", student="torchvision:swin_t", ipc=20, protocol="rded")
    store("edc", 70.0, dataset="cifar100", student="resnet50", ipc=50)
    store("edc", 70.0, dataset="cifar100", student="resnet50", ipc=1)
    store("edc", 70.0, dataset="cifar100", student="convnet_d2", ipc=50)
    store("edc", 71.0, dataset="cifar100", student="resnet101", ipc=50, protocol="hard_label", regime="hard")
    store("edc", 72.0, dataset="cifar100", student="resnet101", ipc=40, protocol="rded")
    beside = [row.get("reported_imagenet1k") for row in ran("table2")]
    compared = [(row.get("reported"), row.get("difference")) for row in ran("table2")]
    assert [(row["dataset"], row["ipc"]) for row in ran("table2")] == [
        ("cifar100", 40), ("cifar100", 50), ("imagenet1k", 20), ("imagenet1k", 30),
    ]  # fmt: skip
    assert beside == [None, 64.3, 44.6, 46.5]
    assert compared == [(None, None), (None, None), (44.6, -24.6), (46.5, -6.5)]
    assert len(paper_only("table2")) == 88


def test_table3_by_variant_and_by_cross(store: Store) -> None:
    one = {"dataset": "imagenet1k", "student": "torchvision:resnet50"}
    store("config_c", 45.0, **one, variant="zeta=2.0", protocol="config_c")
    store("config_c", 50.0, **one, protocol="config_e")
    store("rded", 30.0, **one, protocol="config_a")
    store("rded", 48.0, **one, protocol="rded")
    store("rded", 48.0, **one, protocol="edc")  # no line of Table 3
    store("rded", 60.0, **one, protocol="rded", ipc=50)  # Table 3 has IPC 10
    found = {(row["recipe"], row["protocol"]): row for row in ran("table3")}
    assert {key: (row["reported"], row["difference"]) for key, row in found.items()} == {
        ("config_c", "config_c"): (45.8, -0.8),
        ("config_c", "config_e"): (51.6, -1.6),
        ("rded", "config_a"): (32.7, -2.7),
        ("rded", "rded"): (48.4, -0.4),
    }
    assert found["config_c", "config_c"]["variant"] == "zeta=2.0"
    assert len(paper_only("table3")) == 24 - 4


def test_an_ablation_elsewhere_shows_the_papers_figure_but_no_difference(store: Store) -> None:
    variant = "loss=fr;weight=2.5;zeta=1.5;beta=0.999;tau=4"
    store("config_d", 90.0, student="convnet_d2", variant=variant, protocol="config_c")
    store("config_d", 91.0, student="resnet50", variant=variant, protocol="config_c")
    store("config_d", 92.0, student="resnet18", variant=variant, protocol="edc")
    rows = {row["student"]: row for row in ran("table4")}
    assert rows["convnet_d2"] == {
        "dataset": "digits", "recipe": "config_d", "variant": variant, "protocol": "config_c", "ipc": 10,
        "student": "convnet_d2", "seeds": 3, "final_mean": 90.0, "final_std": 1.0, "best_mean": 91.0, "best_std": 1.0,
        "reported_imagenet1k": 31.7, "reported_student": "resnet18",
    }  # fmt: skip
    assert (rows["resnet50"]["reported_imagenet1k"], rows["resnet50"]["reported_student"]) == (37.0, "resnet50")
    assert "reported" not in rows["resnet50"]
    assert "reported_imagenet1k" not in rows["resnet18"], "another protocol is another measurement"
    assert "31.7 (resnet18)" in render.markdown(
        markdown.other("table4", tabulate(evaluations(), read_figures())["table4"])
    )
    assert ran("variants") == []


def test_the_same_variant_may_stand_in_two_tables(store: Store) -> None:
    store("config_c", 38.0, dataset="imagenet1k", variant="zeta=1.5", protocol="config_c")
    assert [only(name)["difference"] for name in ("table3", "table4")] == [-0.7, -0.7]
    assert ran("table5") == []


def test_configs_as_they_are_stand_beside_the_line_that_is_the_same(store: Store) -> None:
    store("config_g", 49.0, dataset="imagenet1k", protocol="config_g")
    store("config_d", 39.0, dataset="imagenet1k", protocol="config_c")
    assert (only("table5")["reported"], only("table5")["difference"]) == (48.6, 0.4)
    assert (only("table4")["reported"], only("table4")["difference"]) == (39.5, -0.5)
    assert "variant" in only("table5")
    assert only("table5")["variant"] == ""


@pytest.mark.parametrize(
    ("config", "table", "accuracy"),
    [("b", 3, 34.4), ("c", 3, 38.7), ("c", 4, 38.7), ("d", 4, 39.5), ("e", 5, 46.2), ("f", 5, 48.1), ("g", 5, 48.6)],
)
def test_the_ladder_of_configs(store: Store, config: str, table: int, accuracy: float) -> None:
    Path(f"workflow/recipes/config_{config}.yaml").write_text("description: d\nsource: s\nprotocol: own\n")
    store(f"config_{config}", 50.0, dataset="imagenet1k", protocol="own")
    assert only(f"table{table}")["reported"] == accuracy


def test_table5_by_variant(store: Store) -> None:
    variant = "alpha=0.25;zeta=2.0;weak_aug=no;ema=no"
    store("config_f", 50.0, dataset="imagenet1k", student="resnet101", variant=variant, protocol="config_e")
    row = only("table5")
    assert (row["reported"], row["difference"], row["reported_imagenet1k"]) == (50.6, -0.6, 50.6)
    assert len(paper_only("table5")) == 34


def test_table22_with_the_whole_dataset(store: Store) -> None:
    store("edc", 27.0, dataset="imagenet21k")
    store("random", 20.0, dataset="imagenet21k")
    store("edc", 21.0, dataset="imagenet21k", protocol="hard_label", regime="hard")
    store("full", 38.0, dataset="imagenet21k", ipc=0, regime="hard", protocol="real_data")
    store("edc", 27.0, dataset="imagenet1k")
    found = [(row["recipe"], row["ipc"], row.get("reported"), row.get("difference")) for row in ran("table22")]
    assert found == [("full", 0, 38.5, -0.5), ("edc", 10, 26.8, 0.2), ("random", 10, None, None)]
    assert sorted(row["recipe"] for row in paper_only("table22")) == ["cda", "rded", "sre2l"]
    assert "reported_imagenet1k" not in tabulate(evaluations(), read_figures())["table22"].columns


# Crosses and scores


def test_cross_has_what_at_least_two_recipes_and_protocols_share(store: Store) -> None:
    store("edc", 50.0)
    store("edc", 40.0, protocol="hard_label", regime="hard")
    store("random", 30.0)
    for student in ("one_recipe", "one_protocol"):
        store("edc", 1.0, student=student)
    store("edc", 1.0, student="one_recipe", protocol="rded")
    store("random", 1.0, student="one_protocol")
    store("edc", 1.0, variant="v")
    store("full", 99.0, ipc=0, regime="hard", protocol="real_data")
    keys = ("ipc", "student", "recipe", "protocol", "regime", "final_mean", "final_std")
    assert [tuple(row[key] for key in keys) for row in ran("cross")] == [
        (10, "resnet18", "edc", "edc", "soft", 50, 1),
        (10, "resnet18", "edc", "hard_label", "hard", 40, 1),
        (10, "resnet18", "random", "edc", "soft", 30, 1),
    ]
    text = render.markdown(markdown.page("cross", tabulate(evaluations(), read_figures())["cross"], []))
    assert "| recipe | edc | hard_label |\n| --- | --- | --- |\n| edc | **50.0 ± 1.0** | 40.0 ± 1.0 |" in text
    assert "| random | 30.0 ± 1.0 |  |" in text


def test_a_score_of_four_evaluations(store: Store) -> None:
    store("rded", 60.0, protocol="rded")
    store("random", 50.0, protocol="rded")
    store("rded", 45.0, protocol="hard_label", regime="hard")
    store("full", 75.0, ipc=0, regime="hard", protocol="real_data")
    store("rded", 99.0, protocol="edc")  # not its own
    store("edc", 70.0, student="resnet50")
    row = next(row for row in ran("scores") if row["recipe"] == "rded")
    # a = 0.5 x 0.1 - 0.5 x 0.3 = -0.1, and (e^-0.1 - e^-1) / (e - e^-1) = 0.2285 (golden: 0.22845364)
    assert row == {
        "dataset": "digits", "recipe": "rded", "ipc": 10, "student": "resnet18", "protocol": "rded", "real_hard": 0.75,
        "condensed_hard": 0.45, "condensed_own": 0.6, "random_own": 0.5, "hlr": 0.3, "ior": 0.1, "lrs": 0.2285,
    }  # fmt: skip
    random = next(row for row in ran("scores") if row["recipe"] == "random")
    assert set(random) == {"dataset", "recipe", "ipc", "student", "protocol", "real_hard"}, "its own protocol is edc"
    other = next(row for row in ran("scores") if row["recipe"] == "edc")
    assert "real_hard" not in other, "the whole dataset was given to another student"
    assert "full" not in {row["recipe"] for row in ran("scores")}


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        ("real_hard", {"condensed_hard", "condensed_own", "random_own", "ior"}),
        ("condensed_hard", {"real_hard", "condensed_own", "random_own", "ior"}),
        ("condensed_own", {"real_hard", "condensed_hard", "random_own", "hlr"}),
        ("random_own", {"real_hard", "condensed_hard", "condensed_own", "hlr"}),
    ],
)
def test_a_score_is_empty_where_a_component_did_not_run(store: Store, missing: str, left: set[str]) -> None:
    parts: dict[str, Row] = {
        "real_hard": {"recipe": "full", "ipc": 0, "regime": "hard", "protocol": "real_data"},
        "condensed_hard": {"protocol": "hard_label", "regime": "hard"},
        "condensed_own": {},
        "random_own": {"recipe": "random"},
    }
    for name, row in parts.items():
        if name != missing:
            store(mean=40.0, **row)
    # The same student elsewhere, and another student here, must not fill the gap.
    for name, row in parts.items():
        store(mean=10.0, **row | {"dataset": "cifar10"})
        if name != "condensed_own":
            store(mean=10.0, **row | {"student": "resnet50"})
    rows = [row for row in ran("scores") if row["dataset"] == "digits" and row["student"] == "resnet18"]
    row = next(row for row in rows if row["recipe"] == "edc")
    assert set(row) - {"dataset", "recipe", "ipc", "student", "protocol"} == left


# Order, bytes, bad input


def fill(store: Store) -> None:
    """A few cells of every kind."""
    for dataset in ("digits", "cifar10", "imagenet1k"):
        for recipe in ("random", "edc", "rded"):
            for protocol, regime in (("edc", "soft"), ("rded", "soft"), ("hard_label", "hard")):
                store(recipe, 100 / 3, 1 / 3, dataset=dataset, protocol=protocol, regime=regime)
    store("full", 200 / 3, ipc=0, regime="hard", protocol="real_data")
    store("config_c", 200 / 3, variant="zeta=2.0", protocol="config_c")
    store("edc", 200 / 3, variant="mine")


def test_files_are_the_same_bytes_whatever_the_order_of_the_runs(store: Store, tmp_path: Path) -> None:
    fill(store)
    first = write_all()
    assert write_all() == first
    runs = sorted(Path("results/evaluate").iterdir())
    for count, run in enumerate(reversed(runs)):
        run.rename(run.with_name(f"{count:03d}"))
    assert write_all() == first
    for name, text in first.items():
        assert b"\r" not in text, name
        assert text.endswith(b"\n"), name
        lines = text.decode().splitlines()
        assert len(lines) == len(set(lines)) > (name not in ("continual", "slimming")), name
    cell = b"cifar10,edc,edc,10,resnet18,3,33.3333,0.3333,34.3333,0.3333,,,33.3333,0.3333,79.1,0.3,-45.7667,"
    assert cell in first["table1"]


def test_a_table_without_rows_is_a_header(store: Store) -> None:
    store("edc", 50.0)
    texts = write_all()
    assert texts["variants"] == (
        b"dataset,recipe,variant,protocol,ipc,student,seeds,final_mean,final_std,best_mean,best_std\n"
    )
    assert texts["cross"] == b"dataset,ipc,student,recipe,protocol,regime,seeds,final_mean,final_std\n"
    assert texts["table3"].splitlines()[0] == (
        b"dataset,recipe,variant,protocol,ipc,student,seeds,final_mean,final_std,best_mean,best_std,reported,"
        b"reported_std,difference,reported_imagenet1k,reported_student"
    )
    assert texts["scores"].splitlines() == [
        b"dataset,recipe,ipc,student,protocol,real_hard,condensed_hard,condensed_own,random_own,hlr,ior,lrs",
        b"digits,edc,10,resnet18,edc,,,0.5,,,,",
    ]


def test_every_csv_has_a_markdown(store: Store) -> None:
    fill(store)
    made, found = tabulate(evaluations(), read_figures()) | applications(), evaluations()
    assert tuple(made) == TABLES
    cost = [{"stage": "evaluate", "run": one.run, "dataset": one.dataset, "seconds": 12.4, "device": "CPU, 1 threads",
             "commit": "0123456789abcdef"} for one in found]  # fmt: skip
    text = render.markdown(markdown.table1(made["table1"], found, cost))
    line = "| 10 | resnet18 | edc | edc | 3 | 33.3 ± 0.3 | 34.3 ± 0.3 |  | 33.3 ± 0.3 | 33.3 ± 0.3 | +0.0 | "
    assert line + "79.1 ± 0.3[^1] | -45.8 | 6.4 | 240.0 | 480 | 12 | 0123456 |" in text
    assert "| 10 | resnet18 | random | edc | 3 | 33.3 ± 0.3 | 34.3 ± 0.3 |  | 33.3 ± 0.3 |  |  |  |  |" in text
    for name in TABLES[1:]:
        text = render.markdown(tables.page(name, made, found, cost))
        assert text.startswith(f"# {markdown.HEADINGS[name]}\n")
        assert ("Nothing ran here." in text) == (name in ("table4", "table5", "table22", "continual", "slimming"))
        for block in text.split("\n\n"):
            if block.startswith("|"):
                assert len({line.count("|") for line in block.splitlines()}) == 1


def test_the_stage_writes_every_file_and_the_same_ones_again(store: Store) -> None:
    names = [store("edc", 50.0).parent.name, store("random", 40.0).parent.name]
    plan = Plan(study="s", datasets={}, tables={"s": TablesRow(evaluate=names)})
    tables.run(plan, "s")
    folder = Path("results/tables")
    expected = {f"{name}.{ending}" for name in TABLES for ending in ("csv", "md", "tex", "html")} | {"cost.csv"}
    expected |= {f"{name}.png" for name in FIGURES}
    assert {path.name for path in folder.iterdir()} == expected | {"s"}
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    manifest = json.loads((folder / "s/manifest.json").read_text())
    assert list(manifest["tables"]) == list(TABLES)
    for name, entry in manifest["tables"].items():
        text = first[folder / f"{name}.csv"]
        assert entry == {"rows": len(text.splitlines()) - 1, "sha256": hashlib.sha256(text).hexdigest()}
    assert list(manifest["inputs"]) == [f"evaluate/{name}" for name in names]
    tables.run(plan, "s")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == first


def test_the_stage_refuses_a_study_that_has_not_run(store: Store) -> None:
    store("edc", 50.0)
    plan = Plan(study="s", datasets={}, tables={"s": TablesRow(evaluate=["other"])})
    with pytest.raises(EdcError, match=r"^results/evaluate/other/manifest.json: no such file"):
        tables.run(plan, "s")
    assert not Path("results/tables").exists()


def test_costs_come_from_the_records_of_the_runs(store: Store) -> None:
    path = store("edc", 50.0)
    store("rded", 50.0)
    path.with_name("run.json").write_text(json.dumps({"seconds": 1.5, "device": "CPU", "commit": "c", "code": "x"}))
    (row,) = tables.costs()
    assert (row["stage"], row["run"], row["dataset"], row["seconds"]) == ("evaluate", path.parent.name, "digits", 1.5)
    (read,) = csv.DictReader(tables.as_csv(tables.COST, [row]).splitlines())
    assert (read["device"], read["torch"], list(read)) == ("CPU", "", list(tables.COST))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["scores"].update(final_mean=101.0), "scores.final_mean = 101.0: input should be less than or equal"),
        (lambda m: m["scores"].update(best_mean=-1.0), "scores.best_mean = -1.0"),
        (lambda m: m["scores"].update(final_mean=math.nan), "scores.final_mean = nan: input should be a finite number"),
        (lambda m: m["scores"].update(final_std=-0.5), "scores.final_std = -0.5"),
        (lambda m: m["scores"].pop("best_std"), "missing key 'scores.best_std'"),
        (
            lambda m: m["params"]["evaluate"].update(ipc="ten"),
            "params.evaluate.ipc = 'ten': input should be a valid int",
        ),
        (lambda m: m["params"]["evaluate"].update(regime="mild"), "params.evaluate.regime = 'mild'"),
        (lambda m: m["params"].update(evaluate=[]), r"params.evaluate = \[\]"),
        (lambda m: m["params"].pop("dataset"), "missing key 'params.dataset'"),
        (lambda m: m.pop("steps"), "missing key 'steps'"),
        (lambda m: m.update(label_bytes=-1), "label_bytes = -1"),
    ],
)
def test_a_manifest_that_holds_what_is_not_allowed(store: Store, change: Callable[[Row], object], words: str) -> None:
    store("random", 40.0)
    path = store("edc", 50.0, change=change)
    with pytest.raises(EdcError, match=words) as caught:
        evaluations()
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(f"; run `edc evaluate --run {path.parent.name}` again")
    assert "\n" not in str(caught.value)


def test_a_manifest_of_before_variants_is_read_as_having_none(store: Store) -> None:
    store("edc", 50.0, change=lambda m: m["params"]["evaluate"].pop("variant"))
    assert only("table1")["final_mean"] == 50.0


def test_no_evaluation_at_all() -> None:
    with pytest.raises(EdcError, match="results/evaluate: no finished evaluation"):
        evaluations()


def test_the_same_cell_twice_is_refused(store: Store) -> None:
    store("edc", 50.0, run="a")
    store("edc", 50.0, run="b", seeds=[7])
    with pytest.raises(EdcError, match=r"^results/evaluate/b: the same cell as results/evaluate/a; delete the one"):
        evaluations()


@pytest.mark.parametrize("regime", ["static", "hard"])
def test_two_protocols_of_a_regime(store: Store, regime: str) -> None:
    standard = {"static": "static_soft", "hard": "hard_label"}[regime]
    store("edc", 50.0)
    store("edc", 30.0, protocol="a_mine", regime=regime)
    assert only("table1")[f"{regime}_mean"] == 30.0
    store("edc", 20.0, protocol="b_mine", regime=regime, run="z")
    with pytest.raises(
        EdcError, match=f"^results/evaluate/z: a second {regime}-label row for the same images"
    ) as caught:
        ran("table1")
    assert repr(standard) in str(caught.value)
    store("edc", 10.0, protocol=standard, regime=regime)
    assert only("table1")[f"{regime}_mean"] == 10.0


@pytest.mark.parametrize("name", ["seconds", "device", "commit"])
def test_a_record_without_what_the_tables_tell_is_refused(store: Store, name: str) -> None:
    path = store("edc").with_name("run.json")
    made = {"seconds": 1.5, "device": "CPU", "commit": "c"}
    del made[name]
    path.write_text(json.dumps(made))
    with pytest.raises(EdcError) as caught:
        tables.costs()
    assert str(caught.value) == f"{path}: damaged, no {name!r} in it; run `edc evaluate --run {path.parent.name}` again"
