"""The tables of evaluations from hand-made rows: every column, empty cells, which of the paper's figures stand beside
which cell. Numbers are computed by hand."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support import REPOSITORY
from support.record import Row, evaluation, every_table, frame, only, ran, text

from edc.errors import EdcError
from edc.reporting.evaluations import evaluations
from edc.reporting.pages import OTHERS, page

FULL: dict[str, Any] = {"ipc": 0, "regime": "hard", "protocol": "real_data"}
HARD: dict[str, Any] = {"regime": "hard", "protocol": "hard_label"}


def paper_only(name: str, *runs: list[Row]) -> pd.DataFrame:
    """Lines of a table where only the paper has a figure."""
    table = every_table(*runs)[name]
    return table[table["seeds"].isna()]


# Table 1


def test_every_column_of_table1() -> None:
    runs = [
        evaluation("edc", 77.867, 78.123, 78.379, dataset="cifar10"),
        evaluation("edc", 60.1, 60.5, 60.9, dataset="cifar10", protocol="static_soft", regime="static"),
        evaluation("edc", 55.25, dataset="cifar10", **HARD),
        evaluation("random", 69.505, 70.505, dataset="cifar10"),
    ]
    edc, random = ran("table1", *runs)
    assert edc == {
        "dataset": "cifar10", "recipe": "edc", "protocol": "edc", "ipc": 10, "student": "resnet18", "seeds": 3,
        "final_mean": 78.123, "final_std": 0.256, "best_mean": 79.123, "best_std": 0.256, "static_mean": 60.5,
        "static_std": 0.4, "hard_mean": 55.25, "reported": 79.1, "reported_std": 0.3, "difference": -0.977,
        "image_bytes": 6400, "label_bytes": 240000, "steps": 480, "baseline_mean": 70.005, "baseline_std": 0.7071,
        "improvement": 8.118, "improvement_low": 3.9498, "improvement_high": 12.2862, "clear": "yes",
    }  # fmt: skip
    assert (random["seeds"], random["final_mean"], random["baseline_mean"]) == (2, 70.005, 70.005)
    assert not {"static_mean", "hard_mean", "reported", "clear"} & set(random)
    assert tuple(every_table(*runs)["table1"]) == (
        "dataset", "recipe", "protocol", "ipc", "student", "seeds", "final_mean", "final_std", "best_mean", "best_std",
        "static_mean", "static_std", "hard_mean", "hard_std", "reported", "reported_std", "reported_source",
        "difference", "image_bytes", "label_bytes", "steps", "trained", "baseline_mean", "baseline_std", "improvement",
        "improvement_low", "improvement_high", "clear",
    )  # fmt: skip


def test_the_baseline_has_the_same_training() -> None:
    runs = [evaluation("rded", a, protocol=p) for p, a in (("edc", 50), ("rded", 45), ("sre2l", 30))]
    runs += [evaluation("random", a, protocol=p) for p, a in (("edc", 40), ("rded", 48))]
    runs += [evaluation("rded", 20, protocol="rded", ipc=1)]
    runs += [evaluation("edc_code", 50, protocol="edc_code", training="edc"), evaluation("config_d", 9, training="")]
    runs += [evaluation("random", 8, protocol="config_c", training="")]
    lines = {(line["recipe"], line["protocol"], line["ipc"]): line for line in ran("table1", *runs)}
    compared = {key: line["improvement"] for key, line in lines.items() if "improvement" in line and key[0] != "random"}
    assert compared == {("rded", "edc", 10): 10, ("rded", "rded", 10): -3, ("edc_code", "edc_code", 10): 10}


@pytest.mark.parametrize(
    ("ours", "theirs", "clear", "shown"),
    [
        ((49, 50, 51), (39, 40, 41), "yes", "| +10.0 |"),
        ((49, 50, 51), (48, 49, 50), "no", "| (+1.0) |"),
        ((50, 50, 50), (46, 46, 46), "no", "| (+4.0) |"),  # 40 of 1,000 test images
        ((39, 40, 41), (49, 50, 51), "yes", "| -10.0 |"),
        ((50,), (40,), "no", "| (+10.0) |"),
        ((49, 50, 51), (40,), "no", "| (+10.0) |"),
        ((61.32,), (57.47333333,), "no", "| 57.5 | (+3.8) |"),  # 3.8467, which is 3.9 only by way of 3.85
    ],
)
def test_an_improvement_within_its_interval_is_no_result(
    ours: tuple[float, ...], theirs: tuple[float, ...], clear: str, shown: str
) -> None:
    runs = evaluation("edc", *ours), evaluation("random", *theirs)
    assert ran("table1", *runs)[0]["clear"] == clear
    assert shown in text("table1", *runs)


def test_images_without_a_soft_protocol_have_a_line_of_their_own() -> None:
    line = only("table1", evaluation("edc", 40, protocol="static_soft", regime="static"), evaluation("edc", 30, **HARD))
    assert (line["static_mean"], line["hard_mean"]) == (40, 30)
    soft = {"final_mean", "final_std", "best_mean", "best_std", "improvement"}
    assert not soft & set(line)
    run = evaluation("full", 96, 97, **FULL)
    line = only("table1", run)
    assert (line["recipe"], line["ipc"], line["hard_mean"]) == ("full", 0, 96.5)
    assert not soft & set(line)
    assert "| full | real_data | all | resnet18 | 2 |  |  |  | 96.5 ± 0.7 |" in text("table1", run)


def test_variants_and_the_val_split_are_not_in_table1() -> None:
    runs = [evaluation("edc", 50), evaluation("edc", 52, split="val", run="v")]
    runs += [evaluation(recipe, a, variant="alpha=0.1") for recipe, a in (("edc", 51), ("random", 40))]
    assert "improvement" not in only("table1", *runs)
    lines = [(line["recipe"], line["variant"], line["final_mean"]) for line in ran("variants", *runs)]
    assert lines == [("edc", "alpha=0.1", 51), ("random", "alpha=0.1", 40)]


def test_cells_of_the_paper_that_did_not_run_stand_without_accuracies() -> None:
    run = evaluation("edc", 79.0, dataset="cifar10")
    rows = paper_only("table1", run)
    assert len(rows) == 103 + 90 - 1
    row = rows.query("recipe == 'gvbsm' and dataset == 'cifar100' and ipc == 1").iloc[0]
    assert {name: value for name, value in row.items() if not (pd.isna(value) or value == "")} == {
        "dataset": "cifar100", "recipe": "gvbsm", "ipc": 1, "student": "resnet18", "reported": 25.9,
        "reported_std": 0.5,
    }  # fmt: skip
    written = text("table1", run)
    block = written[written.index("## Not run here") :]
    assert "; **edc**[^1][^2] mobilenet_v2 20.2 ± 0.4, resnet101 26.1 ± 0.2, resnet18 32.6" in block
    assert block.count("\n- ") == 17


@pytest.mark.parametrize("regime", ["static", "hard"])
def test_two_protocols_of_a_regime(regime: str) -> None:
    standard = {"static": "static_soft", "hard": "hard_label"}[regime]
    runs = [evaluation("edc", 50), evaluation("edc", 30, protocol="a_mine", regime=regime)]
    assert only("table1", *runs)[f"{regime}_mean"] == 30
    runs += [evaluation("edc", 20, protocol="b_mine", regime=regime, run="z")]
    with pytest.raises(EdcError, match=f"run 'z' is a second evaluation .* {regime} labels .* {standard!r}$"):
        every_table(*runs)
    assert only("table1", *runs, evaluation("edc", 10, protocol=standard, regime=regime))[f"{regime}_mean"] == 10


# Which figures are the paper's


@pytest.mark.parametrize(
    ("values", "reported"),
    [
        ({}, 79.1),
        ({"recipe": "edc_code", "protocol": "edc_code"}, 79.1),
        ({"recipe": "sre2l", "protocol": "sre2l"}, 27.2),
        ({"student": "torchvision:resnet50"}, 76.0),
        ({"student": "mobilenet_v2_half"}, 42.0),
        ({"ipc": 50}, 87.0),
        ({"dataset": "tiny_imagenet"}, 51.2),
        ({"dataset": "imagenet10"}, 63.4),
        ({"own_protocol": "rded", "protocol": "rded"}, 79.1),
        ({"recipe": "sre2l", "protocol": "edc"}, None),
        ({"protocol": "rded"}, None),
        ({"changed": True}, None),
        ({"recipe": "edc_code"}, None),
        ({"recipe": "random"}, None),
        ({"recipe": "config_g", "protocol": "config_g"}, None),
        ({"student": "convnet_d2"}, None),
        ({"ipc": 20}, None),
        ({"dataset": "mine", "family": "cifar10"}, None),
        ({"subset": True}, None),
        ({"dataset": "digits"}, None),
    ],
)
def test_the_figure_beside_a_cell_of_table1(values: Row, reported: float | None) -> None:
    recipe = values.pop("recipe", "edc")
    line = only("table1", evaluation(recipe, 60.0, **({"dataset": "cifar10"} | values)))
    assert line.get("reported") == reported
    assert line.get("difference") == (None if reported is None else round(60.0 - reported, 2))


def test_a_dataset_that_inherits_from_the_papers_has_its_figures_and_footnotes(place: Path) -> None:
    """The same images with other observers; a file that is gone is no relation."""
    run = evaluation("edc", 60.0, dataset="cifar10_light", ipc=1)
    assert only("table1", run).get("reported") is None
    (place / "workflow/datasets").symlink_to(REPOSITORY / "workflow/datasets")
    assert (only("table1", run)["reported"], only("table1", run)["difference"]) == (32.6, 27.4)
    assert "The paper's batch is 25, the published script's 10." in text("table1", run)


# The other tables of the paper


def test_table2_has_the_papers_students_on_any_dataset() -> None:
    runs = [
        evaluation("edc", 40.0, dataset="imagenet1k", student="timm:deit_tiny_patch16_224.fb_in1k", ipc=30),
        evaluation("rded", 20.0, dataset="imagenet1k", student="torchvision:swin_t", ipc=20, protocol="rded"),
        evaluation("edc", 70.0, dataset="cifar100", student="resnet50", ipc=50),
        evaluation("edc", 70.0, dataset="cifar100", student="resnet50", ipc=1),
        evaluation("edc", 70.0, dataset="cifar100", student="convnet_d2", ipc=50),
        evaluation("edc", 71.0, dataset="cifar100", student="resnet101", ipc=50, **HARD),
        evaluation("edc", 72.0, dataset="cifar100", student="resnet101", ipc=40, protocol="rded"),
    ]
    keys = ("dataset", "ipc", "reported_imagenet1k", "reported", "difference")
    assert [tuple(line.get(key) for key in keys) for line in ran("table2", *runs)] == [
        ("cifar100", 40, None, None, None), ("cifar100", 50, 64.3, None, None),
        ("imagenet1k", 20, 44.6, 44.6, -24.6), ("imagenet1k", 30, 46.5, 46.5, -6.5),
    ]  # fmt: skip
    assert len(paper_only("table2", *runs)) == 88


def test_table3_by_variant_and_by_cross() -> None:
    cell: Row = {"dataset": "imagenet1k", "student": "torchvision:resnet50"}
    runs = [
        evaluation("config_c", 45.0, **cell, variant="zeta=2.0", protocol="config_c"),
        evaluation("config_c", 50.0, **cell, protocol="config_e"),
        evaluation("rded", 30.0, **cell, protocol="config_a"),
        evaluation("rded", 48.0, **cell, protocol="rded"),
        evaluation("rded", 48.0, **cell, protocol="edc"),  # no line of Table 3
        evaluation("rded", 60.0, **cell, protocol="rded", ipc=50),  # Table 3 has IPC 10
    ]
    lines = {(line["recipe"], line["protocol"]): line for line in ran("table3", *runs)}
    assert {key: (line["reported"], line["difference"]) for key, line in lines.items()} == {
        ("config_c", "config_c"): (45.8, -0.8),
        ("config_c", "config_e"): (51.6, -1.6),
        ("rded", "config_a"): (32.7, -2.7),
        ("rded", "rded"): (48.4, -0.4),
    }
    assert lines["config_c", "config_c"]["variant"] == "zeta=2.0"
    assert len(paper_only("table3", *runs)) == 24 - 4


def test_an_ablation_elsewhere_shows_the_papers_figure_but_no_difference() -> None:
    variant = "loss=fr;weight=2.5;zeta=1.5;beta=0.999;tau=4"
    students = (("convnet_d2", "config_c"), ("resnet50", "config_c"), ("resnet18", "edc"))
    runs = [evaluation("config_d", 90.0, student=s, variant=variant, protocol=p) for s, p in students]
    lines = {line["student"]: line for line in ran("table4", *runs)}
    assert lines["convnet_d2"] == {
        "dataset": "digits", "recipe": "config_d", "variant": variant, "protocol": "config_c", "ipc": 10,
        "student": "convnet_d2", "seeds": 1, "final_mean": 90.0, "best_mean": 91.0, "reported_imagenet1k": 31.7,
        "reported_student": "resnet18",
    }  # fmt: skip
    assert (lines["resnet50"]["reported_imagenet1k"], lines["resnet50"]["reported_student"]) == (37.0, "resnet50")
    assert "reported" not in lines["resnet50"]
    assert "reported_imagenet1k" not in lines["resnet18"], "another protocol is another measurement"
    assert "31.7 (resnet18)" in text("table4", *runs)
    assert ran("variants", *runs) == []


@pytest.mark.parametrize(
    ("config", "table", "accuracy"),
    [("b", 3, 34.4), ("c", 3, 38.7), ("c", 4, 38.7), ("d", 4, 39.5), ("e", 5, 46.2), ("f", 5, 48.1), ("g", 5, 48.6)],
)
def test_configs_as_they_are_stand_beside_the_line_that_is_the_same(config: str, table: int, accuracy: float) -> None:
    run = evaluation(f"config_{config}", 50.0, dataset="imagenet1k", protocol="own", own_protocol="own")
    assert only(f"table{table}", run)["reported"] == accuracy


def test_table5_by_variant() -> None:
    variant = "alpha=0.25;zeta=2.0;weak_aug=no;ema=no"
    cell: Row = {"dataset": "imagenet1k", "student": "resnet101", "protocol": "config_e"}
    run = evaluation("config_f", 50.0, **cell, variant=variant)
    line = only("table5", run)
    assert (line["reported"], line["difference"], line["reported_imagenet1k"]) == (50.6, -0.6, 50.6)
    assert len(paper_only("table5", run)) == 34


def test_table22_with_the_whole_dataset() -> None:
    runs = [evaluation("edc", 27.0, dataset="imagenet21k"), evaluation("random", 20.0, dataset="imagenet21k")]
    runs += [evaluation("edc", 21.0, dataset="imagenet21k", **HARD), evaluation("edc", 27.0, dataset="imagenet1k")]
    runs += [evaluation("full", 38.0, dataset="imagenet21k", **FULL)]
    keys = ("recipe", "ipc", "reported", "difference")
    assert [tuple(line.get(key) for key in keys) for line in ran("table22", *runs)] == [
        ("full", 0, 38.5, -0.5), ("edc", 10, 26.8, 0.2), ("random", 10, None, None),
    ]  # fmt: skip
    assert sorted(paper_only("table22", *runs)["recipe"]) == ["cda", "rded", "sre2l"]
    assert "reported_imagenet1k" not in every_table(*runs)["table22"]


# Crosses


def test_cross_has_what_at_least_two_recipes_and_protocols_share() -> None:
    runs = [evaluation("edc"), evaluation("edc", 40, **HARD), evaluation("random", 30)]
    runs += [evaluation("edc", 1, student=student) for student in ("one_recipe", "one_protocol")]
    runs += [evaluation("edc", 1, student="one_recipe", protocol="rded"), evaluation("edc", 1, variant="v")]
    runs += [evaluation("random", 1, student="one_protocol"), evaluation("full", 99, **FULL)]
    keys = ("ipc", "student", "recipe", "protocol", "regime", "final_mean")
    assert [tuple(line[key] for key in keys) for line in ran("cross", *runs)] == [
        (10, "resnet18", "edc", "edc", "soft", 50),
        (10, "resnet18", "edc", "hard_label", "hard", 40),
        (10, "resnet18", "random", "edc", "soft", 30),
    ]
    written = text("cross", *runs)
    assert "| recipe | edc | hard_label |\n| --- | --- | --- |\n| edc | **50.0 ± 1.0** | 40.0 |" in written
    assert "| random | 30.0 |  |" in written


# Pages


def test_sets_of_the_plan_come_first_and_those_of_other_datasets_are_named_so() -> None:
    runs = [evaluation("edc", dataset=name) for name in ("a", "b")]
    text = page("table1", every_table(*runs)["table1"], evaluations(frame(*runs)), ["b"])
    assert re.findall(rf"^(?:## [ab]|{OTHERS})", text, re.MULTILINE) == ["## b", OTHERS, "## a"]
