"""Both applications for people: pages of their tables, and the two plots of the paper's Figure 4."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from edc.reporting.figures import new_figure, save_figure
from edc.reporting.markdown import HEADINGS, Rows, bests, column, images, plus_minus, signed, strong, title
from edc.reporting.render import Page, Section, table
from edc.reporting.tabulate import FULL, RANDOM, Table

PAPER = (
    "The paper's Figure 4 (ImageNet-1k, VGG-11, bars): SRe2L 12.5 and EDC 25.0 at IPC 10, SRe2L 31.7 and EDC 47.1 at "
    "IPC 50. It does not say which share of the channels is removed, nor how sparsity is trained."
)
WIDTH, HEIGHT = 5.0, 3.8
"""Of one panel, inches."""


def continual_page(made: Table) -> Page:
    """Accuracy after every step, a section for every dataset, student and number of steps."""
    sections = []
    for (dataset, student, steps), rows in _panels(made, "steps"):
        best, overall = bests(rows, "accuracy", ("ipc", "step")), bests(rows, "average", ("ipc",))
        body = []
        for run in _runs(rows):
            cells = [run[0]["recipe"], images(run[0]["ipc"]), run[0]["protocol"]]
            cells += [strong(plus_minus(row, "accuracy"), best, row) for row in run]
            cells += [strong(plus_minus(run[-1], "average"), overall, run[-1]), plus_minus(run[-1], "forgetting")]
            cells += [signed(run[-1]["gain"]) if run[-1]["recipe"] != RANDOM else ""]
            cells += [f"{run[-1]['image_bytes'] / 1000:.1f}", f"{run[-1]['label_bytes'] / 1000:.1f}"]
            body.append(cells)
        head = ["recipe", "IPC", "protocol", *(f"{row['classes']} classes" for row in run)]
        head += ["average", "forgetting", "gain", "image kB", "label kB"]
        counts = " and ".join(_counts(rows, name) for name in ("orders", "seeds"))
        text = (
            f"Top-1 accuracy in percent on the test images of all classes seen so far, mean ± standard deviation over "
            f"{counts}.",
            "In each step a fresh student learns from the images of those classes alone. forgetting: by how much the "
            "portions end below their best before the last step, in points; gain: the last step minus random images'.",
        )
        sections.append(Section(f"{title(dataset)}, {student}, {steps} steps", table(head, body), text))
    return Page(HEADINGS["continual"], sections or [Section(text=("Nothing ran here.",))])


def slimming_page(made: Table) -> Page:
    """Accuracy and size at every pruning ratio, a section for every dataset and student."""
    head = ["recipe", "IPC", "protocol", "L1", "ratio", "as cut", "fine-tuned", "gain"]
    head += ["channels", "parameters", "MMAC"]
    sections = []
    for (dataset, student), rows in _panels(made):
        best = bests(rows, "finetuned", ("ipc", "ratio"))
        body = []
        for row in rows:
            cells = [row["recipe"], images(row["ipc"]), row["protocol"], f"{row['sparsity']:g}", f"{row['ratio']:g}"]
            cells += [plus_minus(row, "pruned"), strong(plus_minus(row, "finetuned"), best, row)]
            cells += [signed(row["gain"]) if row["recipe"] != RANDOM else "", row["channels"], row["parameters"]]
            body.append([*cells, f"{row['macs'] / 1e6:.2f}"])
        text = (
            "Top-1 test accuracy in percent, mean ± standard deviation over "
            f"{_counts(rows, 'seeds')}; ratio 0 is the whole network after its training with an L1 norm on the "
            "BN scales.",
            "gain: fine-tuned minus random images' at the same ratio. Parameters and multiply-accumulates of one image "
            "are counted on the smaller network itself.",
        )
        sections.append(Section(f"{title(dataset)}, {student}", table(head, body), text))
    return Page(HEADINGS["slimming"], [*(sections or [Section(text=("Nothing ran here.",))]), Section(text=(PAPER,))])


def draw(folder: Path, made: dict[str, Table]) -> None:
    """Write both plots: a panel for every dataset and student, a curve for every recipe."""
    panels = [(f"{title(d)}, {s}, {n} steps", rows) for (d, s, n), rows in _panels(made["continual"], "steps")]
    path = folder / "figure4_continual.png"
    _plot(path, panels, ("classes", "accuracy"), ("classes seen", "accuracy on them, %"))
    panels = [(f"{title(dataset)}, {student}", rows) for (dataset, student), rows in _panels(made["slimming"])]
    path = folder / "figure4_slimming.png"
    _plot(path, panels, ("ratio", "finetuned"), ("share of channels removed", "test accuracy, %"))


def _plot(path: Path, panels: list[tuple[str, Rows]], names: tuple[str, str], axes: tuple[str, str]) -> None:
    recipes = sorted({row["recipe"] for _, rows in panels for row in rows} - {RANDOM, FULL})
    styles: dict[str, dict[str, Any]] = {name: {"color": f"C{place}"} for place, name in enumerate(recipes)}
    styles |= {RANDOM: {"color": "0.45", "linestyle": "--"}, FULL: {"color": "black", "linestyle": ":"}}
    figure = new_figure(WIDTH * max(1, len(panels)), HEIGHT)
    for place, (name, rows) in enumerate(panels):
        panel = figure.add_subplot(1, len(panels), place + 1)
        for run in _runs(rows):
            style = styles[run[0]["recipe"]]
            x, mean = [row[names[0]] for row in run], [row[f"{names[1]}_mean"] for row in run]
            panel.plot(x, mean, marker=".", label=_label(run[0], rows), **style)
            deviations = [row[f"{names[1]}_std"] for row in run]
            if None not in deviations:
                low, high = ([m + s * d for m, d in zip(mean, deviations, strict=True)] for s in (-1, 1))
                panel.fill_between(x, low, high, alpha=0.15, color=style["color"])
        panel.set_title(name, fontsize="medium")
        panel.set_xlabel(axes[0])
        panel.set_ylabel(axes[1])
        panel.legend(fontsize="small")
    if not panels:
        figure.text(0.5, 0.5, "nothing ran here", ha="center", va="center")
    save_figure(path, figure)


def _label(row: dict[str, Any], rows: Rows) -> str:
    """What tells a curve from the others of its panel."""
    parts = [row["recipe"]]
    if row["ipc"] and len({other["ipc"] for other in rows if other["ipc"]}) > 1:
        parts.append(f"IPC {row['ipc']}")
    for name in ("protocol", "sparsity", "epochs", "finetune"):
        if name in row and len({other[name] for other in rows if other["recipe"] == row["recipe"]}) > 1:
            parts.append(str(row[name]) if name == "protocol" else f"{name} {row[name]:g}")
    return ", ".join(parts)


def _panels(made: Table, *more: str) -> Iterator[tuple[tuple[Any, ...], Rows]]:
    names = ("dataset", "student", *more)
    rows = sorted(made.rows, key=lambda row: tuple(row[name] for name in names))
    for key, part in groupby(rows, key=lambda row: tuple(row[name] for name in names)):
        yield key, list(part)


def _runs(rows: Rows) -> Iterator[Rows]:
    """The rows of every run, in order."""
    names = ("ipc", "recipe", "protocol", "regime", "sparsity", "epochs", "finetune")
    for _, part in groupby(rows, key=lambda row: tuple(row.get(name) for name in names)):
        yield list(part)


def _counts(rows: Rows, name: str) -> str:
    counts = sorted(column(rows, name))
    return " or ".join(map(str, counts)) + f" {name if counts != [1] else name.removesuffix('s')}"
