"""What the report draws: accuracy against bytes and seconds, learning curves, and the two applications."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from edc.reporting.evaluations import Evaluation
from edc.reporting.markdown import images, title
from edc.reporting.report.charts import Axis, Point, Series, chart
from edc.reporting.report.gather import Results, Run
from edc.reporting.report.markup import Html

REGIMES = ("soft", "static", "hard")  # shape of the marks
ACCURACY = Axis("test accuracy, %")
BAR = "Bars: standard deviation over the seeds."
BAND = "Bands: standard deviation over the seeds."


def trade_offs(results: Results) -> list[Html]:
    """Accuracy against bytes of labels and against seconds, for every dataset and student."""
    groups: dict[tuple[str, str], list[Evaluation]] = defaultdict(list)
    for one in results.evaluations:
        if not one.variant and one.ipc:
            groups[one.dataset, one.student].append(one)
    made = []
    rows = {run.key: run.row for run in results.of("evaluate")}
    axes: list[tuple[Axis, Callable[[Evaluation], float], str]] = [
        (Axis("bytes of labels", logarithmic=True), lambda one: one.label_bytes, "Along a line: images per class."),
        (
            Axis("seconds", logarithmic=True),
            lambda one: taken(results, one.run, rows[one.run]),
            "Making the images and labels, and training all seeds; observers and statistics are not in it.",
        ),
    ]
    for (dataset, student), found in sorted(groups.items()):
        for axis, cost, note in axes:
            lines = [
                Series(
                    f"{recipe}, {protocol}",
                    results.recipes.index(recipe),
                    REGIMES.index(part[0].regime),
                    [
                        Point(
                            cost(one), one.final_mean, one.final_std, about(f"{recipe}, {protocol}, IPC {one.ipc}", one)
                        )
                        for one in sorted(part, key=lambda one: one.ipc)
                        if cost(one) > 0
                    ],
                )
                for (recipe, protocol), part in by(found, lambda one: (one.recipe, one.protocol), results)
            ]
            heading = f"{title(dataset)}, {student}: accuracy against {axis.title}"
            made.append(chart(heading, axis, ACCURACY, [line for line in lines if line.points], f"{note} {BAR}"))
    return made


def taken(results: Results, run: str, row: dict[str, Any]) -> float:
    """Seconds for the images, the labels and the students of an evaluation, 0 where one is not recorded."""
    parts = [("evaluate", run), ("synthesize", row.get("images")), ("relabel", row.get("labels"))]
    found = [results.seconds.get((stage, name)) for stage, name in parts if name is not None]
    return 0.0 if None in found else sum(value or 0.0 for value in found)


def about(name: str, one: Evaluation) -> str:
    """What a reader is told of an evaluation."""
    spread = "" if one.final_std is None else f" ± {one.final_std:.1f}"
    return f"{name}: {one.final_mean:.1f}{spread} %, {one.label_bytes:,} bytes of labels"


def by(
    found: Iterable[Evaluation], key: Callable[[Evaluation], tuple[str, str]], results: Results
) -> list[tuple[tuple[str, str], list[Evaluation]]]:
    """Evaluations by recipe and protocol, recipes in the report's order."""
    groups: dict[tuple[str, str], list[Evaluation]] = defaultdict(list)
    for one in found:
        groups[key(one)].append(one)
    return sorted(groups.items(), key=lambda group: (results.recipes.index(group[0][0]), group[0][1]))


def learning_curves(results: Results) -> list[Html]:
    """Test accuracy over the epochs, for every dataset, number of images and student."""
    runs = {run.key: run for run in results.of("evaluate")}
    groups: dict[tuple[str, str, int], list[Evaluation]] = defaultdict(list)
    for one in results.evaluations:
        if not one.variant:
            groups[one.dataset, one.student, one.ipc].append(one)
    made = []
    for (dataset, student, ipc), found in sorted(groups.items()):
        lines = []
        for (recipe, protocol), (one, *_) in by(found, lambda one: (one.recipe, one.protocol), results):
            name = f"{recipe}, {protocol}"
            points = over_epochs(runs[one.run], name)
            lines.append(Series(name, results.recipes.index(recipe), REGIMES.index(one.regime), points, band=True))
        heading = f"{title(dataset)}, IPC {images(ipc)}, {student}"
        made.append(chart(heading, Axis("epoch"), ACCURACY, lines, BAND))
    return made


def over_epochs(run: Run, name: str) -> list[Point]:
    """Mean and spread over the seeds at every epoch at which the test set was looked at."""
    tested: dict[float, list[float]] = defaultdict(list)
    for line in run.history(("epoch", "test_accuracy")):
        if line["epoch"] is not None and line["test_accuracy"] is not None:
            tested[line["epoch"] + 1].append(line["test_accuracy"])
    points = []
    for epoch, values in sorted(tested.items()):
        spread = statistics.stdev(values) if len(values) > 1 else None
        mean = statistics.fmean(values)
        points.append(Point(epoch, mean, spread, f"{name}, epoch {epoch:g}: {mean:.1f} %"))
    return points


def applied(rows: list[dict[str, Any]], *names: str) -> list[tuple[str, dict[tuple[str, str], list[dict[str, Any]]]]]:
    """Rows of an application by chart, and in it by recipe and protocol.

    Args:
        rows: of its table.
        names: columns whose values must agree in one chart, besides dataset, student and images per class. The whole
            dataset, a ceiling, stands in the charts of every number of images.
    """
    shared = ("dataset", "student", *names)
    settings = dict.fromkeys((*(row[name] for name in shared), row["ipc"]) for row in rows)
    counts = {key[:-1] for key in settings if key[-1]}
    found = []
    for key in sorted(key for key in settings if key[-1] or key[:-1] not in counts):
        part: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            if tuple(row[name] for name in shared) == key[:-1] and row["ipc"] in (key[-1], 0):
                part[row["recipe"], row["protocol"]].append(row)
        found.append((f"{title(str(key[0]))}, IPC {images(key[-1])}, {key[1]}", part))
    return found


def incremental(results: Results) -> list[Html]:
    """Figure 4, right: accuracy on all classes seen so far, over the steps."""
    made = []
    for heading, part in applied(results.rows("continual"), "steps"):
        lines, steps = [], 0
        for (recipe, protocol), rows in part.items():
            steps, name = rows[0]["steps"], f"{recipe}, {protocol}"
            shape = REGIMES.index(rows[0]["regime"])
            points = measured(rows, "classes", "accuracy", name, "classes")
            lines.append(Series(name, results.recipes.index(recipe), shape, points, band=True))
        vertical = Axis("accuracy on them, %")
        note = "Bands: standard deviation over orders and seeds."
        made.append(chart(f"{heading}, {steps} steps", Axis("classes seen"), vertical, lines, note))
    return made


def slimmed(results: Results) -> list[Html]:
    """Figure 4, left: accuracy against the share of channels removed, after fine-tuning and as cut."""
    made = []
    for heading, part in applied(results.rows("slimming"), "sparsity", "epochs", "finetune"):
        lines = []
        for (recipe, protocol), rows in part.items():
            for shape, (kind, column) in enumerate((("fine-tuned", "finetuned"), ("as cut", "pruned"))):
                name = f"{recipe}, {protocol}, {kind}"
                points = measured(rows, "ratio", column, name, "of the channels removed")
                lines.append(Series(name, results.recipes.index(recipe), 2 * shape, points))
        made.append(chart(heading, Axis("share of channels removed"), ACCURACY, lines, BAR))
    return made


def measured(rows: list[dict[str, Any]], x: str, y: str, name: str, unit: str) -> list[Point]:
    """Points of two columns of a table, in the order of the first."""
    found = [row for row in rows if None not in (row[x], row[f"{y}_mean"])]
    return [
        Point(row[x], row[f"{y}_mean"], row[f"{y}_std"], f"{name}, {row[x]:g} {unit}: {row[f'{y}_mean']:.1f} %")
        for row in sorted(found, key=lambda row: row[x])
    ]
