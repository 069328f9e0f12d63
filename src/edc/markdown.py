"""The tables for people: Markdown with mean ± standard deviation, and seconds and device where they are known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from edc.errors import EdcError
from edc.evaluations import Evaluation
from edc.reported import DATASETS
from edc.scores import trainings
from edc.studies import read
from edc.tabulate import RANDOM, Table

Rows = list[dict[str, Any]]

HEADINGS = {
    "table1": "Accuracy of students trained on condensed sets",
    "table2": "Students of other architectures (the paper's Table 2)",
    "table3": "Schedules and batches (the paper's Table 3)",
    "table4": "Flatness regularisation (the paper's Table 4)",
    "table5": "Soft category-aware matching, weak augmentation, EMA (the paper's Table 5)",
    "table22": "ImageNet-21k (the paper's Table 22)",
    "variants": "Variants that the paper does not have",
    "cross": "Recipes crossed with protocols",
    "scores": "Label-robust scores",
}
PERCENT = "Top-1 test accuracy in percent, mean ± standard deviation over the seeds."
NOTES = {
    "cross": f"{PERCENT} Within a row only the protocol differs, within a column only the images.",
    "scores": (
        "As DD-Ranking defines them, on fractions (its code feeds percentages). hlr: real_hard - condensed_hard; ior: "
        "condensed_own - random_own; lrs: (e^a - e^-1) / (e - e^-1) with a = (ior - hlr) / 2. Empty where a part did "
        "not run: real_hard is recipe `full` with hard labels, random_own random images under the same protocol. "
        f"DD-Ranking trains {trainings(3)} students for one such score; these are made of evaluations that ran anyway."
    ),
}
ELSEWHERE = (
    "IN-1k: the paper's figure on ImageNet-1k for the same recipe and variant, with its student in brackets where that "
    "is another. Away from ImageNet-1k only the order of the variants can be compared."
)


def table1(table: Table, found: list[Evaluation], cost: list[dict[str, Any]]) -> str:
    """Table 1, a section a dataset, and the paper's cells that did not run here in a block at the end."""
    times = {row["run"]: row for row in cost if row["stage"] == "evaluate"}
    runs = {(*one.cell, one.protocol): one.run for one in found if not one.variant}
    head = ["IPC", "student", "recipe", "protocol", "last", "best", "fixed labels", "hard labels", "random", "gain"]
    head += ["paper", "difference", "image kB", "label kB", "steps", "s"]
    ran, not_run = parted(table.rows)
    lines = [f"# {HEADINGS['table1']}", ""]
    for name, part in groupby(ran, key=lambda row: str(row["dataset"])):
        rows, body, made = list(part), [], []
        for row in rows:
            made.append(times.get(runs[row["dataset"], row["recipe"], row["ipc"], row["student"], row["protocol"]], {}))
            cells = [images(row["ipc"]), row["student"], row["recipe"], row["protocol"]]
            cells += [plus_minus(row, column) for column in ("last", "best", "fixed", "hard")]
            cells += ["", ""] if row["recipe"] == RANDOM else [plus_minus(row, "random"), signed(row["gain"])]
            cells += [plus_minus(row, "reported", ""), signed(row["difference"])]
            cells += [f"{row['image_bytes'] / 1000:.1f}", f"{row['label_bytes'] / 1000:.1f}", row["steps"]]
            body.append([*cells, f"{made[-1]['seconds']:.0f}" if made[-1] else ""])
        seeds = ", ".join(str(count) for count in sorted({row["seeds"] for row in rows}))
        devices = "; ".join(sorted({str(row["device"]) for row in made if row}))
        commits = ", ".join(sorted({str(row["commit"])[:10] for row in cost if row["dataset"] == name}))
        lines += [f"## {title(name)}", "", *grid(head, body), ""]
        lines += [
            f"Top-1 test accuracy in percent, mean ± standard deviation over {seeds} seeds; last epoch, and the",
            "best of the epochs looked at. random: random real images under the same protocol; gain: last minus that.",
            f"s: seconds of the whole evaluation, all seeds, {devices or 'not recorded'}.",
            f"Made at commit {commits or 'not recorded'}.",
            "",
        ]
    return "\n".join(lines + absent(not_run))


def other(name: str, table: Table) -> str:
    """Any other table: its columns as they are, mean and deviation in one, the paper's cells that did not run last."""
    if name == "cross":
        return "\n".join([f"# {HEADINGS[name]}", "", *crossed(table.rows), NOTES[name], ""])
    ran, not_run = parted(table.rows) if "last_mean" in table.columns else (table.rows, [])
    lines = [f"# {HEADINGS[name]}", ""]
    if not ran:
        return "\n".join([*lines, "Nothing ran here.", "", *absent(not_run)])
    means = {"last_mean": "last", "best_mean": "best", "reported": "paper", "reported_imagenet1k": "IN-1k"}
    columns = [c for c in table.columns if not c.endswith("_std") and c != "reported_student"]
    body = [[shown(row, column) for column in columns] for row in ran]
    lines += [*grid([means.get(column, column) for column in columns], body), "", NOTES.get(name, PERCENT)]
    if "reported_imagenet1k" in columns:
        lines.append(ELSEWHERE)
    return "\n".join([*lines, "", *absent(not_run)])


def crossed(rows: Rows) -> list[str]:
    """A grid of recipes and protocols for every dataset, number of images and student."""
    lines = []
    for (dataset, ipc, student), part in groupby(rows, key=lambda row: (row["dataset"], row["ipc"], row["student"])):
        cells = {(row["recipe"], row["protocol"]): plus_minus(row, "last") for row in part}
        recipes, protocols = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
        body = [[recipe, *(cells.get((recipe, protocol), "") for protocol in protocols)] for recipe in recipes]
        lines += [f"## {title(dataset)}, IPC {ipc}, {student}", "", *grid(["recipe", *protocols], body), ""]
    return lines or ["Nothing was crossed here.", ""]


def parted(rows: Rows) -> tuple[Rows, Rows]:
    """Rows that ran here, and those that only the paper has."""
    return [row for row in rows if row["seeds"] is not None], [row for row in rows if row["seeds"] is None]


def absent(rows: Rows) -> list[str]:
    """The paper's cells that did not run here, one line for every dataset and number of images."""
    if not rows:
        return []
    groups: dict[tuple[str, int], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        method = " ".join(filter(None, (row["recipe"], row.get("variant"))))
        groups[row["dataset"], row["ipc"]][method].append(f"{row['student']} {plus_minus(row, 'reported', '')}")
    lines = ["## Not run here", "", "The paper's figures.", ""]
    for (dataset, ipc), methods in groups.items():
        cells = "; ".join(f"**{method}** {', '.join(students)}" for method, students in sorted(methods.items()))
        lines.append(f"- {DATASETS[dataset]}, IPC {images(ipc)}: {cells}")
    return [*lines, ""]


def grid(head: list[str], body: list[list[Any]]) -> list[str]:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return ["| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines]


def shown(row: Mapping[str, Any], column: str) -> str:
    """One cell of a table that is shown with its own columns."""
    if column == "reported" or column.endswith("_mean"):
        return plus_minus(row, column.removesuffix("_mean"), "" if column == "reported" else "_mean")
    value = row[column]
    if value is None:
        return ""
    if column == "difference":
        return signed(value)
    if column == "reported_imagenet1k":
        student = row["reported_student"]
        return f"{value:.1f}" if row["student"].endswith(student) else f"{value:.1f} ({student})"
    return images(value) if column == "ipc" else str(value)


def title(dataset: str) -> str:
    """How a dataset is called beside its numbers."""
    try:
        return str(read("datasets", dataset).title)
    except EdcError:
        return dataset  # its file is gone, its results are not


def images(ipc: int) -> str:
    """Images per class."""
    return str(ipc) if ipc else "all"


def plus_minus(row: Mapping[str, Any], column: str, ending: str = "_mean") -> str:
    """ "12.3 ± 0.4", or nothing where nothing ran."""
    mean, deviation = row[column + ending], row.get(f"{column}_std")
    if mean is None:
        return ""
    return f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"


def signed(value: float | None) -> str:
    """A difference with its sign."""
    return "" if value is None else f"{value:+.1f}"
