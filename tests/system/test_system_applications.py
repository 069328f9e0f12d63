"""Both applications run by a runner on a tiny study: tables, plots, nothing left to do, kills, and what is refused."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkout import Checkout
from samples import STUDENT, STUDY

APPLIED: dict[str, Any] = {"ipc": [1], "protocols": ["edc"], "seeds": [0, 1]}
GRIDS = [{"recipes": ["random"], "protocols": ["edc"]}]
OWN = {"epochs": 4, "batch": 5, "optimiser": {"name": "adamw", "lr": 0.003}}
TWO: dict[str, Any] = STUDY | {
    "variants": {},
    "grids": GRIDS,
    "continual": [
        APPLIED | {"recipes": ["random", "full"], "students": ["convnet_w32"], "steps": 3, "orders": [0, 2]},
    ],
    "slimming": [
        APPLIED | {"recipes": ["random"], "students": ["vgg11_bn"], "sparsity": 0.01, "ratios": [0.1, 0.2]}
        | {"finetune": 2},
    ],
    "overrides": {
        "protocols": {
            "edc": {"families": {"digits": {"student": STUDENT | OWN}}},
        },
    },
}  # fmt: skip
CONTINUAL, CEILING = "tiny-random-ipc1-convnet_w32-edc", "tiny-full-all-convnet_w32-real_data"
SLIMMING = "tiny-random-ipc1-vgg11_bn-edc"


@pytest.fixture(scope="session")
def applied(once: Callable[..., Path], by_dvc: Checkout) -> Checkout:
    """The tiny study with both applications after ``dvc repro``, its observers taken over; only to be read."""

    def make(folder: Path) -> None:
        made = by_dvc.copy(folder / "project")
        made.write("workflow/studies/applied.yaml", TWO)
        made.ok("edc", "plan", "applied")
        made.ok("dvc", "repro")

    return Checkout(once("applied", make) / "project")


def rows(checkout: Checkout, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(checkout.path(f"results/tables/{name}.csv").open()))


@pytest.mark.slow
@pytest.mark.early(7)
def test_a_runner_makes_both_tables_and_plots(applied: Checkout) -> None:
    steps = [(row["recipe"], row["ipc"], row["step"], row["classes"]) for row in rows(applied, "continual")]
    assert steps == [
        ("full", "0", "1", "4"), ("full", "0", "2", "7"), ("full", "0", "3", "10"),
        ("random", "1", "1", "4"), ("random", "1", "2", "7"), ("random", "1", "3", "10"),
    ]  # fmt: skip
    assert {row["orders"] + row["seeds"] for row in rows(applied, "continual")} == {"22"}
    ratios = [(row["ratio"], row["channels"]) for row in rows(applied, "slimming")]
    assert ratios == [("0.0", "2752"), ("0.1", "2477"), ("0.2", "2202")]
    sizes = [int(row["parameters"]) for row in rows(applied, "slimming")]
    assert sizes == sorted(sizes, reverse=True)
    for name in ("figure4_continual", "figure4_slimming"):
        assert applied.path(f"results/tables/{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_both_runners_have_nothing_left_to_do(applied: Checkout, tmp_path: Path) -> None:
    project = applied.copy(tmp_path / "project")
    assert project.stale() == {"dvc": set(), "snakemake": set()}
    stages = project.stages()
    outs = stages["tables-applied"]["outs"]
    assert {"results/tables/continual.csv", "results/tables/figure4_slimming.png"} <= set(outs)
    assert not any("relabel" in path for path in stages[f"continual-{CEILING}"]["deps"] if path.startswith("results"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["continual", "slimming"])
def test_a_second_run_that_is_killed_goes_on_and_ends_the_same(applied: Checkout, tmp_path: Path, stage: str) -> None:
    key = {"continual": CONTINUAL, "slimming": SLIMMING}[stage]
    project = applied.copy(tmp_path / "project")
    shutil.rmtree(project.path("results", stage, key))
    path = project.path(".edc/checkpoints", stage, f"{key}.pt")
    process = project.start("edc", stage, "--run", key, EDC_CHECKPOINT_SECONDS="0")
    saved: set[int] = set()
    while len(saved) < 5 and process.poll() is None:
        if path.exists():
            saved.add(path.stat().st_mtime_ns)
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -9, "it ended before it could be killed"
    assert "manifest.json" not in project.outputs(stage, key)
    said = project.run("edc", stage, "--run", key)
    assert (said.returncode, said.stderr) == (0, f"edc: {stage} {key} goes on from its checkpoint\n")
    assert project.outputs(stage, key) == applied.outputs(stage, key)


@pytest.mark.slow
def test_a_ratio_that_would_remove_a_layer(applied: Checkout, tmp_path: Path) -> None:
    project = applied.copy(tmp_path / "project")
    project.edit("params.yaml", {f"slimming.{SLIMMING}.ratios": [0.1, 0.999]})
    line = project.refused("edc", "slimming", "--run", SLIMMING)
    assert f"slimming.{SLIMMING}.ratios: ratio 0.999 would remove every channel of convolution " in line


def test_more_steps_than_classes_are_refused(project: Checkout) -> None:
    study = TWO | {"continual": [{**TWO["continual"][0], "steps": 11}]}
    project.write("workflow/studies/applied.yaml", study)
    assert "steps = 11: expected at most 10, the number of classes" in project.refused("edc", "plan", "applied")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ratios": [1.0]}, "slimming.0.ratios.0 = 1.0: input should be less than 1"),
        ({"recipes": ["edcc"]}, "unknown recipe 'edcc'; did you mean 'edc'?"),
        ({"students": ["resnet18"]}, "unknown prunable network 'resnet18'"),
    ],
    ids=["ratio", "recipe", "student"],
)
def test_what_a_study_may_not_say_of_slimming(project: Checkout, change: dict[str, Any], words: str) -> None:
    project.write("workflow/studies/applied.yaml", TWO | {"slimming": [{**TWO["slimming"][0], **change}]})
    assert words in project.refused("edc", "plan", "applied")
