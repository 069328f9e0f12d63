"""Tables, pages and pictures of both applications from hand-made rows, and pictures of the analysis."""

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from support.record import Row, evaluation, every_table, frame, ran, text

from edc.condense.mixtures import Matched
from edc.errors import EdcError
from edc.reporting import figures, panels
from edc.reporting.applications import applications, slimming

STEPS = ((4, 99.0), (7, 90.126), (10, 80.0))
RATIOS = ((0.0, 100, 1000, 5e6, 92.0, 92.0), (0.5, 50, 351, 1.5e6, 25.0, 75.0))


def application(stage: str, recipe: str = "edc", shift: float = 0.0, run: str = "", **values: Any) -> list[Row]:
    """One run with two seeds (and two orders); all accuracies are ``shift`` higher than the usual ones."""
    row: Row = {"student": "vgg11_bn", "stage": stage, "label_bytes": 128, "steps": None} | values
    (row,) = evaluation(recipe, 0.0, run=run or f"{stage}-{recipe}-{values}", **row)
    row |= {"best_accuracy": None}
    rows: list[Row] = []
    for seed in (0, 1):
        if stage == "continual":
            whole = {"average_accuracy": 89.7 + shift + seed, "forgetting": -1.25 - seed}
            for order in (0, 1):
                key = {"seed": seed, "order": order} | whole
                steps = enumerate(STEPS, 1)
                rows += [row | key | {"step": i, "classes": c, "accuracy": a + shift} for i, (c, a) in steps]
        else:
            row = {"sparsity": 0.01, "epochs": 80, "finetune": 40} | row
            for ratio, channels, parameters, macs, before, after in RATIOS:
                sizes = {"ratio": ratio, "channels": channels, "parameters": parameters - seed, "macs": macs}
                accuracies = {"accuracy_before": before + seed, "accuracy": after + shift + seed}
                rows.append(row | sizes | accuracies | {"seed": seed})
    return rows


def test_every_column_of_continual() -> None:
    runs = application("continual"), application("continual", "random", -5.0)
    edc, random = [line for line in ran("continual", *runs) if line["step"] == 2]
    assert edc == {
        "dataset": "digits", "recipe": "edc", "protocol": "edc", "ipc": 10, "student": "vgg11_bn", "regime": "soft",
        "orders": 2, "seeds": 2, "steps": 3, "step": 2, "classes": 7, "accuracy_mean": 90.126, "accuracy_std": 0.0,
        "average_mean": 90.2, "average_std": 0.5774, "forgetting_mean": -1.75, "forgetting_std": 0.5774,
        "image_bytes": 6400, "label_bytes": 128, "baseline_mean": 85.126, "improvement": 5.0,
        "improvement_low": 1.5523,
        "improvement_high": 8.4477, "clear": "yes",
    }  # fmt: skip
    assert (random["recipe"], random["improvement"]) == ("random", 0.0)
    assert [(line["recipe"], line["step"], line["classes"]) for line in ran("continual", *runs)] == [
        (recipe, step, classes) for recipe in ("edc", "random") for step, classes in ((1, 4), (2, 7), (3, 10))
    ]


def test_runs_are_compared_by_what_they_have_in_common() -> None:
    """By orders of the classes where there are several, by pretrained networks of a seed; else by means and spreads."""
    pretrained = {"pretrained": True, "test_images": 10**9}
    edc, random = (application("slimming", recipe, **pretrained) for recipe in ("edc", "random"))
    for row, gain in zip(edc, (1, 2, 3, 4), strict=True):  # two ratios of two seeds
        row["accuracy"] += gain
    made = [line for line in ran("slimming", edc, random) if line["recipe"] == "edc"]
    quantile = float(stats.t.ppf(0.975, 1))
    for line, (first, second) in zip(made, ((1, 3), (2, 4)), strict=True):
        half = quantile * statistics.stdev((first, second)) / 2**0.5
        assert line["improvement_high"] == pytest.approx((first + second) / 2 + half, abs=1e-3)
    shared = {"test_images": 10**9}
    edc, random = (application("continual", recipe, **shared) for recipe in ("edc", "random"))
    for row in [*edc, *random]:
        row["accuracy"] -= 50 * row["order"]  # one order is as hard for all
    assert all(abs(line["improvement_high"]) < 0.01 for line in ran("continual", edc, random))
    one = [[row for row in run if not row["order"]] for run in (edc, random)]
    for row in one[0]:
        row["accuracy"] -= 5 * row["seed"]
    line = ran("continual", *one)[0]
    assert line["improvement_low"] < 0 < line["improvement_high"]


def test_every_column_of_slimming() -> None:
    table = applications(frame(application("slimming", "random", 1.0), application("slimming")))["slimming"]
    assert table.to_csv(index=False).splitlines()[:3] == [
        "dataset,recipe,variant,protocol,ipc,student,regime,pretrained,seeds,sparsity,epochs,finetune,keep,ratio,channels,"
        "parameters,macs,before_mean,before_std,after_mean,after_std,image_bytes,label_bytes,baseline_mean,improvement,"
        "improvement_low,improvement_high,clear",
        "digits,edc,,edc,10,vgg11_bn,soft,no,2,0.01,80,40,0.0,0.0,100,1000,5000000,92.5,0.7071,92.5,0.7071,6400,128,"
        "93.5,-1.0,-4.7819,2.7819,no",
        "digits,edc,,edc,10,vgg11_bn,soft,no,2,0.01,80,40,0.0,0.5,50,350,1500000,25.5,0.7071,75.5,0.7071,6400,128,"
        "76.5,-1.0,-5.8229,3.8229,no",
    ]


def test_trials_on_held_out_images_are_a_table_of_their_own() -> None:
    tested, trial = application("slimming"), application("slimming", run="t", split="val", variant="lr=0.01")
    rows = frame(tested, trial)
    assert set(applications(rows)["slimming"]["variant"]) == {""}
    assert set(slimming(rows, "val")["variant"]) == {"lr=0.01"}


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("continual", {"protocol": "gvbsm"}),
        ("continual", {"student": "resnet18"}),
        ("continual", {"ipc": 50}),
        ("continual", {"dataset": "cifar10"}),
        ("slimming", {"sparsity": 0.02}),
        ("slimming", {"pretrained": True}),
        ("slimming", {"finetune": 10}),
    ],
)
def test_the_baseline_is_trained_in_the_same_way(stage: str, changes: Row) -> None:
    runs = application(stage), application(stage, "random", **changes)
    assert not any("baseline_mean" in line for line in ran(stage, *runs) if line["recipe"] == "edc")


@pytest.mark.parametrize("stage", ["continual", "slimming"])
def test_the_same_cell_twice_is_refused(stage: str) -> None:
    with pytest.raises(EdcError, match=r"^results/runs.csv: run 'b' is the same cell as 'a'"):
        applications(frame(application(stage, run="a"), application(stage, run="b")))


def fill() -> list[list[Row]]:
    """Runs of both applications: two methods, random images, another IPC and the whole dataset."""
    runs = [application("continual", "full", 0.9, ipc=0, regime="hard", protocol="real_data"), evaluation("edc")]
    for stage in ("continual", "slimming"):
        runs += [application(stage), application(stage, "random", -5.0), application(stage, "gvbsm", 0.5)]
        runs += [application(stage, "edc", -20.0, ipc=1)]
    return runs


def test_pages_of_the_applications() -> None:
    page = text("continual", *fill())
    assert "## digits, student vgg11_bn, steps 3" in page
    assert "| 4 classes | 7 classes | 10 classes | improvement |" in page
    row = "| edc | edc | 10 | 2 | 2 | 90.2 ± 0.6 | -1.8 ± 0.6 | 6.4 | 0.1 | 99.0 ± 0.0 | 90.1 ± 0.0 | 80.0 ± 0.0 |"
    assert f"{row} +5.0 |" in page
    assert "**90.7 ± 0.6** | -1.8 ± 0.6 | 6.4 | 0.1 | **99.5 ± 0.0** | **90.6 ± 0.0** | **80.5 ± 0.0** |" in page
    assert "| full | real_data | all | 2 | 2 | 91.1 ± 0.6 |" in page, "the ceiling is never the best"
    assert "| 79.0 ± 0.0 | 70.1 ± 0.0 | 60.0 ± 0.0 |  |" in page, "of one there is no best, and no baseline"
    page = text("slimming", *fill())
    row = (
        "| edc | edc | 10 | no | 2 | 0.01 | 80 | 40 | 0 | 0.5 | 50 | 350 | 1.50 | 25.5 ± 0.7 | 75.5 ± 0.7 | 6.4 | 0.1 |"
    )
    assert f"{row} 70.5 | +5.0 |" in page
    assert "**76.0 ± 0.7**" in page
    assert "EDC 25.0 at IPC 10" in page


def test_pictures_are_the_same_bytes_whatever_the_order_of_the_runs(tmp_path: Path) -> None:
    for name, runs in (("a", fill()), ("b", fill()[::-1])):
        made = every_table(*runs)
        figures.draw_applications(tmp_path / name, made["continual"], made["slimming"])
    for name in ("continual.png", "slimming.png"):
        first, second = ((tmp_path / folder / name).read_bytes() for folder in "ab")
        assert first == second
        assert first.startswith(b"\x89PNG")


def test_what_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(figures, "save_figure", lambda path, figure: drawn.setdefault(path.stem, figure))
    made = applications(frame(*fill(), application("slimming", dataset="cifar10")))
    figures.draw_applications(tmp_path, made["continual"], made["slimming"])
    (panel,) = drawn["continual"].axes
    curves = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in panel.get_lines()}
    assert set(curves) == {"edc, ipc 1", "edc, ipc 10", "gvbsm, ipc 10", "random, ipc 10", "full, ipc 0"}
    assert curves["edc, ipc 10"] == ([4, 7, 10], [99.0, 90.126, 80.0])
    both = drawn["slimming"].axes
    assert [panel.get_title() for panel in both] == ["cifar10\nvgg11_bn", "digits\nvgg11_bn"]
    colours = [{line.get_label().split(",")[0]: line.get_color() for line in panel.get_lines()} for panel in both]
    assert colours[0]["edc"] == colours[1]["edc"], "a recipe has one colour in all panels"
    figures.draw_applications(tmp_path, made["continual"][:0], made["slimming"][:0])


def test_pictures_of_stages(tmp_path: Path) -> None:
    """Every picture is a PNG whose bytes depend on the numbers alone."""
    original, condensed = torch.randn(2, 30, 2), {1.0: torch.randn(2, 6, 2)}
    sheet = {"none": {0: torch.zeros(2, 1, 8, 8, dtype=torch.uint8), 5: torch.ones(2, 1, 8, 8, dtype=torch.uint8)}}

    def draw(folder: Path) -> dict[str, bytes]:
        folder.mkdir()
        panels.matching_panels(folder / "d.png", Matched(original, condensed))
        panels.iterate_sheet(folder / "e.png", sheet, torch.tensor([0, 1]), ["0", "1"])
        figures.lines(folder / "f.png", {"one": [(1, 2.0, None), (2, 3.0, None)]}, "x", "y")
        figures.learning_curves(folder / "g.png", [[0, 0, 0.1, 1.0, None], [0, 1, 0.1, 0.5, 90.0]], "title")
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = draw(tmp_path / "first")
    assert len(first) == 4
    assert all(picture.startswith(b"\x89PNG") for picture in first.values())
    assert draw(tmp_path / "second") == first
