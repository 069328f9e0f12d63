"""Published figures, the paper's (arXiv 2404.13733) and other methods', by our names of dataset and recipe; remarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from edc.config.files import root
from edc.config.validation import Model, read_yaml, validate
from edc.errors import EdcError
from edc.nets.titles import paper_name
from edc.reporting.record import COUNT, INTEGER, NUMBER, PERCENT, TEXT, Columns, read_csv

REPORTED = Path("workflow/paper/reported.csv")
REMARKS = Path("workflow/paper/remarks.yaml")
DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny_imagenet": "Tiny-ImageNet",
    "imagenet10": "ImageNet-10",
    "imagenet1k": "ImageNet-1k",
    "imagenet21k": "ImageNet-21k",
}
"""Our datasets -> the paper's names."""
RECIPES = (
    "cda", "cim", "config_c", "config_d", "config_f", "cvdd", "delt", "dwa", "edc", "fadrm", "fadrm_plus", "full",
    "gvbsm", "lpld_40x", "lpqld_k10", "lpqld_k50", "lpqld_k100", "rded", "rded_gift", "sre2l", "sre2lpp",
)  # fmt: skip
"""What there are published figures of: our recipes, and methods that are none here."""
METHODS = {"edc_code": "edc"}
"""Recipes that are another reading of a method of the paper: its figures were made with the official code, its text
describes ``edc``; both readings are compared with the same figure."""
TRAINED = {("rded", "gift"): "rded_gift"}
"""Recipe and protocol -> the method of a figure that crosses them."""
LADDER = {
    "config_b": ("config_c", "zeta=1.0"),
    "config_c": ("config_c", "zeta=1.5"),
    "config_d": ("config_d", "loss=fr_logit;weight=0.25;zeta=1.5;beta=0.99;tau=4"),
    "config_e": ("config_f", "alpha=0.00;zeta=2.0;weak_aug=no;ema=no"),
    "config_f": ("config_f", "alpha=0.50;zeta=2.0;weak_aug=no;ema=no"),
    "config_g": ("config_f", "alpha=0.50;zeta=2.0;weak_aug=yes;ema=yes"),
}
"""CONFIG B to G as they are -> the line of an ablation with the same configuration, matched by the paper's numbers:
34.4, 38.7, 39.5, 46.2, 48.1 and 48.6 on ImageNet-1k, IPC 10, ResNet-18."""
CROSSED = {
    ("config_c", "config_e"): ("gvbsm", "real init + smoothing LR + smaller batch"),
    ("rded", "config_a"): ("rded", "baseline"),
    ("rded", "rded"): ("rded", "smoothing LR + smaller batch"),
}
"""Recipe and protocol -> the line on the right half of Table 3 that crosses them. That RDED's line with both choices is
its own protocol (half a cosine, batch 100) is inferred: 42.3 there, 42.0 in Table 1."""
REPEATED = ("gvbsm + real init", "gvbsm + real init + smoothing LR")
"""Lines of that half that are on the left half too: config_c with zeta 1.0 and 2.0."""

KEY = ["dataset", "ipc", "student", "recipe", "variant"]
COLUMNS: Columns = {
    "table": (INTEGER, COUNT), "dataset": (TEXT, tuple(DATASETS.values())), "ipc": (INTEGER, COUNT),
    "student": (TEXT, None), "method": (TEXT, None), "accuracy": (NUMBER, PERCENT), "std": (NUMBER, COUNT),
    "variant": (TEXT, None), "source": (TEXT, None),
}  # fmt: skip


def read_reported() -> pd.DataFrame:
    """Published figures, the paper's first, accuracy and std in percent.

    Columns: table, ``KEY``, accuracy, std and source, which is empty for the paper's own; the others stand in our
    Table 1, whatever table they are from.

    Raises:
        EdcError: the file is missing, or a line of it holds a value that is not allowed or repeats a cell.
    """
    if not REPORTED.exists():
        raise EdcError(f"{REPORTED}: no such file; restore it with `git checkout {REPORTED}`")
    frame = read_csv(REPORTED, COLUMNS, f"restore it with `git checkout {REPORTED}`")
    right_half = frame["variant"].str.startswith("right half of the table")
    frame = frame[~(right_half & frame["method"].isin(REPEATED))]
    full = frame["method"] == "full dataset"
    method = frame["method"].mask(full, "full").str.split(" + ", n=1, regex=False)
    added = method.str[1].fillna("baseline")
    frame = frame.assign(recipe=method.str[0], variant=frame["variant"].where(~right_half, added))
    frame["ipc"] = frame["ipc"].mask(full, 0)
    frame["dataset"] = frame["dataset"].map({title: name for name, title in DATASETS.items()})
    wrong = {
        f"method: expected one of: {', '.join(RECIPES)}": ~frame["recipe"].isin(RECIPES),
        "accuracy: expected a number": frame["accuracy"].isna(),
        "the same cell as a line before": frame.duplicated(["table", *KEY]),
    }
    for problem, lines in wrong.items():
        if lines.any():
            raise EdcError(f"{REPORTED}: line {lines[lines].index[0] + 2}: {problem}")
    return frame.drop(columns="method").reset_index(drop=True)


class Remark(Model):
    """What the sources contradict about some figures of the paper; a key that is left out matches any value."""

    text: str
    tables: list[str]
    recipe: str
    dataset: str
    ipc: int | None = None
    student: str | None = None
    variant: list[str] | None = None


class _Remarks(Model):
    remarks: list[Remark]


class Footnotes:
    """Remarks on the figures of one table's page, numbered in the order of their first use."""

    def __init__(self, table: str) -> None:
        every = validate(_Remarks, read_yaml(REMARKS), str(REMARKS)).remarks if REMARKS.exists() else []
        self.remarks = [remark for remark in every if table in remark.tables]
        self.texts: list[str] = []

    def numbers(self, row: Any) -> list[int]:
        """The footnotes on the paper's figure in a row of a table."""
        if pd.isna(row["reported"]):
            return []
        method = TRAINED.get((row["recipe"], row.get("protocol"))) or METHODS.get(row["recipe"], row["recipe"])
        recipe, variant = named(method, row.get("variant") or "")
        values = {"recipe": recipe, "variant": variant, "ipc": row["ipc"], "dataset": root("datasets", row["dataset"])}
        values["student"] = paper_name(row["student"]) or row["student"]
        texts = [f"Source: {row['reported_source']}."] if row.get("reported_source") else []
        for remark in self.remarks:
            conditions = remark.model_dump(exclude={"text", "tables"}, exclude_none=True)
            if all(values[k] in v if isinstance(v, list) else values[k] == v for k, v in conditions.items()):
                texts.append(remark.text)
        self.texts += [text for text in texts if text not in self.texts]
        return [self.texts.index(text) + 1 for text in texts]


def named(recipe: str, variant: str, protocol: str = "") -> tuple[str, str]:
    """Recipe and variant as the paper's ablations call them."""
    if variant:
        return recipe, variant
    return CROSSED.get((recipe, protocol)) or LADDER.get(recipe, (recipe, ""))


def references(numbers: list[int]) -> str:
    """``[^1][^2]``"""
    return "".join(f"[^{number}]" for number in numbers)
