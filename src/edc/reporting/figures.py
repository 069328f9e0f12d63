"""Pictures that stages write: contact sheets, learning curves, and both applications as in the paper's Figure 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edc.reporting.evaluations import FULL, RANDOM
from edc.reporting.pages import title
from edc.storage import replacing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import Tensor

    from edc.data.images import Images

SHOWN_CLASSES, SHOWN_IMAGES = 20, 10
LINES = {"soft": "-", "static": "--", "hard": ":"}
"""Of label regimes."""
SIGNS = {"soft": "o", "static": "s", "hard": "x"}
"""Of label regimes, where they are points."""
Points = Sequence[Sequence[float | None]] | np.ndarray
"""Of one curve: x, mean, and standard deviation or None."""


def contact_sheet(path: Path, images: Tensor, labels: Tensor, train: Images) -> Path:
    """Condensed images uint8 (N, C, S, S) with labels (N,), left, beside real ones of ``train``, right, as a PNG.

    One row a class, at most 20 classes and 10 images each.
    """
    from PIL import Image

    rows = range(min(len(train.classes), SHOWN_CLASSES))
    count = min(SHOWN_IMAGES, max(int((labels == c).sum()) for c in rows))
    zoom, gap = max(1, 48 // images.shape[-1]), 2
    tile = images.shape[-1] * zoom + gap
    sheet = np.full((len(rows) * tile + gap, 2 * count * tile + 5 * gap, 3), 255, dtype=np.uint8)
    for y, c in enumerate(rows):
        real = train.read(train.by_class(c)[:count])
        for side, pictures in enumerate((images[labels == c][:count], real)):
            for x, picture in enumerate(pictures.cpu().numpy()):
                pixels = np.kron(picture.transpose(1, 2, 0), np.ones((zoom, zoom, 1), dtype=np.uint8))
                top, left = gap + y * tile, gap + x * tile + side * (count * tile + 3 * gap)
                sheet[top : top + tile - gap, left : left + tile - gap] = pixels
    with replacing(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
    return path


def new_figure(width: float = 6.0, height: float = 4.0, fitted: bool = True) -> Figure:
    """A matplotlib figure without a window system, its axes fitted to their labels or not."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained" if fitted else None)


def save_figure(path: Path, figure: Figure) -> Path:
    """Write a PNG whose bytes depend on the picture alone."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    return path


def learning_curves(path: Path, history: Sequence[Sequence[Any]], heading: str) -> Path:
    """Training loss and accuracy over epochs, one line a seed, as a PNG.

    Rows of ``history``: seed, epoch, learning rate, training loss, accuracy or None.
    """
    figure = new_figure(fitted=False)  # the labels' sizes are known, and fitting takes longer than the picture
    figure.subplots_adjust(left=0.13, right=0.88, bottom=0.13, top=0.92)
    loss = figure.add_subplot()
    accuracy = loss.twinx()
    for seed in dict.fromkeys(row[0] for row in history):
        rows = [row for row in history if row[0] == seed]
        evaluated = [row for row in rows if row[4] is not None]
        loss.plot([r[1] + 1 for r in rows], [r[3] for r in rows], color="tab:gray", linewidth=0.7, alpha=0.7)
        accuracy.plot([r[1] + 1 for r in evaluated], [r[4] for r in evaluated], marker=".", label=f"seed {seed}")
    loss.set_yscale("log")
    accuracy.set_ylabel("accuracy, %")
    accuracy.legend(loc="lower right", fontsize="small")
    loss.set(xlabel="epoch", ylabel="training loss (grey)", title=heading)
    return save_figure(path, figure)


def draw(
    panels: Mapping[str, Mapping[str, Points]],
    labels: tuple[str, str],
    width: float = 5.0,
    bars: bool = False,
    styles: Mapping[str, Mapping[str, Any]] | None = None,
) -> Figure:
    """Panels beside each other, each so many inches wide: heading -> name of a curve -> its points.

    Each curve has a band, or bars, of one standard deviation; ``styles`` are by the first word of their names.
    """
    figure = new_figure(width * max(1, len(panels)), 3.8)
    for place, (heading, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for name, points in curves.items():
            x, mean, deviation = np.array(points, dtype=float).T
            style = {"marker": ".", "label": name, **(styles or {}).get(name.split(",")[0], {})}
            if bars:
                axes.errorbar(x, mean, deviation, capsize=2, **style)
            else:
                (line,) = axes.plot(x, mean, **style)
                axes.fill_between(
                    x, mean - deviation, mean + deviation, alpha=0.15, color=line.get_color(), linewidth=0
                )
        axes.set(xlabel=labels[0], ylabel=labels[1])
        axes.set_title(heading, fontsize="small")
        axes.legend(fontsize="small")
    if not panels:
        figure.text(0.5, 0.5, "nothing ran here", ha="center", va="center")
    return figure


def lines(path: Path, curves: Mapping[str, Points], horizontal: str, vertical: str) -> Path:
    """Named curves with bands of one standard deviation, as a PNG with these axes."""
    return save_figure(path, draw({"": curves}, (horizontal, vertical), 6.0))


def accuracy_over_ipc(parts: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy over images per class: heading -> its evaluations, a curve for each recipe and label regime.

    Where several protocols of a regime ran, the recipe's own counts, else the best. All images are a line.
    """
    panels: dict[str, dict[str, Points]] = {}
    styles: dict[str, dict[str, Any]] = {}
    full: list[pd.DataFrame] = []
    for heading, cells in parts.items():
        full.append(cells[cells["recipe"] == FULL])
        sets = cells[cells["ipc"] > 0].sort_values(["own", "final_mean"], ascending=False, kind="stable")
        sets = sets.drop_duplicates(["recipe", "regime", "ipc"]).sort_values("ipc", kind="stable")
        curves = panels.setdefault(heading.replace(": ", "\n", 1), {})
        for place, (recipe, rows) in enumerate(sets.groupby("recipe")):
            for regime, run in rows.groupby("regime"):
                colour = "0.45" if recipe == RANDOM else f"C{place}"
                styles[f"{recipe} {regime}"] = {"color": colour, "linestyle": LINES[str(regime)]}
                curves[f"{recipe} {regime}"] = run[["ipc", "final_mean", "final_std"]].to_numpy(float)
    figure = draw(panels, ("images per class", "accuracy, %"), styles=styles)
    for axes, rows in zip(figure.axes, full, strict=True):
        numbers = sorted({int(x) for line in axes.lines for x in np.atleast_1d(line.get_xdata())})
        axes.set_xscale("log")
        axes.set_xticks(numbers, [str(number) for number in numbers])
        axes.set_xticks([], minor=True)
        if len(rows):
            axes.axhline(rows["final_mean"].iloc[0], color="black", linewidth=1, label="all images")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize="x-small")
    return figure


def accuracy_over_bytes(table: pd.DataFrame) -> Figure:
    """Accuracy over bytes of labels of table ``equal_bytes``: recipes by colour, label regimes by sign.

    The line is what the teachers' weights take, from which soft labels can be made again.
    """
    panels: dict[str, dict[str, Points]] = {}
    styles: dict[str, dict[str, Any]] = {}
    weights: list[pd.Series] = []
    recipes = sorted(set(table["recipe"]) - {RANDOM})
    for (dataset, ipc, student), rows in table.groupby(["dataset", "ipc", "student"]):
        curves = panels.setdefault(f"{title(str(dataset))}\n{student}, IPC {ipc}", {})
        weights.append(rows["teacher_bytes"].dropna())
        for (recipe, regime), run in rows.groupby(["recipe", "regime"]):
            colour = "0.45" if recipe == RANDOM else f"C{recipes.index(recipe)}"
            styles[f"{recipe} {regime}"] = {"color": colour, "marker": SIGNS[str(regime)], "linestyle": "none"}
            curves[f"{recipe} {regime}"] = run[["label_bytes", "final_mean", "final_std"]].to_numpy(float)
    figure = draw(panels, ("bytes of labels", "accuracy, %"), bars=True, styles=styles)
    for axes, sizes in zip(figure.axes, weights, strict=True):
        axes.set_xscale("log")
        for size in sizes.unique():
            axes.axvline(float(size), color="black", linewidth=1, label="teachers' weights")
        axes.legend(fontsize="x-small")
    return figure


def draw_applications(folder: Path, continual: pd.DataFrame, slimming: pd.DataFrame) -> None:
    """``continual.png`` and ``slimming.png`` of both tables: a panel for every dataset and student, a curve a run."""
    by_steps = continual.assign(student=continual["student"] + ", " + continual["steps"].astype(str) + " steps")
    _draw_application(folder / "continual.png", by_steps, "classes", "accuracy", "classes seen")
    of_starts = slimming["student"] + slimming["pretrained"].map({"yes": ", pretrained", "no": ""})
    pruned = slimming.assign(student=of_starts)
    _draw_application(folder / "slimming.png", pruned, "ratio", "after", "share of channels removed")


def _draw_application(path: Path, table: pd.DataFrame, x: str, score: str, horizontal: str) -> None:
    recipes = sorted(set(table["recipe"]) - {RANDOM, FULL})
    styles: dict[str, dict[str, Any]] = {recipe: {"color": f"C{place}"} for place, recipe in enumerate(recipes)}
    styles |= {RANDOM: {"color": "0.45", "linestyle": "--"}, FULL: {"color": "black", "linestyle": ":"}}
    may_differ = ("ipc", "variant", "protocol", "sparsity", "epochs", "finetune", "keep")
    settings = [name for name in may_differ if name in table]
    panels: dict[str, dict[str, Points]] = {}
    for (dataset, student), rows in table.groupby(["dataset", "student"]):
        differing = [name for name in settings if (rows.groupby("recipe")[name].nunique() > 1).any()]
        curves = panels.setdefault(f"{title(str(dataset))}\n{student}", {})
        runs: Any = rows.groupby(["recipe", *differing])
        for (recipe, *values), run in runs:
            name = ", ".join([recipe, *(f"{n} {v}" for n, v in zip(differing, values, strict=True))])
            curves[name] = run[[x, f"{score}_mean", f"{score}_std"]].to_numpy(float)
    save_figure(path, draw(panels, (horizontal, "accuracy, %"), styles=styles))
