"""Write the generated parts of the pages: ``python docs/generate.py [--check]``, in the root of a checkout.

A page holds between ``<!-- generated: NAME ARGUMENTS -->`` and ``<!-- end -->`` what the function of that name makes of
the arguments. Numbers come from ``results/runs.csv``, ``results/histories`` and ``results/bench``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import BaseModel

from edc.bench.run import WHERE, summary
from edc.config.choices import LabelChoices, StudentChoices, SynthesisChoices
from edc.config.expand import Builder
from edc.config.files import StudyFile, names, read
from edc.config.rows import EvaluateRow, Plan
from edc.reporting import pages, record
from edc.reporting.evaluations import FULL, RANDOM, evaluations, with_baseline
from edc.reporting.paper import read_reported
from edc.storage import RESULTS, write_text

MARKED = re.compile(r"(<!-- generated: (\w+) ?(.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
PICTURE = Path("docs/condensed.png")
STUDENT = {"imagenet1k": "torchvision:resnet18", "cifar10": "resnet18"}
RESULT_ROWS = [
    ("cifar10_light", "convnet_w32", 1),
    ("cifar10_light", "convnet_w32", 10),
    ("cifar10_light", "resnet18", 10),
    ("digits", "convnet_d2", 1),
    ("digits", "convnet_d2", 10),
]
"""Dataset, student and images per class of the table in the README."""


@cache
def runs() -> pd.DataFrame:
    """The record."""
    return record.comparable(record.read())


@cache
def cells(split: str = "test") -> pd.DataFrame:
    """Finished evaluations of plain recipes and protocols (all variants on the val split), as text in ``score``."""
    rows = evaluations(runs(), split)
    rows = rows if split == "val" else rows[rows["variant"] == ""]
    one_seed = np.where(rows["seeds"] == 1, " (1 seed)", "")
    return rows.assign(score=pages.plus_minus(rows, "final") + one_seed)


def results() -> pd.DataFrame:
    """EDC beside random images and the best other method, for the README."""
    soft = cells()[cells()["protocol"] == cells()["own_protocol"]]
    compared = with_baseline(soft, cells()[cells()["recipe"] == RANDOM], ["dataset", "ipc", "student", "training"])
    lines = []
    for dataset, student, ipc in RESULT_ROWS:
        here = cells()[(cells()["dataset"] == dataset) & (cells()["student"] == student)]
        rows = compared[(compared["dataset"] == dataset) & (compared["student"] == student) & (compared["ipc"] == ipc)]
        ours = rows[rows["recipe"] == "edc"].iloc[0]
        others = rows[~rows["recipe"].str.match(rf"{RANDOM}|edc|config_") & (rows["ipc"] > 0)]
        best = others.sort_values("final_mean").tail(1)
        hard = here[(here["protocol"] == "hard_label") & (here["ipc"] == ipc)].set_index("recipe")["score"]
        device = f"{ours['device']}, {ours['threads']} thread, {ours['precision']}"
        lines.append({
            "dataset": read("datasets", dataset).title.partition(",")[0],
            "student": student,
            "images per class": ipc,
            "EDC": f"**{ours['score']}**" if ours["clear"] == "yes" else ours["score"],
            "random images": rows[rows["recipe"] == RANDOM]["score"].iloc[0],
            "best other method": "".join(f"{row['score']} ({row['recipe']})" for _, row in best.iterrows()),
            "EDC, hard labels": hard.get("edc", ""),
            "random, hard labels": hard.get(RANDOM, ""),
            "all training images": here.set_index("recipe")["score"].get(FULL, ""),
            "seconds, device": f"{seconds('evaluate', ours['run']):.0f}, {device}",
        })  # fmt: skip
    return pd.DataFrame(lines).replace("", "not run")


def seconds(stage: str, run: str) -> float:
    """Seconds of a run and of the images and labels it is made from (not of the observers)."""
    row = runs()[(runs()["stage"] == stage) & (runs()["run"] == run)].iloc[0]
    upstream = [name.partition("=")[0].partition("/") for name in row["inputs"].split()]
    own = [(name, key) for name, _, key in upstream if stage == "evaluate" and name in ("synthesize", "relabel")]
    return float(row["seconds"]) + sum(seconds(*each) for each in own)


def compare(datasets: str, *protocols: str) -> pd.DataFrame:
    """Final accuracies, a column per recipe: under these protocols, or under each recipe's own (``own``)."""
    rows = cells()[cells()["dataset"].isin(datasets.split(",")) & (cells()["ipc"] > 0)]
    rows = rows[rows["protocol"].isin(protocols) | (("own" in protocols) & (rows["protocol"] == rows["own_protocol"]))]
    table = rows.pivot(index=["dataset", "ipc", "student"], columns="recipe", values="score").fillna("")
    order = [name for name in ("edc", "edc_code", "gvbsm", "rded", "sre2l", "cda", "herding") if name in table]
    return table[[*order, RANDOM]].reset_index()


def course(*keys: str) -> pd.DataFrame:
    """Accuracy over epochs, mean over the seeds, one row per evaluation."""
    table = pd.read_csv(RESULTS / "histories" / "learning.csv")
    wide = table[table["run"].isin(keys)].pivot(index="run", columns="epoch", values="accuracy").reindex(keys)
    return wide.map("{:.1f}".format, na_action="ignore").reset_index()


def observers(*datasets: str) -> pd.DataFrame:
    """Accuracy of observers on held-out training images."""
    rows = runs()[(runs()["stage"] == "pretrain") & runs()["dataset"].isin(datasets)]
    table = rows.pivot(index="student", columns="epochs", values="val_accuracy").map("{:.1f}".format)
    return table.rename(columns="after {} epochs".format).reset_index(names="observer")


def val(family: str) -> pd.DataFrame:
    """Evaluations on held-out training images."""
    rows = cells("val")
    rows = rows[[read("datasets", name).data["family"] == family for name in rows["dataset"]]]
    return rows.sort_values(["dataset", "recipe", "variant"])[
        ["dataset", "recipe", "variant", "ipc", "student", "seeds", "score"]
    ]


def gpu(split: str, *columns: str) -> pd.DataFrame:
    """Accuracies of ResNet-18 measured on a GPU by an earlier version, recipes in columns."""
    rows = pd.read_csv(RESULTS / "gpu" / "cifar10-h100.csv", keep_default_na=False)
    rows = rows[(rows["split"] == split) & (rows["student"] == "resnet18")].astype({"final_std": "string"})
    deviations = pd.to_numeric(rows["final_std"], errors="coerce")
    rows["score"] = [pages.spread(*pair) for pair in zip(rows["final_mean"], deviations, strict=True)]
    return rows.pivot(index=list(columns), columns="recipe", values="score").fillna("").reset_index()


def studies() -> pd.DataFrame:
    """The studies that exist."""
    return pd.DataFrame([{"study": f"`{name}`", "runs": read("studies", name).description} for name in names("studies")])


def choices(model: str) -> pd.DataFrame:
    """Every key of a model, from its JSON schema."""
    known = {"synthesize": SynthesisChoices, "relabel": LabelChoices, "student": StudentChoices}
    schema = known[model].model_json_schema()
    return pd.DataFrame(_keys(schema["properties"], schema.get("$defs", {}), ""))


def _keys(properties: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterable[dict[str, str]]:
    for name, written in properties.items():
        types = [part for part in written.get("anyOf", [written]) if part.get("type") != "null"]
        value = {**types[0], **definitions.get(types[0].get("$ref", "").rpartition("/")[2], {})}
        meaning = " ".join(written.get("description", value.get("description", "")).replace("``", "`").split())
        default = str(written.get("default", "required")).replace("None", "null")
        nested = "properties" in value
        yield {
            "key": f"`{prefix}{name}`",
            "values": "" if nested else _values(value),
            "default": "" if nested else default.lower() if value.get("type") == "boolean" else default,
            "meaning": meaning,
        }
        if nested:
            yield from _keys(value["properties"], definitions, f"{prefix}{name}.")


def _values(value: dict[str, Any]) -> str:
    if "enum" in value:
        return ", ".join(f"`{name}`" for name in value["enum"])
    if "prefixItems" in value:
        return "smallest, largest" if value["prefixItems"][0]["type"] == "integer" else "two numbers"
    low, high = value.get("minimum", value.get("exclusiveMinimum")), value.get("maximum", value.get("exclusiveMaximum"))
    above = "" if low is None else f", {'above' if 'exclusiveMinimum' in value else 'from'} {low:g}"
    below = "" if high is None else f", {'below' if 'exclusiveMaximum' in value else 'to'} {high:g}"
    return {"array": "list"}.get(value.get("type", ""), value.get("type", "")) + above + below


def space(dataset: str, recipes: list[str], protocols: list[str]) -> tuple[Plan, list[EvaluateRow]]:
    """The plan and the evaluations of recipes under protocols on one dataset, at ten images per class."""
    values = {"description": "", "datasets": [dataset], "ipc": [10], "students": [STUDENT[dataset]]}
    plan = Builder("space", StudyFile(**values, recipes=recipes, protocols=protocols)).build()
    return plan, list(plan.evaluate.values())


def recipes(dataset: str) -> pd.DataFrame:
    """One row per recipe, one column per choice."""
    plan, rows = space(dataset, names("recipes"), ["default"])
    lines = []
    for row in rows:
        line = {"recipe": f"`{row.recipe}`", "initialise": "all training images"}
        if row.images is not None:
            made = plan.synthesize[row.images]
            line["initialise"] = differing(made.initialise)
            parts = ["match", "regularise", "augment", "optimise"] if made.optimise.iterations else []
            line |= {name: differing(getattr(made, name)) for name in parts}
            line |= {"observers": len(made.observers), "jpeg": made.jpeg} if parts else {}
        lines.append(line | {"protocol": f"`{row.protocol}`"})
    return pd.DataFrame(lines).sort_values("recipe").astype({"observers": "Int64", "jpeg": "Int64"})


def protocols(dataset: str) -> pd.DataFrame:
    """One row per protocol, one column per choice."""
    plan, rows = space(dataset, ["edc"], [name for name in names("protocols") if name != "real_data"])
    lines = []
    for row in sorted(rows, key=lambda row: row.protocol):
        label = plan.relabel[row.labels or ""]
        lines.append({
            "protocol": f"`{row.protocol}`", "regime": row.regime,
            "teachers": "" if row.regime == "hard" else len(label.observers),
            "relabel": differing(label, {"dataset", "images", "observers", "flip", "epochs", "batch"}),
            "loss": "cross-entropy" if row.regime == "hard" else differing(row.loss),
            "optimiser": differing(row.optimiser), "schedule": differing(row.schedule),
            "batch": row.batch, "epochs": row.epochs, "ema": row.ema,
        })  # fmt: skip
    return pd.DataFrame(lines)


def differing(model: BaseModel, hidden: Iterable[str] = ()) -> str:
    """A choice's method and the values that differ from their defaults."""
    words = [str(getattr(model, name)) for name in ("method", "name") if hasattr(model, name)]
    if words == ["none"]:
        return ""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if name in ("method", "name", *hidden) or value == field.default:
            continue
        text = differing(value) if isinstance(value, BaseModel) else str(value).replace("True", "yes")
        words.append(f"{name} {text.replace('False', 'no').replace('(', '[').replace(')', ']')}".strip())
    return ", ".join(words)


def bench(name: str) -> pd.DataFrame:
    """Sums over the networks of one file of measurements."""
    table = summary(pd.read_csv(WHERE / f"{name}.csv")).round(2)
    units = {"milliseconds": "ms", "largest_ratio": "largest", "reference_ratio": "reference", "process_mb": "process MB"}
    table = table.rename(columns=units | {"peak_mb": "peak MB", "peak_to_floor": "peak / floor"})
    return table.rename(columns={"peak_to_bare": "peak / bare"})


def networks(name: str) -> pd.DataFrame:
    """Ratios of one file of measurements, one row per network."""
    table = pd.read_csv(WHERE / f"{name}.csv")
    table = table[table["seeds"] == 1].assign(case=lambda rows: rows["stage"] + " " + rows["images"].astype(str))
    wide = table.pivot(index="network", columns="case", values="ratio").reindex(table["network"].unique())
    return wide[table["case"].unique()].map("{:.2f}".format, na_action="ignore").reset_index()


BLOCKS = [results, compare, course, observers, val, gpu, studies, choices, recipes, protocols, bench, networks]


def render(text: str) -> str:
    """A page with its generated parts."""
    blocks = {function.__name__: function for function in BLOCKS}
    return MARKED.sub(lambda m: f"{m[1]}{pages.grid(blocks[m[2]](*m[3].split()))}\n{m[4]}", text)


def picture() -> None:
    """Real images (above) and EDC's (below), one of each class, from the contact sheets in ``results/condensed``."""
    strips = []
    for key in ("digits-edc-ipc10", "cifar10_light-edc-ipc10"):
        sheet = Image.open(RESULTS / "condensed" / f"{key}.png").convert("RGB")
        tile, gap = (sheet.height - 2) // 10, 2
        halves = [(gap + x * (10 * tile + 3 * gap), name) for x, name in ((1, "real"), (0, "EDC"))]
        strip = Image.new("RGB", (10 * 50, 2 * 50), "white")
        for line, (left, _) in enumerate(halves):
            for c in range(10):
                box = (left, gap + c * tile, left + tile - gap, (c + 1) * tile)
                strip.paste(sheet.crop(box).resize((48, 48), Image.Resampling.NEAREST), (50 * c, 50 * line))
        strips.append(strip)
    whole = Image.new("RGB", (2 * 500 + 20, 100), "white")
    for place, strip in enumerate(strips):
        whole.paste(strip, (place * 520, 0))
    whole.save(PICTURE, optimize=True)


def main(check: bool) -> None:
    """Write the pages that differ, or exit with 1 where one does."""
    files = [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    stale = {path: new for path, text in texts.items() if (new := render(text)) != text}
    for path, text in stale.items():
        print(f"{path}: {'out of date; run `python docs/generate.py`' if check else 'written'}")
        if not check:
            write_text(path, text)
    if not check:
        picture()
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
