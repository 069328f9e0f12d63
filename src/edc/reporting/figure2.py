"""Figure 2 of the paper on our runs: measurements kept in ``results/histories/``, their table and their figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from edc.errors import EdcError
from edc.reporting import record
from edc.reporting.evaluations import DECIMALS
from edc.reporting.figures import Points, draw, save_figure
from edc.reporting.intervals import paired
from edc.reporting.pages import title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANY = (-np.inf, np.inf)
MEASURED: dict[str, record.Columns] = {
    "hessian": {
        "draw": (record.INTEGER, record.COUNT), "regularise": (record.TEXT, None),
        "iteration": (record.INTEGER, record.COUNT), "norm": (record.NUMBER, record.COUNT),
        "norm_error": (record.NUMBER, record.COUNT), "step_norm": (record.NUMBER, record.COUNT),
        "step_error": (record.NUMBER, record.COUNT),
    },
    "landscape": {
        "schedule": (record.TEXT, None), "seed": (record.INTEGER, record.COUNT),
        "direction": (record.INTEGER, record.COUNT), "distance": (record.NUMBER, ANY), "val_loss": (record.NUMBER, ANY),
        "training_loss": (record.NUMBER, ANY),
    },
    "gradients": {
        "epoch": (record.INTEGER, record.COUNT), "images": (record.TEXT, None), "batch": (record.INTEGER, record.COUNT),
        "cosine_mean": (record.NUMBER, (-1, 1)), "cosine_std": (record.NUMBER, record.COUNT),
    },
}  # fmt: skip
"""Columns of what a run measures: of the Hessian, of the loss around students, of gradients of batches."""
RUN: record.Columns = {
    "dataset": (record.TEXT, None), "recipe": (record.TEXT, None), "ipc": (record.INTEGER, record.COUNT),
    "student": (record.TEXT, None), "protocol": (record.TEXT, None), "run": (record.TEXT, None),
}  # fmt: skip
SETTINGS = {"hessian": "step", "landscape": "radius"}
"""Of a run: over which step the gradient's differences are taken, and at which distance the rise of the loss is."""
POINTS = {
    "hessian": ["draw", "regularise", "iteration"],
    "landscape": ["schedule", "seed", "direction", "distance"],
    "gradients": ["epoch", "images", "batch"],
}
"""What tells the points of a run apart."""
HISTORIES: dict[str, record.Columns] = {
    name: RUN | ({SETTINGS[name]: (record.NUMBER, record.COUNT)} if name in SETTINGS else {}) | columns
    for name, columns in MEASURED.items()
}

LOSSES = {"val": "cross-entropy, held-out real images", "training": "student's loss, condensed images"}
CURVATURES = {"norm": "Hessian, exact", "step_norm": "Hessian, differences over {step:g}"}
COLUMNS = (
    "dataset", "recipe", "protocol", "ipc", "student", "measure", "choice", "draws", "with_choice", "with_choice_std",
    "without_choice", "without_choice_std", "relative", "relative_low", "relative_high", "relative_clear",
    "run",
)  # fmt: skip


def as_measured(name: str, lines: Any, values: Mapping[str, Any]) -> pd.DataFrame:
    """What a run measured, as a frame, with the setting that it depends on among the values the run was made with."""
    frame = pd.DataFrame(lines, columns=list(MEASURED[name]))
    if setting := SETTINGS.get(name):
        frame[setting] = values[name][setting]
    return frame


def kept(name: str) -> pd.DataFrame:
    """One of ``HISTORIES`` as it is kept in ``results/``.

    Raises:
        EdcError: the file is damaged: a value, or a point that is there twice or not at all.
    """
    path = record.history(name)
    remedy = record.restoring(path)
    frame = record.read_csv(path, HISTORIES[name], remedy)
    # A standard error is empty where it is of a single probe.
    values = frame[[column for column in HISTORIES[name] if not column.endswith("_error")]]
    wrong = frame.duplicated(["run", *POINTS[name]]) | values.isna().any(axis=1) | (values == "").any(axis=1)
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0]) + 2
        raise EdcError(f"{path}: line {line}: damaged, a point twice or a value missing; {remedy}")
    for run, rows in frame.groupby("run"):
        if rows.groupby(POINTS[name][0])[POINTS[name][-1]].agg(tuple).nunique() > 1:
            raise EdcError(f"{path}: {run}: damaged, not all points of each {POINTS[name][0]}; {remedy}")
    return frame


def recorded(histories: Mapping[str, pd.DataFrame], runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The lines of the histories whose analyses are among these rows of the record."""
    analyses = runs.loc[runs["stage"] == "analysis", "run"]
    return {name: frame[frame["run"].isin(analyses)] for name, frame in histories.items()}


def figure2(histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What a schedule does to the sharpness of students, and flatness regularisation to the curvature of synthesis.

    One line for every run and measure, mean and deviation over seeds or starts; ``relative``: the mean of the paired
    differences in percent of the mean without the choice.
    """
    lines = [line for _, rows in histories["landscape"].groupby("run") for line in _sharpness(rows)]
    lines += [line for _, rows in histories["hessian"].groupby("run") for line in _curvature(rows)]
    keys = ["dataset", "recipe", "protocol", "ipc", "student"]
    table = pd.DataFrame(lines, columns=list(COLUMNS)).sort_values(keys, kind="stable", ignore_index=True)
    return table.round(dict.fromkeys(("relative", "relative_low", "relative_high"), DECIMALS))


def sharpness(rows: pd.DataFrame) -> pd.DataFrame:
    """Losses at the weights, and their rises at the radius: means over both sides and the directions.

    Args:
        rows: of one run, as in ``HISTORIES["landscape"]``.

    Returns:
        Columns ``val_loss``, ``val_rise``, ``training_loss`` and ``training_rise`` by schedule and seed.
    """
    radius, losses = rows["radius"].iloc[0], [f"{name}_loss" for name in LOSSES]
    at = {
        place: rows[np.isclose(rows["distance"], place, atol=1e-5)].groupby(["schedule", "seed"], sort=False)[losses]
        for place in (0, radius, -radius)
    }
    least = at[0].mean()
    rise = (at[radius].mean() + at[-radius].mean()) / 2 - least
    return least.join(rise.rename(columns=lambda name: name.replace("_loss", "_rise")))


def _sharpness(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The lines of one run that compare schedules."""
    values, schedules = sharpness(rows), list(rows["schedule"].unique())
    for name, heading in LOSSES.items():
        for column, measure in (("loss", heading), ("rise", f"{heading}: rise at {rows['radius'].iloc[0]:g}")):
            both = (values.loc[schedule, f"{name}_{column}"] for schedule in (schedules[0], schedules[-1]))
            yield _line(rows, measure, schedules, *both)


def curvature(rows: pd.DataFrame) -> pd.DataFrame:
    """The Hessian's norms after the last iteration, ``norm`` and ``step_norm`` by regulariser and draw of one run."""
    ends = rows[rows["iteration"] == rows["iteration"].max()]
    return ends.set_index(["regularise", "draw"])[list(CURVATURES)]


def _curvature(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The lines of one run that compare regularisers."""
    values, methods = curvature(rows), list(rows["regularise"].unique())
    for column, measure in CURVATURES.items():
        both = (values.loc[method, column] for method in (methods[0], methods[-1]))
        yield _line(rows, measure.format(step=rows["step"].iloc[0]), methods, *both)


def _line(rows: pd.DataFrame, measure: str, choices: list[str], chosen: pd.Series, plain: pd.Series) -> dict[str, Any]:
    """Values with and without a choice, of the same seeds or starts."""
    line: dict[str, Any] = {name: rows[name].iloc[0] for name in RUN}
    line |= {"measure": measure, "choice": choices[0], "draws": len(chosen), "relative_clear": ""}
    for name, values in (("with_choice", chosen), ("without_choice", plain)):
        line |= {name: float(f"{values.mean():.6g}"), f"{name}_std": float(f"{values.std():.6g}")}
    if len(choices) > 1 and (scale := abs(plain.mean())):
        differences = ((chosen - plain) / scale * 100).to_numpy(float)
        low, high = paired(differences)
        clear = "" if np.isnan(low) else "yes" if low > 0 or high < 0 else "no"
        line |= {"relative": differences.mean(), "relative_low": low, "relative_high": high, "relative_clear": clear}
    return line


def draw_figure2(folder: Path, histories: Mapping[str, pd.DataFrame]) -> None:
    """``hessian.png``, ``landscape.png`` and ``gradients.png``: the panels of all runs beside each other."""
    for name, frame in histories.items():
        panels: dict[str, dict[str, Points]] = {}
        for _, rows in frame.groupby("run"):
            run = rows.iloc[0]
            cell = f"{run['recipe']}, IPC {run['ipc']}, {run['student']}, {run['protocol']}"
            where = "\n".join(fill(line, round(CHARACTERS * AXES[name][1])) for line in (title(run["dataset"]), cell))
            made = {f"{where}\n{heading}": curves for heading, curves in PANELS[name](rows).items()}
            if made.keys() & panels.keys():  # the same cell, measured in another way
                made = {f"{heading}\n{run['run']}": curves for heading, curves in made.items()}
            panels |= made
        save_figure(folder / f"{name}.png", picture(name, panels))


def picture(name: str, panels: Mapping[str, Mapping[str, Points]]) -> Figure:
    """The panels of one of ``HISTORIES`` as a figure."""
    labels, width = AXES[name]
    figure = draw(panels, labels, width, bars=name != "landscape")
    if name == "hessian":
        for axes in figure.axes:
            axes.set_ylim(bottom=0)
    if name == "gradients" and panels:
        low, high = min(a.get_ylim()[0] for a in figure.axes), max(a.get_ylim()[1] for a in figure.axes)
        for axes, curves in zip(figure.axes, panels.values(), strict=True):
            batches = sorted({float(point[0]) for points in curves.values() for point in np.asarray(points)})
            axes.set(xscale="log", ylim=(low, high))
            axes.set_xticks(batches, [f"{size:g}" for size in batches])
            axes.set_xticks([], minor=True)
    return figure


def hessian_panels(rows: pd.DataFrame) -> dict[str, dict[str, Points]]:
    """Figure 2(c), top: norm of the Hessian over iterations, mean and deviation over the starts.

    Of a single start the bars are the estimate's standard error.
    """
    errors = {"norm": "norm_error", "step_norm": "step_error"}
    panels: dict[str, dict[str, Points]] = {}
    for column, heading in CURVATURES.items():
        groups = rows.groupby(["regularise", "iteration"])
        error = groups[errors[column]].mean() if rows["draw"].nunique() == 1 else groups[column].std()
        points = pd.concat([groups[column].mean(), error], axis=1)
        methods = rows["regularise"].unique()
        curves = {f"regularise: {name}": points.loc[name].reset_index().to_numpy(float) for name in methods}
        panels[heading.format(step=rows["step"].iloc[0])] = curves
    return panels


def landscape_panels(rows: pd.DataFrame) -> dict[str, dict[str, Points]]:
    """Figure 2(b): loss along random directions, mean and standard deviation over directions and seeds."""
    groups = rows.groupby(["schedule", "distance"])
    panels: dict[str, dict[str, Points]] = {}
    for loss, heading in LOSSES.items():
        points = pd.concat([groups[f"{loss}_loss"].mean(), groups[f"{loss}_loss"].std(ddof=0)], axis=1)
        panels[heading] = {name: points.loc[name].reset_index().to_numpy(float) for name in rows["schedule"].unique()}
    return panels


def gradient_panels(rows: pd.DataFrame) -> dict[str, dict[str, Points]]:
    """Figure 2(c), bottom: cosine of local to global gradient over batch sizes, one panel a moment of the training."""
    columns = ["batch", "cosine_mean", "cosine_std"]
    return {
        f"after {epoch} epochs": {
            str(name): curve[columns].to_numpy(float) for name, curve in moment.groupby("images", sort=False)
        }
        for epoch, moment in rows.groupby("epoch")
    }


PANELS: dict[str, Callable[[pd.DataFrame], dict[str, dict[str, Points]]]] = {
    "hessian": hessian_panels,
    "landscape": landscape_panels,
    "gradients": gradient_panels,
}
"""Heading -> name of a curve -> its points, of one run."""
AXES: dict[str, tuple[tuple[str, str], float]] = {
    "hessian": (("synthesis iteration", "Frobenius norm of the Hessian"), 4.5),
    "landscape": (("distance, lengths of the filters", "loss"), 4.5),
    "gradients": (("images of a batch", "cosine to the gradient of all"), 2.8),
}
"""Labels of the axes, and inches of a panel."""
CHARACTERS = 13
"""Of a heading, in an inch."""
