"""The tables as Markdown: mean ± standard deviation, the best in bold, the paper's figures with footnotes, seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from edc.config.files import read
from edc.errors import EdcError
from edc.reporting.evaluations import CELL, RANDOM
from edc.reporting.paper import DATASETS, Footnotes, references

HEADINGS = {
    "table1": "Accuracy of students trained on condensed sets",
    "table2": "Students of other architectures (the paper's Table 2)",
    "table3": "Schedules and batches (the paper's Table 3)",
    "table4": "Flatness regularisation (the paper's Table 4)",
    "table5": "Soft category-aware matching, weak augmentation, EMA (the paper's Table 5)",
    "table22": "ImageNet-21k (the paper's Table 22)",
    "variants": "Variants that the paper does not have",
    "cross": "Recipes crossed with protocols",
    "scores": "Label-robust and augmentation-robust scores",
    "equal_bytes": "Accuracy at equal bytes of labels",
    "equal_steps": "Accuracy at equal steps of training",
    "continual": "Continual learning from condensed images (the paper's Figure 4, right)",
    "slimming": "Data-free network slimming (the paper's Figure 4, left)",
    "quality": "Quality of condensed sets in an observer's features",
    "figure2": "Sharpness of students and curvature of synthesis (the paper's Figure 2)",
}
"""Every table by name -> what it is called."""
SECTIONS = {
    "table1": ["dataset"],
    "cross": ["dataset", "ipc", "student"],
    "equal_bytes": ["dataset", "ipc", "student"],
    "equal_steps": ["dataset", "student"],
    "continual": ["dataset", "student", "steps"],
    "slimming": ["dataset", "student"],
}
"""Tables that are shown in sections, one for each value of these columns."""
PERCENT = (
    "Top-1 test accuracy in percent, mean ± standard deviation over the seeds; final: after the last epoch, best: over "
    "the evaluated epochs; bold: the best of several condensed sets of one dataset, IPC and student."
)
IMPROVEMENT = (
    "improvement: over the baseline, random real images with the same training, teachers and views; in brackets, as no "
    "difference is shown: one seed, or 0 lies in its 95 % interval over test images and seeds."
)
LEGENDS = {
    "table1": f"{PERCENT} {IMPROVEMENT} \\*: made by an earlier version or on another machine, not reproduced since.",
    "cross": f"{PERCENT} Within a row only the protocol differs, within a column only the images.",
    "scores": "As DD-Ranking defines them, on fractions (its code feeds percentages). hlr: real_hard - condensed_hard; "
    "ior: condensed_own - baseline_own; lrs: (e^a - e^-1) / (e - e^-1) with a = (ior - hlr) / 2. Empty where a part "
    "did not run: real_hard is recipe `full` with hard labels, baseline_own random images trained and labelled alike. "
    "ars: as lrs, with a = (ior + ior_plain) / 2, where ior_plain is condensed_plain - baseline_plain under the "
    "protocol `no_augmentation`, whose students see the images as they are. "
    "DD-Ranking trains 75 students for one such score; these are made of evaluations that ran anyway.",
    "equal_bytes": f"{PERCENT} Of the same images, training and steps: all soft labels, fewer of them (variant), one "
    "static soft label for each image, hard labels. share: of the bytes of all soft labels. change: of the accuracy, "
    "to that with all soft labels. teacher kB: the weights of the teachers (two bytes a parameter), from which the "
    "labels can be made again instead of being stored. "
    f"{IMPROVEMENT} The same brackets are around a change.",
    "equal_steps": f"{PERCENT} Only sets of several sizes that trained for as many optimiser steps under one protocol; "
    f"a variant changes the epochs. {IMPROVEMENT}",
    "quality": "Features are the inputs of the observer's classifier; every measure is taken class by class, with the "
    "condensed images as they are stored, and averaged. within_cosine: mean cosine of two condensed images of a "
    "class; the higher, the more alike. density and coverage (Naeem et al. 2020): in how many balls of real "
    "images a condensed image lies, divided by k, and the share of the real images whose ball holds one; a ball "
    "reaches to the k-th nearest real image of the class (k = 5 by default). nearest: distance from a condensed "
    "image to the nearest real one, in units of that between a real image and its nearest; 0: copies. Of large "
    "classes a seeded sample of real images counts (500 by default), so that copies are not all at 0 there. "
    "Coverage grows with the images per class: compare sets of one size and observer.",
    "continual": "Top-1 accuracy in percent on the test images of all classes seen so far, mean ± standard deviation "
    "over orders and seeds. In each step a fresh student is trained on the images of those classes alone. forgetting: "
    "by how much the classes of a step end below their best before the last step, in points. Of the last step, "
    f"{IMPROVEMENT} Several orders are compared order by order (Student's t over their differences).",
    "figure2": "Each line compares a choice with the same training or synthesis without it: the protocol's schedule "
    "with a plain cosine to 0, for students of the same seeds; flatness regularisation with none, for synthesis from "
    "the same starts. The rise of a loss is taken at a distance from the weights, in lengths of their filters, to both "
    "sides along random directions. Hessian: Frobenius norm at the last iterate, between the kinks of the ReLUs "
    "(exact) and with those within a step. draws: seeds of students, or starts of synthesis. relative: mean of the "
    "paired differences, in percent of the mean without the choice; in brackets where 0 lies in its 95 % interval over "
    "the draws (Student's t), so that no difference is shown.",
    "slimming": f"{PERCENT} Ratio 0 is the unpruned network after its training with an L1 norm on the BN scales. keep: "
    "share of each layer's channels that stays at every ratio. pretrained: it was trained on the real images first, "
    "and of ratio 0 `before` is its accuracy then. "
    f"{IMPROVEMENT} Pretrained networks are compared seed by seed (Student's t). Parameters and "
    "multiply-accumulates of one image are counted on the smaller network itself. The paper's Figure 4 (ImageNet-1k, "
    "VGG-11, bars): SRe2L 12.5 and EDC 25.0 at IPC 10, SRe2L 31.7 and EDC 47.1 at IPC "
    "50; it does not give the share of channels removed, nor how sparsity is trained.",
}
ELSEWHERE = (
    "IN-1k: the paper's figure on ImageNet-1k for the same recipe and variant, with its student in brackets where that "
    "is another; away from ImageNet-1k only the order of the variants can be compared."
)
OTHERS = "Of datasets that the active plan does not have:"
CLEAR = {"improvement": "clear", "change": "change_clear", "relative": "relative_clear"}
"""Differences -> the column that tells whether one is shown."""
HIDDEN = {
    "reported_student", "reported_source", "improvement_low", "improvement_high", "clear", "change_low",
    "change_high", "change_clear", "relative_low", "relative_high", "relative_clear", "trained", "device", "threads",
    "precision", "source", "regime", "run",
}  # fmt: skip


def page(name: str, table: pd.DataFrame, cells: pd.DataFrame, first: Sequence[str] = ()) -> str:
    """One table to read; its evaluations ``cells`` have seconds, devices and commits.

    Sections of the datasets ``first``, those of the active plan, stand before the others.
    """
    ran = table[table["seeds"].notna()] if "seeds" in table else table
    ran = ran.sort_values("dataset", key=lambda names: ~names.isin(first), kind="stable")
    absent, footnotes = table.drop(ran.index), Footnotes(name)
    legend = LEGENDS.get(name, PERCENT) + (f" {ELSEWHERE}" if "reported_imagenet1k" in table else "")
    blocks = [f"# {HEADINGS[name]}", legend, *([] if len(ran) else ["Nothing ran here."])]
    if name == "table1":
        once = [*CELL, "protocol", "seconds", "device", "threads", "precision", "commit", "source"]
        ran = ran.merge(cells.loc[cells["variant"] == "", once], how="left", on=[*CELL, "protocol"])
    columns = SECTIONS.get(name, [])
    sections: list[Any] = list(ran.groupby(columns)) if columns else [((), ran)] * (len(ran) > 0)
    if columns:
        sections.sort(key=lambda section: section[0][0] not in first)
    for values, rows in sections:
        if first and columns and values[0] not in first and OTHERS not in blocks:
            blocks.append(OTHERS)
        labels: dict[str, Any] = dict(zip(columns, values, strict=True))
        if columns:
            blocks.append("## " + ", ".join([title(labels.pop("dataset")), *(f"{k} {v}" for k, v in labels.items())]))
        blocks.append(grid(_arranged(name, rows, _formatted(rows.drop(columns=columns), rows, footnotes))))
        if "seconds" in rows:
            blocks.append(f"Seconds of all seeds, on {'; '.join(sorted(filter(None, device(rows).unique())))}.")
        if not columns:
            blocks.append("\n".join(f"{dataset}: {title(dataset)}." for dataset in rows["dataset"].unique()))
    blocks += _not_run(absent, footnotes)
    notes = [f"[^{number}]: {text}" for number, text in enumerate(footnotes.texts, 1)]
    return "\n\n".join([*blocks, *(["\n".join(notes)] if notes else [])]) + "\n"


def _formatted(columns: pd.DataFrame, rows: pd.DataFrame, footnotes: Footnotes) -> pd.DataFrame:
    """These columns as text: mean and deviation in one."""
    text: dict[str, Any] = {}
    for name in map(str, columns):
        if name.endswith("_mean"):
            text[name.removesuffix("_mean")] = bold(rows, name.removesuffix("_mean"))
            if name == "final_mean" and "trained" in rows:
                text["final"] = text["final"] + [untrained(row, " ({})") for row in rows.to_dict("records")]
        elif name == "reported":
            marks = [references(footnotes.numbers(row)) for _, row in rows.iterrows()]
            text["paper"] = plus_minus(rows, name) + marks
        elif name == "reported_imagenet1k":
            student = " (" + rows["reported_student"] + ")"
            same = np.array([a.endswith(b) for a, b in rows[["student", "reported_student"]].to_numpy()])
            text["IN-1k"] = rows[name].map("{:.1f}".format, na_action="ignore") + student.mask(same, "")
        elif name in CLEAR:
            text[NAMES.get(name, name)] = verdicts(rows, name)
        elif name in ("with_choice", "without_choice"):
            text[NAMES[name]] = plus_minus(rows, name, three_digits)
        elif not name.endswith("_std") and name not in HIDDEN and not (name == "variant" and (rows[name] == "").all()):
            text[NAMES.get(name, name)] = rows[name].map(FORMATS.get(name, str), na_action="ignore")
    if "source" in rows:
        text["commit"] += rows["source"].map({"earlier": "\\*"}).fillna("")
    return pd.DataFrame(text)


def _arranged(name: str, rows: pd.DataFrame, text: pd.DataFrame) -> pd.DataFrame:
    """The lines as they are; recipes by protocols in table cross, a column a step in table continual."""
    if name == "cross":
        return text.pivot(index="recipe", columns="protocol", values="final").reset_index()
    if name == "continual":
        run = [column for column in text if column not in ("step", "classes", "accuracy", "baseline", "improvement")]
        wide = text.assign(classes=text["classes"] + " classes").pivot(index=run, columns="classes", values="accuracy")
        last = text[rows["step"] == rows["step"].max()].set_index(run)["improvement"]
        return wide[(rows["classes"].astype(str) + " classes").unique()].assign(improvement=last).reset_index()
    return text


def _not_run(rows: pd.DataFrame, footnotes: Footnotes) -> list[str]:
    """The paper's cells that did not run here, one line for every dataset and IPC."""
    if rows.empty:
        return []
    method = (rows["recipe"] + " " + (rows["variant"] if "variant" in rows.columns else "")).str.strip()
    rows = rows.assign(method=method, figure=plus_minus(rows, "reported"), notes=rows.apply(footnotes.numbers, axis=1))
    items = []
    groups: Any = rows.groupby(["dataset", "ipc"])
    for (dataset, ipc), block in groups:
        methods = []
        for name, figures in block.groupby("method"):
            shared = [n for n in figures["notes"].iloc[0] if all(n in numbers for numbers in figures["notes"])]
            own = figures["notes"].map(lambda numbers, s=shared: references([n for n in numbers if n not in s]))
            methods.append(
                f"**{name}**{references(shared)} " + ", ".join(figures["student"] + " " + figures["figure"] + own)
            )
        items.append(f"- {DATASETS[dataset]}, IPC {images(ipc)}: {'; '.join(methods)}")
    whose = "The paper's figures."
    if "reported_source" in rows and rows["reported_source"].any():
        whose = "Published figures: the paper's, where no footnote has another source."
    return ["## Not run here", whose, "\n".join(items)]


def grid(columns: Any) -> str:
    """A Markdown table of a frame, or of columns by name; a missing value is an empty cell."""
    frame = pd.DataFrame({str(name): list(values) for name, values in columns.items()}).astype(object).fillna("")
    lines = [frame.columns, ["---"] * len(frame.columns), *frame.to_numpy()]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def spread(mean: float, deviation: float) -> str:
    """A mean with its standard deviation, if there are any."""
    return "" if pd.isna(mean) else f"{mean:.1f}" + ("" if pd.isna(deviation) else f" ± {deviation:.1f}")


def plus_minus(rows: pd.DataFrame, name: str, form: Callable[[float, float], str] = spread) -> pd.Series:
    """ "12.3 ± 0.4", or nothing where nothing ran; in the form of :func:`spread` or another."""
    mean, deviation = f"{name}_mean" if f"{name}_mean" in rows else name, f"{name}_std"
    pairs = rows.reindex(columns=[mean, deviation]).to_numpy(dtype=float)
    return pd.Series([form(*pair) for pair in pairs], rows.index, dtype=object)


def three_digits(mean: float, deviation: float) -> str:
    """A mean of any size with its standard deviation, if there is one."""
    return f"{mean:.3g}" + ("" if pd.isna(deviation) else f" ± {deviation:.2g}")


def verdicts(rows: pd.DataFrame, name: str) -> pd.Series:
    """Differences, in brackets where none is shown, and nothing with one seed."""
    signs, clear = rows[name].map(signed), rows[CLEAR[name]]
    return signs.mask(clear == "no", "(" + signs + ")").mask(clear == "", "")


UNTRAINED = "not trained to the end"


def untrained(row: Mapping[Any, Any], form: str) -> str:
    """The mark of a student that is not trained to the end in such brackets, else nothing."""
    return form.format(f"{UNTRAINED}: {row['steps']:,} steps") if row["trained"] == "no" else ""


def bold(rows: pd.DataFrame, name: str) -> pd.Series:
    """Means and deviations, the best of several images in bold where not all are the same; never the whole dataset."""
    text, means = plus_minus(rows, name), rows[f"{name}_mean"].where(rows["ipc"] > 0)
    if name == "baseline":
        return text.mask(rows["recipe"] == RANDOM, "")
    if name in ("forgetting", "before"):
        return text
    crossed = ["protocol", "steps"] if "regime" in rows else []
    crossed += ["share", "variant"] if "share" in rows else []
    groups = ["dataset", "ipc", "student", *(name for name in (*crossed, "step", "ratio") if name in rows)]
    by_group = means.groupby([rows[column] for column in groups])
    best = (means == by_group.transform("max")) & (by_group.transform("min") < by_group.transform("max"))
    return text.mask(best, "**" + text + "**")


def signed(value: float) -> str:
    """A difference with its sign, which is never that of a negative zero."""
    return "" if pd.isna(value) else f"{round(value, 1) + 0.0:+.1f}"


def images(ipc: int) -> str:
    """Images per class."""
    return str(ipc) if ipc else "all"


def kilobytes(value: float) -> str:
    """Bytes as kB."""
    return f"{value / 1000:.1f}"


def fraction(share: float) -> str:
    """A share, small ones as one part of a whole number."""
    return f"1/{float(f'{1 / share:.2g}'):.0f}" if share < 0.4 else f"{share:.2g}"


def device(rows: pd.DataFrame) -> pd.Series:
    """Where runs computed, with how many threads of a CPU and in which precision."""
    threads = ["" if pd.isna(n) else f", {n} thread" + ("" if n == 1 else "s") for n in rows["threads"]]
    return rows["device"] + threads + (", " + rows["precision"]).mask(rows["precision"] == "float32", "")


NAMES = {
    "image_bytes": "image kB", "label_bytes": "label kB", "teacher_bytes": "teacher kB", "seconds": "s", "macs": "MMAC",
    "sparsity": "L1", "with_choice": "with", "without_choice": "without", "relative": "relative, %",
}  # fmt: skip
FORMATS: dict[str, Callable[[Any], str]] = {
    "ipc": images, "difference": signed, "image_bytes": kilobytes, "label_bytes": kilobytes, "teacher_bytes": kilobytes,
    "share": fraction, "seconds": "{:.0f}".format,
    "ratio": "{:g}".format, "keep": "{:g}".format, "sparsity": "{:g}".format, "commit": lambda commit: commit[:7],
    "macs": lambda macs: f"{macs / 1e6:.2f}",
}  # fmt: skip


def title(dataset: str) -> str:
    """How a dataset is called beside its numbers; its name where its file is gone."""
    try:
        return str(read("datasets", dataset).title)
    except EdcError:
        return dataset
