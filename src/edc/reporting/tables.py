"""Which evaluations stand in which table, beside which of the paper's figures. Accuracies in percent, four decimals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from edc.reporting.equal import SAME, equal_bytes, equal_steps
from edc.reporting.evaluations import CELL, FULL, RANDOM, STANDARD, by_regime, finished, with_baseline
from edc.reporting.paper import CROSSED, KEY, METHODS, TRAINED, named
from edc.reporting.scores import augmentation_robust_score, label_robust_score

TABLE1 = (
    "dataset", "recipe", "protocol", "ipc", "student", "seeds", "final_mean", "final_std", "best_mean", "best_std",
    "static_mean", "static_std", "hard_mean", "hard_std", "reported", "reported_std", "reported_source", "difference",
    "image_bytes", "label_bytes", "steps", "trained", "baseline_mean", "baseline_std", "improvement", "improvement_low",
    "improvement_high", "clear",
)  # fmt: skip
VARIANTS = (
    "dataset", "recipe", "variant", "protocol", "ipc", "student", "seeds", "final_mean", "final_std", "best_mean",
    "best_std",
)  # fmt: skip
PAPER = (*VARIANTS, "reported", "reported_std", "difference")
ABLATION = (*PAPER, "reported_imagenet1k", "reported_student")
CROSS = ("dataset", "ipc", "student", "recipe", "protocol", "regime", "seeds", "final_mean", "final_std")
SCORES = (
    "dataset", "recipe", "ipc", "student", "protocol", "real_hard", "condensed_hard", "condensed_own", "baseline_own",
    "hlr", "ior", "lrs", "condensed_plain", "baseline_plain", "ior_plain", "ars",
)  # fmt: skip
UNAUGMENTED = "no_augmentation"
"""The protocol whose students see the images as they are."""
ORDER = ["dataset", "ipc", "student", "recipe", "variant", "protocol"]
OURS = ["paper_dataset", "ipc", "paper_student", "paper_recipe", "paper_variant"]
"""Columns of evaluations that say which figure of the paper is theirs, in the order of its ``KEY``."""
IMAGENET = "imagenet1k"


def tables(cells: pd.DataFrame, reported: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Every table of :func:`~edc.reporting.evaluations.evaluations` by name, beside the paper's figures.

    Raises:
        EdcError: two protocols, neither the standard one, claim the column of static or of hard labels.
    """
    names = [named(*key) for key in cells[["recipe", "variant", "protocol"]].to_numpy()]
    in_ladder = cells.join(pd.DataFrame(names, cells.index, columns=["paper_recipe", "paper_variant"]))
    crossed = _keys(cells, ["recipe", "protocol"]).map(TRAINED)
    as_reported = cells.assign(paper_recipe=crossed.fillna(cells["recipe"].replace(METHODS)), paper_variant="")
    as_reported["own"] |= crossed.notna() & ~cells["changed"].astype(bool)
    plain = as_reported[cells["variant"] == ""]
    figures = {table: reported[reported["table"] == table] for table in (1, 2, 3, 4, 5, 22)}
    made = {"table1": table1(plain, figures[1]), "table2": table2(plain, figures[2])}
    made |= {f"table{number}": ablation(in_ladder, figures[number]) for number in (3, 4, 5)}
    made |= {"table22": table22(plain, figures[22]), "variants": variants(in_ladder, reported)}
    made |= {"cross": cross(plain), "scores": scores(plain)}
    return made | {"equal_bytes": equal_bytes(cells), "equal_steps": equal_steps(cells)}


def table1(plain: pd.DataFrame, figures: pd.DataFrame) -> pd.DataFrame:
    """Accuracy under soft labels, with static soft and hard labels of the same images in columns beside it.

    Images that no soft-label protocol evaluated have a line without soft accuracies. Random images trained and labelled
    alike are the baseline. The paper's cells that did not run here have a line without accuracies of ours.
    """
    soft = plain[plain["regime"] == "soft"]
    others = plain[~_keys(plain, CELL).isin(_keys(soft, CELL))].drop_duplicates(CELL)
    others = others.drop(columns=["final_mean", "final_std", "best_mean", "best_std"])
    soft, absent = compare(with_baseline(soft, _random(plain), SAME), figures)
    rows = pd.concat([soft, others], ignore_index=True)
    for regime in STANDARD:
        accuracies = by_regime(plain, regime)[[*CELL, "final_mean", "final_std"]]
        renamed = accuracies.rename(columns={"final_mean": f"{regime}_mean", "final_std": f"{regime}_std"})
        rows = rows.merge(renamed, how="left", on=CELL)
    return finished(pd.concat([rows, absent]), TABLE1, ORDER)


def table2(plain: pd.DataFrame, figures: pd.DataFrame) -> pd.DataFrame:
    """The paper's nine students at its numbers of images, on whichever dataset; its figures are ImageNet-1k's."""
    listed = _keys(plain, ["ipc", "paper_student"]).isin(_keys(figures, ["ipc", "student"]))
    rows, absent = compare(plain[(plain["regime"] == "soft") & listed], figures)
    beside = rows.assign(paper_dataset=np.where(rows["own"], IMAGENET, ""))
    rows["reported_imagenet1k"] = look_up(beside, figures)["accuracy"]
    rows["reported_student"] = rows["paper_student"].where(rows["reported_imagenet1k"].notna())
    return finished(pd.concat([rows, absent]), ABLATION, ORDER)


def ablation(cells: pd.DataFrame, figures: pd.DataFrame) -> pd.DataFrame:
    """Table 3, 4 or 5: every evaluation of a recipe and variant of it, on whichever dataset it ran.

    The paper's figure on ImageNet-1k stands beside ours: of the same student where the paper has it, else of ResNet-18.
    Away from ImageNet-1k there is no difference, as nothing but the variant is the same.
    """
    of_line = dict(zip(_keys(figures, ["recipe", "variant"]), figures["ipc"], strict=True))
    paper_ipc = _keys(cells, ["paper_recipe", "paper_variant"]).map(of_line).astype("Int64")
    listed = paper_ipc.notna() & ((cells["variant"] != "") | (paper_ipc == cells["ipc"]))
    rows = cells.assign(paper_ipc=paper_ipc)[listed.astype(bool)]
    rows["own"] |= (rows["variant"] == "") & _keys(rows, ["recipe", "protocol"]).isin(list(CROSSED))
    rows, absent = compare(rows, figures)
    at = rows.assign(paper_dataset=np.where(rows["own"], IMAGENET, ""), ipc=rows["paper_ipc"])
    same, resnet = look_up(at, figures)["accuracy"], look_up(at.assign(paper_student="resnet18"), figures)["accuracy"]
    rows["reported_imagenet1k"] = same.fillna(resnet)
    student = rows["paper_student"].where(same.notna(), "resnet18")
    rows["reported_student"] = student.where(rows["reported_imagenet1k"].notna())
    return finished(pd.concat([rows, absent]), ABLATION, ORDER)


def table22(plain: pd.DataFrame, figures: pd.DataFrame) -> pd.DataFrame:
    """ImageNet-21k, with the student trained on the whole dataset."""
    kinds = (plain["regime"] == "soft") | (plain["recipe"] == FULL)
    rows, absent = compare(plain[(plain["paper_dataset"] == "imagenet21k") & kinds], figures)
    return finished(pd.concat([rows, absent]), PAPER, ORDER)


def variants(cells: pd.DataFrame, reported: pd.DataFrame) -> pd.DataFrame:
    """Evaluations of variants that no table of the paper has."""
    lines = _keys(reported[reported["table"].isin([3, 4, 5])], ["recipe", "variant"])
    known = _keys(cells, ["paper_recipe", "paper_variant"]).isin(lines)
    return finished(cells[(cells["variant"] != "") & ~known], VARIANTS, ORDER)


def cross(plain: pd.DataFrame) -> pd.DataFrame:
    """Recipes crossed with protocols, where at least two of each met at one dataset, IPC and student."""
    groups = plain.groupby(["dataset", "ipc", "student"])
    several = (groups["recipe"].transform("nunique") > 1) & (groups["protocol"].transform("nunique") > 1)
    return finished(plain[several], CROSS, ORDER)


def scores(plain: pd.DataFrame) -> pd.DataFrame:
    """DD-Ranking's label-robust and augmentation-robust scores of every condensed set.

    Accuracies here are fractions, four decimals. Students without augmentation are those of protocol
    ``no_augmentation``, on condensed and on random images.
    """
    hard = by_regime(plain, "hard").assign(condensed_hard=lambda rows: rows["final_mean"] / 100)
    real = hard[hard["recipe"] == FULL].rename(columns={"condensed_hard": "real_hard"})
    own = with_baseline(plain[plain["protocol"] == plain["own_protocol"]], _random(plain), SAME)
    rows = plain[plain["ipc"] > 0].drop_duplicates(CELL)[[*CELL, "own_protocol"]]
    rows = rows.merge(own[[*CELL, "final_mean", "baseline_mean"]], how="left", on=CELL)
    bare = with_baseline(plain[plain["protocol"] == UNAUGMENTED], _random(plain), SAME)
    bare = bare.assign(condensed_plain=bare["final_mean"] / 100, baseline_plain=bare["baseline_mean"] / 100).round(4)
    rows = rows.merge(bare[[*CELL, "condensed_plain", "baseline_plain"]], how="left", on=CELL)
    rows = rows.merge(hard[[*CELL, "condensed_hard"]], how="left", on=CELL)
    rows = rows.merge(real[["dataset", "student", "real_hard"]], how="left", on=["dataset", "student"])
    rows = rows.assign(condensed_own=rows["final_mean"] / 100, baseline_own=rows["baseline_mean"] / 100).round(4)
    rows["hlr"] = (rows["real_hard"] - rows["condensed_hard"]).round(4)
    rows["ior"] = (rows["condensed_own"] - rows["baseline_own"]).round(4)
    rows["ior_plain"] = (rows["condensed_plain"] - rows["baseline_plain"]).round(4)
    for name, score, parts in (
        ("lrs", label_robust_score, ["ior", "hlr"]),
        ("ars", augmentation_robust_score, ["ior", "ior_plain"]),
    ):
        complete = rows[parts].notna().all(axis=1)
        rows.loc[complete, name] = [score(*pair) for pair in rows.loc[complete, parts].to_numpy()]
    return finished(rows.rename(columns={"own_protocol": "protocol"}), SCORES, ORDER)


def _random(plain: pd.DataFrame) -> pd.DataFrame:
    """Evaluations of random images whose training is known, so that others can be compared with them."""
    return plain[(plain["recipe"] == RANDOM) & (plain["training"] != "")]


def compare(rows: pd.DataFrame, figures: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lines with the paper's figure beside those of the recipe's own protocol, and a line for every other figure."""
    figure = look_up(rows[rows["own"]], figures)
    rows = rows.assign(reported=figure["accuracy"], reported_std=figure["std"], reported_source=figure["source"])
    rows["difference"] = (rows["final_mean"] - rows["reported"]).round(4)
    ran = _keys(rows[rows["reported"].notna()], OURS)
    absent = figures[~_keys(figures, KEY).isin(ran)]
    absent = absent.rename(columns={"accuracy": "reported", "std": "reported_std", "source": "reported_source"})
    imagenet = absent["dataset"] == IMAGENET
    beside = {"reported_imagenet1k": absent["reported"], "reported_student": absent["student"]}
    return rows, absent.assign(**{name: values.where(imagenet) for name, values in beside.items()})


def look_up(rows: pd.DataFrame, figures: pd.DataFrame) -> pd.DataFrame:
    """Accuracy, deviation and source of the figure that is published for each line, empty where there is none."""
    columns = ["accuracy", "std", "source"]
    known = dict(zip(_keys(figures, KEY), figures[columns].itertuples(index=False, name=None), strict=True))
    found = [known.get(key, (np.nan, np.nan, "")) for key in _keys(rows, OURS)]
    return pd.DataFrame(found, rows.index, columns=columns).astype({"accuracy": float, "std": float, "source": object})


def _keys(rows: pd.DataFrame, columns: list[str]) -> pd.Series:
    """The values of some columns as one tuple for each line."""
    return pd.Series(list(zip(*(rows[name] for name in columns), strict=True)), rows.index, dtype=object)
