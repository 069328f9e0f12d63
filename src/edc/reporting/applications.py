"""Continual learning and network slimming as tables: Figure 4 of the paper in numbers. Accuracies in percent."""

from __future__ import annotations

import pandas as pd

from edc.reporting.evaluations import DECIMALS, RANDOM, finished, unique, with_baseline

CONTINUAL = (
    "dataset", "recipe", "protocol", "ipc", "student", "regime", "orders", "seeds", "steps", "step", "classes",
    "accuracy_mean", "accuracy_std", "average_mean", "average_std", "forgetting_mean", "forgetting_std", "image_bytes",
    "label_bytes", "baseline_mean", "improvement", "improvement_low",
    "improvement_high", "clear",
)  # fmt: skip
SLIMMING = (
    "dataset", "recipe", "variant", "protocol", "ipc", "student", "regime", "pretrained", "seeds", "sparsity", "epochs",
    "finetune", "keep", "ratio", "channels", "parameters", "macs", "before_mean", "before_std", "after_mean",
    "after_std", "image_bytes", "label_bytes", "baseline_mean", "improvement", "improvement_low",
    "improvement_high", "clear",
)  # fmt: skip
SHARED = ["dataset", "student", "ipc", "recipe", "protocol", "regime"]
"""Equal in all lines of a run; the columns that tables are sorted by first."""


def applications(record: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Both tables by name; two runs of the same cell are refused."""
    return {"continual": continual(record), "slimming": slimming(record)}


def continual(record: pd.DataFrame) -> pd.DataFrame:
    """One line for every step of every run, over its orders and seeds.

    Students of one order see the same classes in every step, whatever the images and the seed: of several orders, those
    are what is compared.
    """
    rows = record[record["stage"] == "continual"]
    rows = rows.assign(steps=rows.groupby("run")["step"].transform("max"))
    rows["pair"] = rows["order"].where(rows.groupby("run")["order"].transform("nunique") > 1)
    lines = _lines(rows, ["step"], {"accuracy": "accuracy", "average": "average_accuracy", "forgetting": "forgetting"})
    counts = rows.groupby("run").agg(orders=("order", "nunique"), seeds=("seed", "nunique"))
    lines = lines.join(counts, on="run")
    seen = lines["classes"] / lines.groupby("run")["classes"].transform("max")
    lines["test_images"] = (lines["test_images"] * seen).round()
    return _table(lines, CONTINUAL, [*SHARED, "steps", "step"], "accuracy")


def slimming(record: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """One line for every pruning ratio of every run, over its seeds; ratio 0 is the unpruned network.

    With ``split`` "val" those that were tested on held-out training images. Runs that start with pretrained networks
    are compared seed by seed: a seed names one network, whatever the images that fine-tune it.
    """
    rows = record[(record["stage"] == "slimming") & ((record["split"] == "val") == (split == "val"))]
    rows = rows.assign(pair=rows["seed"].where(rows["pretrained"].fillna(False).astype(bool)))
    lines = _lines(rows, ["ratio"], {"before": "accuracy_before", "after": "accuracy"})
    lines["seeds"] = lines["run"].map(rows.groupby("run")["seed"].nunique())
    for name in ("channels", "parameters", "macs"):
        lines[name] = rows.groupby(["run", "ratio"])[name].mean().round().astype("Int64").to_numpy()
    lines["keep"] = lines["keep"].fillna(0.0)
    lines["pretrained"] = lines["pretrained"].map({True: "yes"}).fillna("no")
    return _table(
        lines, SLIMMING, [*SHARED, "variant", "pretrained", "sparsity", "epochs", "finetune", "keep", "ratio"], "after"
    )


def _lines(rows: pd.DataFrame, step: list[str], scores: dict[str, str]) -> pd.DataFrame:
    """One line for every run and step, with mean and standard deviation (n - 1) of each score.

    pairs: of the column ``pair``, mean accuracy of each of its values; None where it is empty.
    """
    groups = rows.groupby(["run", *step])
    lines = groups.first()
    for name, column in scores.items():
        lines[f"{name}_mean"] = groups[column].mean().round(DECIMALS)
        lines[f"{name}_std"] = groups[column].std().round(DECIMALS)
    means = rows.groupby(["run", *step, "pair"])["accuracy"].mean()  # without the rows of no pair
    pairs = {
        line: values.droplevel([*range(1 + len(step))]).to_dict() for line, values in means.groupby(["run", *step])
    }
    lines["pairs"] = pd.Series([pairs.get(line) for line in lines.index], lines.index, dtype=object)
    return lines.reset_index()


def _table(lines: pd.DataFrame, columns: tuple[str, ...], keys: list[str], score: str) -> pd.DataFrame:
    unique(lines, keys)
    shared = [name for name in keys if name != "recipe"]
    lines = with_baseline(lines, lines[lines["recipe"] == RANDOM], shared, score)
    return finished(lines, columns, keys)
