"""Write the generated parts of the pages: ``python docs/generate.py [--check]``, in the root of a checkout.

A page holds between ``<!-- generated: NAME ARGUMENTS -->`` and ``<!-- end -->`` what the function of that name returns.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from design_space import choices, protocols, recipes

from edc.bench.run import summary
from edc.config.files import names, read
from edc.reporting import applications, correctness, pages, record
from edc.reporting.equal import equal_bytes
from edc.reporting.evaluations import FULL, RANDOM, evaluations, interval, with_baseline
from edc.storage import RESULTS, write_text

MARKED = re.compile(r"(<!-- generated: (\w+) ?(.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


@cache
def runs() -> pd.DataFrame:
    """The record."""
    return record.comparable(record.read())


@cache
def cells(split: str = "test") -> pd.DataFrame:
    """Finished evaluations of plain recipes and protocols (all variants on the val split), as :func:`scored`."""
    rows = scored(split)
    return rows if split == "val" else rows[rows["variant"] == ""]


@cache
def scored(split: str) -> pd.DataFrame:
    """Finished evaluations, final accuracies as text in ``score``."""
    rows = evaluations(runs(), split, correctness.by_run(correctness.read(), runs()))
    one_seed = np.where(rows["seeds"] == 1, " (1 seed)", "")
    return rows.assign(score=pages.plus_minus(rows, "final") + one_seed)


def of_cell(rows: pd.DataFrame, dataset: str, student: str, ipc: str) -> pd.DataFrame:
    """Those of a dataset, a student and a number of images per class."""
    return rows[(rows["dataset"] == dataset) & (rows["student"] == student) & (rows["ipc"] == int(ipc))]


def results(*settings: str) -> pd.DataFrame:
    """EDC beside random images and the best other method, a line for each DATASET/STUDENT/IPC."""
    own = cells()[cells()["protocol"] == cells()["own_protocol"]]
    own = with_baseline(own, own[own["recipe"] == RANDOM], ["dataset", "ipc", "student", "training"])
    lines = []
    for dataset, student, ipc in (setting.split("/") for setting in settings):
        here, rows = (
            table[(table["dataset"] == dataset) & (table["student"] == student) & table["ipc"].isin([0, int(ipc)])]
            for table in (cells(), own)
        )
        ours = rows[rows["recipe"] == "edc"].iloc[0]
        best = rows[~rows["recipe"].str.match(f"{RANDOM}|{FULL}|edc|config_")].nlargest(1, "final_mean")
        soft = rows.set_index("recipe")["score"]
        hard = here[here["protocol"] == "hard_label"].set_index("recipe")["score"]
        lines.append({
            "dataset": read("datasets", dataset).title,
            "student": student, "IPC": ipc,
            "EDC": f"**{ours['score']}**" if ours["clear"] == "yes" else ours["score"],
            "random images": soft[RANDOM],
            "best other method": "".join(best["score"] + " (" + best["recipe"] + ")"),
            "EDC, hard labels": hard.get("edc", ""),
            "random, hard labels": hard.get(RANDOM, ""),
            "all training images": soft.get(FULL, ""),
            "seconds": f"{seconds(ours['run']):.0f}",
            "device": f"{ours['device']}, {ours['threads']} thread, {ours['precision']}",
        })  # fmt: skip
    return pd.DataFrame(lines).replace("", "not run")


def seconds(run: str) -> float:
    """Seconds of an evaluation and of the images and labels it reads."""
    inputs = runs().loc[runs()["run"] == run, "inputs"].iloc[0]
    upstream = [tuple(text.partition("=")[0].split("/")) for text in inputs.split()]
    known = runs().drop_duplicates(["stage", "run"]).set_index(["stage", "run"])["seconds"]
    return float(known[[("evaluate", run), *upstream]].sum())


def differences(*pairs: str) -> pd.DataFrame:
    """Two evaluations of the same test images, RUN,RUN: their difference in points, in brackets where none is shown."""
    by_run = {line["run"]: line for line in scored("test").to_dict("records")}
    lines = []
    for first, second in ([by_run[run] for run in pair.split(",")] for pair in pairs):
        low, high = interval(first, second)
        both = ([line[name] for name in ("recipe", "protocol", "variant")] for line in (first, second))
        names = [", ".join(filter(None, parts)) for parts in both]
        same = first["protocol"] == second["protocol"]
        earlier = "*" * ("earlier" in (first["source"], second["source"]))
        lines.append({
            "dataset": first["dataset"], "IPC": first["ipc"], "student": first["student"],
            "images, protocol": names[0] + earlier, "accuracy": first["score"],
            "against": second["recipe"] if same else names[1], "its accuracy": second["score"],
            "improvement": first["final_mean"] - second["final_mean"], "clear": "yes" if low > 0 or high < 0 else "no",
            "95 % interval": "" if np.isnan(low) else f"{low:.1f} to {high:.1f}",
        })  # fmt: skip
    table = pd.DataFrame(lines)
    table["improvement"] = pages.verdicts(table, "improvement")
    return table.drop(columns="clear").rename(columns={"improvement": "points"})


def costs(dataset: str, student: str, ipc: str) -> pd.DataFrame:
    """Seconds for the images of every recipe, optimiser steps and bytes of labels of its own protocol, by seconds."""
    rows = of_cell(cells(), dataset, student, ipc)
    rows = rows[rows["protocol"] == rows["own_protocol"]].set_index("recipe")
    made = runs()[
        (runs()["stage"] == "synthesize") & runs()["run"].isin(f"{dataset}-{name}-ipc{ipc}" for name in rows.index)
    ]
    table = (
        made.set_index("recipe")[["seconds"]].sort_values("seconds").join(rows[["protocol", "steps", "label_bytes"]])
    )
    sizes = {
        "seconds": table["seconds"].round().astype(int),
        "label kB": (table["label_bytes"] / 1000).round().astype(int),
    }
    return table.assign(**sizes).drop(columns="label_bytes").reset_index()


def compare(datasets: str, *protocols: str) -> pd.DataFrame:
    """Final accuracies, a column per recipe: under these protocols, or under each recipe's own (``own``)."""
    rows = cells()[cells()["dataset"].isin(datasets.split(",")) & (cells()["ipc"] > 0)]
    rows = rows[rows["protocol"].isin(protocols) | (("own" in protocols) & (rows["protocol"] == rows["own_protocol"]))]
    table = rows.pivot(index=["dataset", "ipc", "student"], columns="recipe", values="score").fillna("")
    order = [name for name in ("edc", "edc_code", "gvbsm", "rded", "sre2l", "cda", "herding", RANDOM) if name in table]
    return table.loc[(table != "").sum(axis=1) > 1, order].reset_index()


def course(*keys: str) -> pd.DataFrame:
    """Accuracy over epochs, mean over the seeds, one row per evaluation."""
    table = pd.read_csv(record.history("learning"))
    wide = table.pivot(index="run", columns="epoch", values="accuracy").loc[list(keys)].dropna(axis=1, how="all")
    return wide.map("{:.1f}".format, na_action="ignore").reset_index()


def observers(*datasets: str) -> pd.DataFrame:
    """Accuracy of observers on held-out training images."""
    rows = runs()[(runs()["stage"] == "pretrain") & runs()["dataset"].isin(datasets)]
    rows = rows[rows["student"].isin(read("datasets", datasets[0]).observers)]
    table = rows.pivot(index="student", columns="epochs", values="val_accuracy").map("{:.1f}".format)
    return table.rename(columns="epochs: {}".format).reset_index(names="observer")


def val(family: str) -> pd.DataFrame:
    """Evaluations on held-out training images."""
    rows = cells("val")[[read("datasets", name).data["family"] == family for name in cells("val")["dataset"]]]
    columns = ["dataset", "recipe", "protocol", "variant", "ipc", "student", "seeds", "score"]
    return rows[columns].sort_values(columns[:4])


def gpu(split: str, *columns: str) -> pd.DataFrame:
    """Accuracies of ResNet-18 measured on a GPU by an earlier version, recipes in columns."""
    table = pd.read_csv(RESULTS / "gpu" / "cifar10-h100.csv").fillna({"variant": ""})
    rows = table[(table["split"] == split) & (table["student"] == "resnet18")]
    rows = rows.assign(score=pages.plus_minus(rows, "final"))
    return rows.pivot(index=list(columns), columns="recipe", values="score").fillna("").reset_index()


def studies() -> pd.DataFrame:
    """The studies that exist."""
    return pd.DataFrame({"study": f"`{name}`", "runs": read("studies", name).description} for name in names("studies"))


def bench(name: str) -> pd.DataFrame:
    """Sums over the networks of one file of measurements."""
    table = summary(pd.read_csv(RESULTS / "bench" / f"{name}.csv"))
    table = table.drop(columns="recipe") if table["recipe"].nunique() == 1 else table
    table = table.assign(**table.select_dtypes("float64").map("{:.2f}".format, na_action="ignore"))
    return table.rename(columns=lambda name: name.replace("_to_", " / ").replace("_mb", " MB").replace("_", " "))


def networks(name: str) -> pd.DataFrame:
    """Ratios of one file of measurements, one row per network."""
    table = pd.read_csv(RESULTS / "bench" / f"{name}.csv")
    table = table[table["seeds"] == 1].assign(case=lambda rows: rows["stage"] + " " + rows["images"].astype(str))
    wide = table.pivot(index="network", columns="case", values="ratio").reindex(table["network"].unique())
    return wide[table["case"].unique()].map("{:.2f}".format, na_action="ignore").reset_index()


def labels(dataset: str, student: str, ipc: str, *recipes: str) -> pd.DataFrame:
    """Condensed sets by what is stored of their labels, most bytes first."""
    rows = of_cell(equal_bytes(scored("test").drop(columns="score")), dataset, student, ipc)
    stored = rows["variant"].where(rows["variant"] != "", rows["regime"].replace({"soft": "all"}))
    rows = rows.assign(stored=stored, score=pages.plus_minus(rows, "final"))
    wide = rows.pivot(index=["label_bytes", "share", "stored"], columns="recipe", values="score")[list(recipes)]
    wide = wide.dropna().sort_index(level="label_bytes", ascending=False, kind="stable").reset_index()
    sizes = {"bytes": wide["label_bytes"].map("{:,}".format), "share": wide["share"].map(pages.fraction)}
    return wide[["stored"]].assign(**sizes).join(wide[list(recipes)])


def crossed(dataset: str, student: str, ipc: str, *protocols: str) -> pd.DataFrame:
    """Final accuracies of every recipe under each of these protocols and its own, best first."""
    rows = of_cell(cells(), dataset, student, ipc)
    wide = rows.pivot(index="recipe", columns="protocol", values=["score", "final_mean"])
    wide = wide.dropna(subset=[("score", name) for name in protocols])
    wide = wide.sort_values(("final_mean", protocols[0]), ascending=False)["score"]
    own = rows[rows["protocol"] == rows["own_protocol"]].set_index("recipe")
    own = own.loc[[name for name in wide.index if name in own.index and name != RANDOM]]
    own["score"] += " (" + own["protocol"] + ")"
    return wide[list(protocols)].assign(own=own["score"]).fillna("").reset_index()


def continual(dataset: str) -> pd.DataFrame:
    """Class-incremental learning: accuracy on the classes seen so far, a line for every recipe, best average first."""
    rows = applications.continual(runs())
    rows = rows[rows["dataset"] == dataset]
    rows = rows.assign(score=pages.plus_minus(rows, "accuracy"), seen=rows["classes"].astype(str) + " classes")
    wide = rows.pivot(index="recipe", columns="seen", values="score")[list(rows["seen"].unique())]
    last = rows[rows["step"] == rows["steps"]].set_index("recipe")
    wide = wide.assign(
        average=pages.plus_minus(last, "average"),
        forgetting=pages.plus_minus(last, "forgetting"),
        improvement=pages.verdicts(last, "improvement"),
    )
    return wide.loc[last["average_mean"].sort_values(ascending=False).index].reset_index()


def slimming(dataset: str, pretrained: str) -> pd.DataFrame:
    """Accuracy after fine-tuning by the share of channels removed, a line for every recipe, best at the largest first.

    ``start``: of networks trained on the real images, before the training with the set.
    """
    rows = applications.slimming(runs())
    rows = rows[(rows["dataset"] == dataset) & (rows["pretrained"] == pretrained)]
    rows = rows.assign(score=pages.plus_minus(rows, "after"), removed=rows["ratio"].map("{:.0%}".format))
    wide = rows.pivot(index="recipe", columns="removed", values="score")[list(rows["removed"].unique())]
    first, last = (rows[rows["ratio"] == ratio].set_index("recipe") for ratio in (0, rows["ratio"].max()))
    if pretrained == "yes":
        wide.insert(0, "start", pages.plus_minus(first, "before"))
    largest = f"improvement at {rows['ratio'].max():.0%}"
    wide = wide.assign(**{largest: pages.verdicts(last, "improvement")})
    return wide.loc[last["after_mean"].sort_values(ascending=False).index].reset_index()


def slimming_trials(dataset: str) -> pd.DataFrame:
    """Accuracy of pruned networks on held-out training images, a line for every recipe and variant."""
    rows = applications.slimming(runs(), "val")
    rows = rows[rows["dataset"] == dataset]
    rows = rows.assign(score=pages.plus_minus(rows, "after"), removed=rows["ratio"].map("{:.0%}".format))
    wide = rows.pivot(index=["recipe", "variant"], columns="removed", values="score")
    return wide[list(rows["removed"].unique())].reset_index()


TABLES: list[Callable[..., pd.DataFrame]] = [
    results, differences, costs, compare, course, observers, val, gpu, studies, choices, recipes, protocols, bench,
    networks, labels, crossed, continual, slimming, slimming_trials,
]  # fmt: skip


def render(text: str) -> str:
    tables = {function.__name__: function for function in TABLES}
    return MARKED.sub(lambda m: f"{m[1]}{pages.grid(tables[m[2]](*m[3].split()))}\n{m[4]}", text)


def main(check: bool) -> None:
    """Write the pages that differ, or exit with 1 where one does."""
    for path in [Path("README.md"), *sorted(Path("docs").glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        if (new := render(text)) != text:
            if check:
                sys.exit(f"{path}: out of date; run `python docs/generate.py`")
            write_text(path, new)


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
