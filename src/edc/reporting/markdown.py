"""The tables for people: mean ± standard deviation, the best in bold, the paper's figures, seconds where known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from edc.errors import EdcError
from edc.reporting.evaluations import Evaluation
from edc.reporting.footnotes import Numbered, references
from edc.reporting.render import Page, Section, table
from edc.reporting.reported import DATASETS
from edc.reporting.scores import trainings
from edc.config.files import read
from edc.reporting.tabulate import RANDOM, Table

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
    "continual": "Continual learning from condensed images (the paper's Figure 4, right)",
    "slimming": "Data-free network slimming (the paper's Figure 4, left)",
}
PERCENT = "Top-1 test accuracy in percent, mean ± standard deviation over the seeds."
NOTES = {
    "cross": f"{PERCENT} Within a row only the protocol differs, within a column only the images.",
    "scores": (
        "As DD-Ranking defines them, on fractions (its code feeds percentages). hlr: real_hard - condensed_hard; ior: "
        "condensed_own - random_own; lrs: (e^a - e^-1) / (e - e^-1) with a = (ior - hlr) / 2. Empty where a part did "
        "not run: real_hard is recipe `full` with hard labels, random_own random images taught alike. "
        f"DD-Ranking trains {trainings(3)} students for one such score; these are made of evaluations that ran anyway."
    ),
}
ELSEWHERE = (
    "IN-1k: the paper's figure on ImageNet-1k for the same recipe and variant, with its student in brackets where that "
    "is another. Away from ImageNet-1k only the order of the variants can be compared."
)
BEST = "Bold: the best of several condensed sets of one dataset, IPC and student."


def page(name: str, made: Table, found: list[Evaluation], cost: list[dict[str, Any]] | None = None) -> Page:
    """All there is to say about one table.

    Args:
        name: of the table.
        made: its rows.
        found: the evaluations it was made of.
        cost: what every run took; None: leave times out.
    """
    if name == "table1":
        return table1(made, found, cost)
    if name == "cross":
        return Page(HEADINGS[name], [*crossed(made.rows), Section(text=(NOTES[name],))])
    return other(name, made)


def table1(made: Table, found: list[Evaluation], cost: list[dict[str, Any]] | None = None) -> Page:
    """Table 1, a section a dataset, and the paper's cells that did not run here in a block at the end."""
    times = {row["run"]: row for row in cost or [] if row["stage"] == "evaluate"}
    runs = {(*one.cell, one.protocol): one.run for one in found if not one.variant}
    head = ["IPC", "student", "recipe", "protocol", "seeds", "final", "best", "fixed labels", "hard labels", "random"]
    head += ["gain", "paper", "difference", "image kB", "label kB", "steps"]
    head += ["s", "commit"] if cost is not None else []
    ran, not_run = parted(made.rows)
    notes, sections = Numbered("table1"), []
    for name, part in groupby(ran, key=lambda row: str(row["dataset"])):
        rows, body, timed = list(part), [], []
        best = {column: bests(rows, column) for column in ("final", "best", "static", "hard")}
        for row in rows:
            run = runs[row["dataset"], row["recipe"], row["ipc"], row["student"], row["protocol"]]
            timed.append(times.get(run, {}))
            cells = [images(row["ipc"]), row["student"], row["recipe"], row["protocol"], row["seeds"]]
            cells += [strong(plus_minus(row, column), best[column], row) for column in best]
            cells += ["", ""] if row["recipe"] == RANDOM else [plus_minus(row, "random"), signed(row["gain"])]
            cells += [plus_minus(row, "reported", "") + notes.mark(row), signed(row["difference"])]
            cells += [f"{row['image_bytes'] / 1000:.1f}", f"{row['label_bytes'] / 1000:.1f}", row["steps"]]
            seconds = [f"{timed[-1]['seconds']:.0f}", str(timed[-1]["commit"])[:7]] if timed[-1] else ["", ""]
            body.append(cells + (seconds if cost is not None else []))
        text = [
            "Top-1 test accuracy in percent, mean ± standard deviation over the seeds; last epoch, and the best of the",
            "epochs looked at. random: random real images taught alike (same training, labellers, views); gain: last",
            "minus that.",
        ]
        text += [BEST] if any(best.values()) else []
        if cost is not None:
            devices = "; ".join(sorted({str(row["device"]) for row in timed if row}))
            text += [f"s: seconds of the whole evaluation, all seeds, {devices or 'not recorded'}; commit: its own."]
        sections.append(Section(title(name), table(head, body), tuple(text)))
    sections += absent(not_run, notes)
    return Page(HEADINGS["table1"], sections, tuple(notes.texts))


def other(name: str, made: Table) -> Page:
    """Any other table: its columns as they are, mean and deviation in one, the paper's cells that did not run last."""
    ran, not_run = parted(made.rows) if "final_mean" in made.columns else (made.rows, [])
    notes = Numbered(name)
    if not ran:
        sections = [Section(text=("Nothing ran here.",)), *absent(not_run, notes)]
        return Page(HEADINGS[name], sections, tuple(notes.texts))
    means = {"final_mean": "final", "best_mean": "best", "reported": "paper", "reported_imagenet1k": "IN-1k"}
    columns = [c for c in made.columns if not c.endswith("_std") and c != "reported_student"]
    best = {column: bests(ran, column.removesuffix("_mean")) for column in columns if column.endswith("_mean")}
    body = []
    for row in ran:
        cells = [strong(shown(row, column), best.get(column, set()), row) for column in columns]
        if "reported" in columns:
            cells[columns.index("reported")] += notes.mark(row)
        body.append(cells)
    text = [NOTES.get(name, PERCENT)]
    text += [BEST] if any(best.values()) else []
    text += [ELSEWHERE] if "reported_imagenet1k" in columns else []
    text += [f"{name}: {title(name)}." for name in column(ran, "dataset") if title(name) != name]
    grid = table([means.get(column, column) for column in columns], body)
    return Page(HEADINGS[name], [Section("", grid, tuple(text)), *absent(not_run, notes)], tuple(notes.texts))


def crossed(rows: Rows) -> list[Section]:
    """A grid of recipes and protocols for every dataset, number of images and student."""
    sections = []
    for (dataset, ipc, student), part in groupby(rows, key=lambda row: (row["dataset"], row["ipc"], row["student"])):
        mine = list(part)
        best = {protocol: bests([r for r in mine if r["protocol"] == protocol], "final") for protocol in column(mine)}
        cells = {(r["recipe"], r["protocol"]): strong(plus_minus(r, "final"), best[r["protocol"]], r) for r in mine}
        recipes, protocols = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
        body = [[recipe, *(cells.get((recipe, protocol), "") for protocol in protocols)] for recipe in recipes]
        sections.append(Section(f"{title(dataset)}, IPC {ipc}, {student}", table(["recipe", *protocols], body)))
    return sections or [Section(text=("Nothing was crossed here.",))]


def column(rows: Rows, name: str = "protocol") -> list[Any]:
    """The values of a column, each once."""
    return list(dict.fromkeys(row[name] for row in rows))


def parted(rows: Rows) -> tuple[Rows, Rows]:
    """Rows that ran here, and those that only the paper has."""
    return [row for row in rows if row["seeds"] is not None], [row for row in rows if row["seeds"] is None]


def bests(rows: Rows, score: str, groups: Iterable[str] = ("dataset", "ipc", "student")) -> set[int]:
    """Identities of the rows that are the best of a group of several; nowhere where all are the same, and never the
    whole dataset."""
    members: dict[tuple[Any, ...], Rows] = defaultdict(list)
    for row in rows:
        if row["ipc"] and row[f"{score}_mean"] is not None:
            members[tuple(row[name] for name in groups)].append(row)
    found = set()
    for group in members.values():
        values = [row[f"{score}_mean"] for row in group]
        if min(values) < max(values):
            found |= {id(row) for row in group if row[f"{score}_mean"] == max(values)}
    return found


def strong(text: str, best: set[int], row: Mapping[str, Any]) -> str:
    """In bold, if it is the best."""
    return f"**{text}**" if text and id(row) in best else text


def absent(rows: Rows, notes: Numbered) -> list[Section]:
    """The paper's cells that did not run here, one line for every dataset and number of images."""
    if not rows:
        return []
    groups: dict[tuple[str, int], dict[str, Rows]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        method = " ".join(filter(None, (row["recipe"], row.get("variant"))))
        groups[row["dataset"], row["ipc"]][method].append(row)
    items = []
    for (dataset, ipc), methods in groups.items():
        cells = "; ".join(_figures(method, mine, notes) for method, mine in sorted(methods.items()))
        items.append(f"{DATASETS[dataset]}, IPC {images(ipc)}: {cells}")
    return [Section("Not run here", None, ("The paper's figures.",), tuple(items))]


def _figures(method: str, rows: Rows, notes: Numbered) -> str:
    """The paper's figures of one method; what is to be said of all of them is said once."""
    numbers = [notes.of(row) for row in rows]
    shared = [number for number in numbers[0] if all(number in others for others in numbers)]
    cells = [
        f"{row['student']} {plus_minus(row, 'reported', '')}{references(n for n in mine if n not in shared)}"
        for row, mine in zip(rows, numbers, strict=True)
    ]
    return f"**{method}**{references(shared)} {', '.join(cells)}"


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
