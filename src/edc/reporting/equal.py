"""What a set reaches at equal bytes of labels, and at equal steps of training. Accuracies in percent.

Evaluations do not say how their labels are stored; bytes and steps do. A variant with a plain evaluation's steps and
other bytes stores the same labels in another way; one with other steps trains for another time.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from edc.reporting.evaluations import CELL, RANDOM, by_regime, finished, with_baseline

BYTES = (
    "dataset", "ipc", "student", "recipe", "protocol", "regime", "variant", "share", "label_bytes", "teacher_bytes",
    "image_bytes", "steps", "seeds", "final_mean", "final_std", "trained", "change", "change_low", "change_high",
    "change_clear", "baseline_mean", "baseline_std", "improvement", "improvement_low", "improvement_high", "clear",
)  # fmt: skip
STEPS = (
    "dataset", "student", "protocol", "regime", "steps", "recipe", "ipc", "variant", "seeds", "final_mean", "final_std",
    "trained", "image_bytes", "label_bytes", "baseline_mean", "baseline_std", "improvement", "improvement_low",
    "improvement_high", "clear",
)  # fmt: skip
SAME = ["dataset", "ipc", "student", "training"]
"""Equal where only the images differ."""


def equal_bytes(cells: pd.DataFrame) -> pd.DataFrame:
    """Accuracy over bytes of labels: all soft labels, the variants that store fewer, static soft and hard labels.

    share: of the bytes of all soft labels of that recipe and protocol, to which ``change`` is the difference in
    accuracy, with its 95 % interval. Baseline and improvement: random images with the same labels.
    """
    sets = cells[cells["ipc"] > 0].assign(all_labels=cells["protocol"])
    whole = sets[(sets["regime"] == "soft") & (sets["variant"] == "")]
    key = [*CELL, "all_labels"]
    sizes = whole[[*key, "steps", "label_bytes"]].rename(columns={"label_bytes": "all_bytes"})
    stored = sets[(sets["regime"] == "soft") & (sets["variant"] != "")].merge(sizes, on=[*key, "steps"])
    stored = stored[stored["label_bytes"] != stored["all_bytes"]]
    sizes = sizes.merge(stored[key].drop_duplicates(), on=key)
    plain = sets[sets["variant"] == ""].drop(columns="all_labels")
    ends = [by_regime(plain.merge(sizes, on=[*CELL, "steps"]), regime) for regime in ("static", "hard")]
    rows = pd.concat([whole.merge(sizes, on=[*key, "steps"]), stored, *ends], ignore_index=True)
    rows["share"] = rows["label_bytes"] / rows["all_bytes"]
    rows["teacher_bytes"] = rows["teacher_bytes"].mask(rows["regime"] == "hard")
    beside = with_baseline(rows, whole, key)
    for name in ("change", "change_low", "change_high"):
        rows[name] = beside[name.replace("change", "improvement")]
    away = (rows["change_low"] > 0) | (rows["change_high"] < 0)
    rows["change_clear"] = np.where(rows["share"] == 1, "", np.where(away, "yes", "no"))
    rows = with_baseline(rows, cells[(cells["recipe"] == RANDOM) & (cells["training"] != "")], SAME)
    order = ["dataset", "ipc", "student", "label_bytes", "protocol", "variant", "recipe"]
    return finished(rows, BYTES, order)


def equal_steps(cells: pd.DataFrame) -> pd.DataFrame:
    """Accuracy at equal optimiser steps: where a recipe's sets of several sizes trained for as many steps."""
    sets = cells[cells["ipc"] > 0]
    key = [*CELL, "protocol"]
    usual = sets.loc[sets["variant"] == "", [*key, "steps"]].rename(columns={"steps": "usual_steps"})
    sets = sets.merge(usual, how="left", on=key)
    sets = sets[(sets["variant"] == "") | (sets["steps"] != sets["usual_steps"]).fillna(True)]
    group = ["dataset", "student", "recipe", "protocol", "regime", "steps"]
    rows = sets[sets.groupby(group)["ipc"].transform("nunique") > 1]
    rows = with_baseline(rows, cells[(cells["recipe"] == RANDOM) & (cells["training"] != "")], SAME)
    return finished(rows, STEPS, ["dataset", "student", "protocol", "steps", "recipe", "ipc", "variant"])
