"""Fill in what the pages take from the files: `python docs/generate.py`, in the root of a checkout.

Between `<!-- generated: NAME -->` and `<!-- end -->` a page holds what the function of that name gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from edc import STAGES
from edc.bench.run import WHERE, summary
from edc.config.expand import Builder
from edc.config.choices import SynthesisChoices
from edc.config.cost import report
from edc.reporting.evaluations import finished
from edc.nets.titles import paper_name
from edc.config.rows import EvaluateRow, Plan, SynthesizeRow
from edc.config.plan import list_studies, make_plan
from edc.reporting.reported import read_figures
from edc.storage import RESULTS, read_json
from edc.config.files import StudyFile, names, read

PAGES = ("README.md", "docs/cifar10.md", "docs/design-space.md", "docs/speed.md")
MARKED = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
STUDENT = {"imagenet1k": "torchvision:resnet18", "cifar10": "resnet18"}
IPC = 10


def space(dataset: str) -> tuple[Plan, dict[str, EvaluateRow]]:
    """Every recipe under its own protocol on one dataset, and by recipe the row that judges it."""
    given = {"description": "all recipes", "datasets": [dataset], "recipes": names("recipes"), "ipc": [IPC]}
    study = StudyFile(**given, protocols=["default"], students=[STUDENT[dataset]])
    plan = Builder("all_recipes", study).build()
    return plan, {row.recipe: row for row in plan.evaluate.values()}


def recipes(dataset: str) -> Iterator[str]:
    """One row a recipe, one column a choice."""
    plan, judged = space(dataset)
    yield from grid("recipe", "initialise", "match", "regularise", "augment", "optimise", "protocol")
    for name, row in judged.items():
        if row.images is None:
            cells = ["the whole training set", *["-"] * 4]
        else:
            made = plan.synthesize[row.images]
            cells = [initialise(made), *optimised(made)]
        yield line(f"`{name}`", *cells, f"`{row.protocol}`")


def initialise(row: SynthesizeRow) -> str:
    """Where pixels start, and how they are stored where nothing is optimised."""
    found = row.initialise
    parts = [found.method]
    if found.method == "composites":
        how = f"best of {found.candidates} x {found.crops}" if found.pool is None else f"from a pool of {found.pool}"
        parts = [f"composites {found.factor} x {found.factor}", how]
    if found.draw != "independent":
        parts.append(found.draw)
    return ", ".join(parts) + (jpeg(row) if not row.optimise.iterations else "")


def optimised(row: SynthesizeRow) -> list[str]:
    """The choices that matter only where pixels are optimised."""
    if not row.optimise.iterations:
        return ["-"] * 4
    match, term, augment, optimise = row.match, row.regularise, row.augment, row.optimise
    low, high = augment.crop_scale
    group = f"groups of {optimise.group}" if optimise.group else "one group"
    rounds = {0: ", one image of a class a round", 1: ""}.get(optimise.rounds, f", {optimise.rounds} rounds")
    return [
        f"{match.method} x {match.weight:g}, {observers(len(row.observers))}"
        + (f", alpha {match.alpha:g}" if match.method == "category" else "")
        + (f", ema {match.ema:g}" if match.ema else "")
        + (f" from {match.ema_init}" if match.ema and match.ema_init != default("match", "ema_init") else "")
        + (", carried" if match.carry else "")
        + (", cells swapped" if match.swap_class_patch else "")
        + (f", drop {match.drop:g}" if match.drop else ""),
        "-" if term.method == "none" else f"{term.method} x {term.weight:g}" + flatness(row),
        ("whole" if low == 1 else f"crop {low:g} to {high:g}")
        + (f", {augment.curriculum.name} curriculum" if augment.curriculum.name != "none" else "")
        + (f", pad {augment.pad}" if augment.pad else "")
        + (f", roll {augment.roll[0]} to {augment.roll[1]}" if augment.roll != (0, 0) else "")
        + ("" if augment.flip else ", no flip"),
        f"{optimise.iterations} at {optimise.lr:g}, {group}{rounds}{jpeg(row)}",
    ]


def flatness(row: SynthesizeRow) -> str:
    """The values of flatness terms."""
    term = row.regularise
    return f", beta {term.beta:g}, tau {term.tau:g}" if term.method == "logits" else ""


def jpeg(row: SynthesizeRow) -> str:
    """How images are stored, if not losslessly."""
    return f", JPEG {row.jpeg}" if row.jpeg is not None else ""


def observers(count: int) -> str:
    """How many networks."""
    return "1 observer" if count == 1 else f"{count} observers"


def default(section: str, name: str) -> Any:
    """What a choice is where no file says anything."""
    return getattr(SynthesisChoices.model_fields[section].default, name)


def protocols(dataset: str) -> Iterator[str]:
    """One row a protocol that some recipe brings along, or that is for all."""
    given = {"description": "all protocols", "datasets": [dataset], "recipes": ["edc", "full"], "ipc": [IPC]}
    wanted = [name for name in names("protocols") if name != read("recipes", "full").protocol]
    study = StudyFile(**given, protocols=wanted, students=[STUDENT[dataset]])
    plan = Builder("all_protocols", study).build()
    yield from grid("protocol", "labels", "crop, mix", "loss", "optimiser", "schedule", "batch", "epochs", "EMA")
    for row in sorted(plan.evaluate.values(), key=lambda row: row.protocol):
        view, labellers = "padded crop, flip", ""
        if row.labels is not None:
            label = plan.relabel[row.labels]
            low, high = label.crop_scale
            view = "whole" if low == 1 else f"{low:g} to {high:g}"
            view += f", pad {label.pad}" if label.pad else ""
            view += f", {label.mix}" if row.regime == "soft" and label.mix != "none" else ""
            view += ", RandAugment" if label.randaugment else ""
            view += f", {label.shuffle} x {label.shuffle} shuffled" if label.shuffle > 1 else ""
            if row.regime != "hard":
                labellers = f", {observers(len(label.observers))}"
                labellers += "" if label.ensemble == "mean" else ", equal norms"
        elif plan.datasets[dataset].crop_scale is not None:
            view = "crop, flip"
        schedule = row.schedule
        steps = ", ".join(f"{share:g}" for share in schedule.milestones) if schedule.name == "multistep" else ""
        yield line(
            f"`{row.protocol}`",
            row.regime + labellers,
            view,
            loss(row),
            f"{row.optimiser.name} {row.optimiser.lr:g}, decay {row.optimiser.weight_decay:g}",
            f"{schedule.name} {steps or f'zeta {schedule.zeta:g}'}",
            row.batch,
            row.epochs,
            "-" if row.ema is None else f"{row.ema:g}",
        )


def loss(row: EvaluateRow) -> str:
    """What the student minimises."""
    if row.regime == "hard":
        return "CE"
    if row.loss.name == "kl":
        return f"KL, T {row.loss.temperature:g}" + (", x T^2" if row.loss.squared else "")
    return f"MSE + {row.loss.ce_weight:g} CE" if row.loss.name == "mse_ce" else row.loss.name


def studies(_: str) -> Iterator[str]:
    """The studies that exist."""
    yield from grid("study", "runs", "is")
    for name, file, plan in list_studies():
        if plan is not None and isinstance(file, StudyFile):
            runs = sum(len(getattr(plan, stage)) for stage in STAGES)
            yield line(f"`{name}`", runs, file.description)


def cost(study: str) -> Iterator[str]:
    """What `edc plan STUDY --cost` says."""
    yield from ("```", f"$ edc plan {study} --cost")
    yield report(make_plan(study), 40.0, "one H100-class GPU (TF32)")
    yield "```"


def table1(asked: str) -> Iterator[str]:
    """What ran of one dataset, by each method's own protocol ("DATASET") or by every one ("DATASET all").

    Without CONFIG A to G, which the ablations are about. Of the paper's figures only what stands beside a row.
    """
    dataset, _, every = asked.partition(" ")
    table = pd.read_csv(RESULTS / "tables" / "table1.csv")
    table = table[(table["dataset"] == dataset) & table["seeds"].notna() & ~table["recipe"].str.startswith("config_")]
    own = {name: read("recipes", name).protocol for name in table["recipe"].unique()}
    rows = [row for row in table.to_dict("records") if every or row["protocol"] == own[row["recipe"]]]
    paper = any(pd.notna(row["reported"]) for row in rows)
    head = ("IPC", "student", "recipe", "protocol", "seeds", "final", "best", "fixed labels", "hard labels")
    beside = ("paper", "difference") if paper else ()
    yield from grid(*head, "random", "gain", *beside, "label kB", "steps")
    for row in rows:
        mine = row["recipe"] == "random"
        yield line(
            "all" if row["ipc"] == 0 else int(row["ipc"]),
            *(row[name] for name in ("student", "recipe", "protocol")),
            int(row["seeds"]),
            *(spread(row, name) for name in ("final", "best", "static", "hard")),
            *(("", "") if mine else (spread(row, "random"), change(row["gain"]))),
            *((spread(row, "reported", ""), change(row["difference"])) if paper else ()),
            f"{row['label_bytes'] / 1000:.1f}",
            int(row["steps"]),
        )


def observers_of(dataset: str) -> Iterator[str]:
    """The trained observers of one dataset, in its order."""
    yield from grid("observer", "epochs", "held-out accuracy, %", "seconds", "device", "commit")
    for network in read("datasets", dataset).observers:
        folder = RESULTS / "pretrain" / f"{dataset}-{network}"
        if (folder / "manifest.json").exists():
            made, ran = read_json(folder / "manifest.json"), read_json(folder / "run.json")
            epochs, reached = made["params"]["pretrain"]["epochs"], f"{made['val_accuracy']:.1f}"
            yield line(network, epochs, reached, f"{ran['seconds']:.0f}", ran["device"], ran["commit"][:7])


def course(keys: str) -> Iterator[str]:
    """Accuracy after each epoch the students were tested, mean over the seeds, one row an evaluation."""
    found = {}
    for key in keys.split():
        path = RESULTS / "evaluate" / key / "history.csv"
        if path.exists():
            found[key] = pd.read_csv(path).groupby("epoch")["test_accuracy"].mean().dropna()
    epochs = sorted({epoch for tested in found.values() for epoch in tested.index})
    yield from grid("evaluation", *(str(epoch + 1) for epoch in epochs))
    for key, tested in found.items():
        yield line(f"`{key}`", *(f"{tested[epoch]:.1f}" if epoch in tested else "" for epoch in epochs))


def spread(row: dict[str, Any], name: str, ending: str = "_mean") -> str:
    """A mean with its standard deviation."""
    mean, deviation = row[name + ending], row[f"{name}_std"]
    if pd.isna(mean):
        return ""
    return f"{mean:.1f}" + ("" if pd.isna(deviation) else f" ± {deviation:.1f}")


def change(value: float) -> str:
    """A difference with its sign."""
    return "" if pd.isna(value) else f"{value:+.1f}"


def bench(name: str) -> Iterator[str]:
    """Sums over networks of one file of measurements."""
    found = summary(pd.read_csv(WHERE / f"{name}.csv"))
    head = ("stage", "images", "seeds", "unit", "ms", "bare", "ratio", "largest", "reference")
    yield from grid(*head, "peak MB", "peak / floor", "peak / bare", "process MB")
    for _, row in found.iterrows():
        reference = "-" if pd.isna(row["reference_ratio"]) else f"{row['reference_ratio']:.2f}"
        times = (f"{row[name]:.2f}" for name in ("milliseconds", "bare", "ratio", "largest_ratio"))
        memory = (f"{row['peak_mb']:.0f}", f"{row['peak_to_floor']:.2f}", f"{row['peak_to_bare']:.2f}")
        memory += ("-" if pd.isna(row["process_mb"]) else f"{row['process_mb']:.0f}",)
        yield line(row["stage"], row["images"], row["seeds"], row["unit"], *times, reference, *memory)


def networks(name: str) -> Iterator[str]:
    """Ratios of one file of measurements, a row a network."""
    table = pd.read_csv(WHERE / f"{name}.csv")
    table = table[table["seeds"] == 1]
    table["what"] = table["stage"] + " " + table["images"].astype(str)
    wide = table.pivot(index="network", columns="what", values="ratio")[table["what"].drop_duplicates()]
    yield from grid("network", *wide.columns)
    for network in table["network"].drop_duplicates():
        yield line(network, *("-" if pd.isna(ratio) else f"{ratio:.2f}" for ratio in wide.loc[network]))


def choices(family: str) -> Iterator[str]:
    """Every finished evaluation on held-out images of one family of datasets."""
    found = [(path, read_json(path)) for path in finished("evaluate", "val")]
    found = [(path, made) for path, made in found if made["params"]["dataset"]["family"] == family]
    if not found:
        yield "No evaluation on held-out images has finished here."
        return
    head = ("dataset", "epochs of observers", "their accuracy", "recipe", "IPC", "variant", "protocol", "student")
    yield from grid(*head, "seeds", "last (best)", "agreement", "seconds", "device", "commit")
    for path, made in sorted(found, key=lambda one: judged_order(one[1]["params"]["evaluate"])):
        row, scores, ran = made["params"]["evaluate"], made["scores"], read_json(path.with_name("run.json"))
        epochs, accuracy, agreement = labelled(row["labels"])
        spread = "" if scores["final_std"] is None else f" ± {scores['final_std']:.1f}"
        cells = (row["recipe"], row["ipc"] or "all", row["variant"] or "-", row["protocol"], row["student"])
        reached = f"{scores['final_mean']:.1f}{spread} ({scores['best_mean']:.1f})"
        how = (f"{ran['seconds']:.0f}", ran["device"], ran["commit"][:7])
        yield line(row["dataset"], epochs, accuracy, *cells, len(row["seeds"]), reached, agreement, *how)


def gpu(name: str) -> Iterator[str]:
    """What ran on a GPU and came home as numbers alone, one file below results/gpu and which images judged."""
    file, _, split = name.partition(" ")
    table = pd.read_csv(RESULTS / "gpu" / f"{file}.csv", keep_default_na=False)
    rows = table[table["split"] == split].to_dict("records")
    figures, beside = read_figures(), ("paper", "difference") if split == "test" else ()
    head = ("IPC", "student", "protocol", "recipe", "variant", "observers' epochs", "seeds", "last (best)")
    yield from grid(*head, "random", "gain", *beside, "seconds")
    taught = ("ipc", "student", "protocol", "observer_epochs")
    random = {tuple(row[name] for name in taught): row for row in rows if row["recipe"] == "random"}
    for row in rows:
        spread = f" ± {float(row['final_std']):.1f}" if row["final_std"] else ""
        reached = f"{row['final_mean']:.1f}{spread} ({row['best_mean']:.1f})"
        cells = [row["ipc"], row["student"], row["protocol"], row["recipe"], row["variant"] or "-"]
        cells += [row["observer_epochs"], row["seeds"], reached]
        other = random.get(tuple(row[name] for name in taught))
        compared = other is not None and other is not row and not row["variant"]
        cells += [f"{other['final_mean']:.1f}", change(row["final_mean"] - other["final_mean"])] if compared else ["", ""]
        if beside:
            own = row["protocol"] == read("recipes", row["recipe"]).protocol
            figure = figures.find(1, "CIFAR-10", row["ipc"], paper_name(row["student"]), row["recipe"]) if own else None
            cells += [f"{figure.accuracy:.1f}", change(row["final_mean"] - figure.accuracy)] if figure else ["", ""]
        yield line(*cells, f"{row['seconds']:.0f}")


def judged_order(row: dict[str, Any]) -> tuple[Any, ...]:
    """Variants below what they vary."""
    return row["dataset"], row["recipe"], row["protocol"], row["ipc"], row["student"], row["variant"]


def labelled(key: str | None) -> tuple[str, str, str]:
    """Of stored labels: the observers' epochs, their mean accuracy on held-out images, agreement with the classes."""
    if key is None:
        return "-", "-", "-"
    made = read_json(RESULTS / "relabel" / key / "manifest.json")
    observers = [
        read_json(RESULTS / "pretrain" / name / "manifest.json") for name in made["params"]["relabel"]["observers"]
    ]
    epochs = sorted({observer["params"]["pretrain"]["epochs"] for observer in observers})
    held = [observer["val_accuracy"] for observer in observers]
    return ", ".join(map(str, epochs)), f"{sum(held) / len(held):.1f}", f"{made['agreement']:.1f}"


def line(*cells: object) -> str:
    """One row of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def grid(*head: str) -> Iterator[str]:
    """The first two rows of a Markdown table."""
    yield line(*head)
    yield line(*["---"] * len(head))


MAKERS: dict[str, Callable[[str], Iterator[str]]] = {
    "recipes": recipes,
    "protocols": protocols,
    "studies": studies,
    "cost": cost,
    "bench": bench,
    "choices": choices,
    "gpu": gpu,
    "observers": observers_of,
    "table1": table1,
    "course": course,
    "networks": networks,
}


def render(text: str, leave: Collection[str] = ()) -> str:
    """A page with its marked parts made anew, but for those of some names."""

    def fill(found: re.Match[str]) -> str:
        name, _, argument = found[2].partition(" ")
        if name in leave:
            return found[0]
        return found[1] + "\n".join(MAKERS[name](argument)) + "\n" + found[3]

    return MARKED.sub(fill, text)


if __name__ == "__main__":
    for page in map(Path, PAGES):
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"wrote {page}")
