"""The figures the paper reports (arXiv 2404.13733), and under which names our runs find theirs."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from pydantic import Field

from edc.errors import EdcError, unknown_name
from edc.config.validation import Model, validate

REPORTED = Path("workflow/paper/reported.csv")

TABLES = (
    "table1", "table2", "table3", "table4", "table5", "table22", "variants", "cross", "scores", "continual", "slimming",
)  # fmt: skip
"""The CSV files in ``results/tables`` that hold no times and are therefore compared by the runners."""

FIGURES = ("figure4_continual", "figure4_slimming")
"""The PNG files there: both applications, all recipes."""

DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny_imagenet": "Tiny-ImageNet",
    "imagenet10": "ImageNet-10",
    "imagenet1k": "ImageNet-1k",
    "imagenet21k": "ImageNet-21k",
}
"""Our dataset families -> the paper's names."""

METHODS = {"edc_code": "edc"}
"""Recipes that are another reading of a method of the paper. Its figures were made with the official code, its text
describes ``edc``: both readings are compared with the same figure."""

LADDER = {
    "config_b": ("config_c", "zeta=1.0"),
    "config_c": ("config_c", "zeta=1.5"),
    "config_d": ("config_d", "loss=fr_logit;weight=0.25;zeta=1.5;beta=0.99;tau=4"),
    "config_e": ("config_f", "alpha=0.00;zeta=2.0;weak_aug=no;ema=no"),
    "config_f": ("config_f", "alpha=0.50;zeta=2.0;weak_aug=no;ema=no"),
    "config_g": ("config_f", "alpha=0.50;zeta=2.0;weak_aug=yes;ema=yes"),
}
"""CONFIG B to G as they are -> the line of an ablation that is the same configuration, found by the paper's numbers:
34.4, 38.7, 39.5, 46.2, 48.1 and 48.6 on ImageNet-1k, IPC 10, ResNet-18."""

CROSSED = {
    ("config_c", "config_e"): ("gvbsm", "real init + smoothing LR + smaller batch"),
    ("rded", "config_a"): ("rded", "baseline"),
    ("rded", "rded"): ("rded", "smoothing LR + smaller batch"),
}
"""Recipe and protocol -> the line on the right half of Table 3 that crosses them. That RDED's line with both choices is
its own protocol (half a cosine, batch 100) is inferred: 42.3 there, 42.0 in Table 1."""

RECIPES = ("cda", "config_c", "config_d", "config_f", "edc", "full", "gvbsm", "rded", "sre2l")
"""Our recipes that the paper has figures of."""

REMARK = "right half of the table"  # how the transcription's remarks on Table 3 begin
REPEATED = ("gvbsm + real init", "gvbsm + real init + smoothing LR")  # there again: config_c with zeta 1.0 and 2.0

Key = tuple[int, str, int, str, str, str]


class Figure(Model):
    """One accuracy of the paper, in percent, under our names of recipe and variant."""

    table: int
    dataset: str = Field(description="the paper's name")
    ipc: int = Field(ge=0, description="0: the whole training set")
    student: str
    recipe: str
    variant: str
    accuracy: float = Field(ge=0, le=100)
    std: float | None = Field(default=None, ge=0)

    @property
    def family(self) -> str:
        """Our name of the dataset."""
        return next(family for family, name in DATASETS.items() if name == self.dataset)


class Figures:
    """All figures of the paper, to be asked by table and cell.

    Args:
        figures: in the paper's order.
    """

    def __init__(self, figures: list[Figure]) -> None:
        self.all = figures
        self._found: dict[Key, Figure] = {
            (f.table, f.dataset, f.ipc, f.student, f.recipe, f.variant): f for f in figures
        }

    def of(self, table: int) -> list[Figure]:
        """The figures of one table."""
        return [figure for figure in self.all if figure.table == table]

    def find(
        self, table: int, dataset: str | None, ipc: int, student: str | None, recipe: str, variant: str = ""
    ) -> Figure | None:
        """The figure of a cell, or None where the paper reports none.

        Args:
            table: its number in the paper.
            dataset, student: the paper's names; None where it has no such one.
            ipc: images per class.
            recipe, variant: ours.
        """
        if dataset is None or student is None:
            return None
        return self._found.get((table, dataset, ipc, student, METHODS.get(recipe, recipe), variant))


def read_figures() -> Figures:
    """Read the paper's figures.

    Raises:
        EdcError: the file is missing, or a line of it holds a value that is not allowed or repeats a cell.
    """
    try:
        text = REPORTED.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EdcError(f"{REPORTED}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    figures: dict[tuple[Any, ...], Figure] = {}
    reader = csv.DictReader(io.StringIO(text))
    for values in reader:
        if _remarked(values) and values["method"] in REPEATED:
            continue
        where = f"{REPORTED}: line {reader.line_num}"
        figure: Figure = validate(Figure, _ours(values), where)
        if figure.dataset not in DATASETS.values():
            raise EdcError(f"{where}: dataset = {figure.dataset!r}: expected one of: {', '.join(DATASETS.values())}")
        if figure.recipe not in RECIPES:
            raise unknown_name("recipe", figure.recipe, RECIPES, where)
        key = (figure.table, figure.dataset, figure.ipc, figure.student, figure.recipe, figure.variant)
        if key in figures:
            raise EdcError(f"{where}: a second figure for {', '.join(str(part) for part in key if part != '')}")
        figures[key] = figure
    return Figures(list(figures.values()))


def _remarked(values: dict[str, Any]) -> bool:
    """Whether a line is of the right half of Table 3."""
    return str(values.get("variant")).startswith(REMARK)


def _ours(values: dict[str, Any]) -> dict[str, Any]:
    """A line of the file under our names."""
    line = {name: value for name, value in values.items() if name != "method"}
    line["recipe"] = values.get("method")
    line["std"] = values.get("std") or None
    if _remarked(values):
        recipe, _, added = str(values.get("method")).partition(" + ")
        line |= {"recipe": recipe, "variant": added or "baseline"}
    if values.get("method") == "full dataset":
        line |= {"recipe": "full", "ipc": 0}
    return line
