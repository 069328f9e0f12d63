"""The pictures of stage analysis: Figure 2 of EDC, made from our runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Ellipse
from torch import Tensor

from edc.reporting.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from edc.condense.mixtures import Matched

COLOURS = [f"C{i}" for i in range(10)]
LABELS = {1.0: "Form (1) alone, alpha = 1", 0.0: "Form (2) alone, alpha = 0"}


def matching_panels(path: Path, matched: Matched) -> Path:
    """Figure 2(a): original points (pale), condensed ones (rings), and both's moments as ellipses of one deviation."""
    figure = new_figure(10.0, 3.8)
    for i, (alpha, condensed) in enumerate(matched.condensed.items()):
        axes = figure.add_subplot(1, len(matched.condensed), i + 1)
        for c, (points, few) in enumerate(zip(matched.original, condensed, strict=True)):
            axes.scatter(points[:, 0], points[:, 1], s=5, color=COLOURS[c], alpha=0.25, linewidths=0)
            axes.scatter(few[:, 0], few[:, 1], s=30, facecolors="none", edgecolors=COLOURS[c], linewidths=1.5)
            _ellipse(axes, points, color=COLOURS[c], linestyle="--")
            _ellipse(axes, few, color=COLOURS[c])
        _ellipse(axes, matched.original.flatten(0, 1), color="black", linestyle="--")
        _ellipse(axes, condensed.flatten(0, 1), color="black")
        axes.set_title(LABELS.get(alpha, f"both, alpha = {alpha:g}"), fontsize="medium")
        axes.set_aspect("equal")
        axes.set_xlim(-6, 6)
        axes.set_ylim(-6, 6)
    caption = "pale: original; rings: condensed; ellipses: one deviation (dashed: original; black: all classes)"
    figure.supxlabel(caption, fontsize="medium")
    return save_figure(path, figure)


def _ellipse(axes: Axes, points: Tensor, **style: Any) -> None:
    width, height = 2 * points.std(dim=0, correction=0)
    centre = points.mean(dim=0)
    axes.add_patch(Ellipse((float(centre[0]), float(centre[1])), float(width), float(height), fill=False, **style))


def landscape_panels(path: Path, rows: Sequence[Sequence[Any]], titles: Mapping[str, str]) -> Path:
    """Figure 2(b): loss along random directions, mean and standard deviation over directions and seeds.

    Args:
        path: a PNG.
        rows: schedule, seed, direction, distance, and one loss for each title.
        titles: name of a loss -> over its panel.
    """
    figure = new_figure(9.0, 3.8)
    distances = sorted({row[3] for row in rows})
    for i, title in enumerate(titles.values()):
        axes = figure.add_subplot(1, len(titles), i + 1)
        for name in dict.fromkeys(row[0] for row in rows):
            values = [[row[4 + i] for row in rows if (row[0], row[3]) == (name, d)] for d in distances]
            _band(axes, distances, values, name)
        axes.set_xlabel("distance, lengths of the filters")
        axes.set_title(title, fontsize="medium")
        axes.legend(fontsize="small")
    return save_figure(path, figure)


def hessian_panels(path: Path, rows: Sequence[Sequence[Any]], step: float) -> Path:
    """Figure 2(c), top: norm of the Hessian at the iterates, with the estimate's standard error.

    Args:
        path: a PNG.
        rows: regulariser, iteration; norm and standard error, exact; norm and standard error, over a step.
        step: its length.
    """
    figure = new_figure(9.0, 3.8)
    for i, title in enumerate(("exact", f"by differences of the gradient over {step:g}")):
        axes = figure.add_subplot(1, 2, i + 1)
        for name in dict.fromkeys(row[0] for row in rows):
            mine = [row for row in rows if row[0] == name]
            iterations, norms, spreads = ([row[column] for row in mine] for column in (1, 2 + 2 * i, 3 + 2 * i))
            axes.errorbar(iterations, norms, spreads, marker=".", capsize=2, label=f"regularise: {name}")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("synthesis iteration")
        axes.set_ylabel("Frobenius norm of the Hessian")
        axes.set_title(title, fontsize="medium")
        axes.legend(fontsize="small")
    return save_figure(path, figure)


def gradient_panels(path: Path, rows: Sequence[Sequence[Any]]) -> Path:
    """Figure 2(c), bottom: cosine of local to global gradient over batch sizes, one panel a moment of the training.

    Args:
        path: a PNG.
        rows: epoch, images, batch, mean, standard deviation.
    """
    epochs = list(dict.fromkeys(row[0] for row in rows))
    figure = new_figure(2.6 * len(epochs) + 0.8, 3.4)
    first = None
    for i, epoch in enumerate(epochs):
        axes = figure.add_subplot(1, len(epochs), i + 1, sharey=first)
        first = first or axes
        for name in dict.fromkeys(row[1] for row in rows):
            mine = [row for row in rows if (row[0], row[1]) == (epoch, name)]
            sizes, means, spreads = ([row[i] for row in mine] for i in (2, 3, 4))
            axes.errorbar(sizes, means, spreads, marker=".", capsize=2, label=name)
        axes.set_xscale("log")
        batches = sorted({row[2] for row in rows})
        axes.set_xticks(batches, [str(size) for size in batches])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("images of a batch")
        axes.set_title(f"after {epoch} epochs", fontsize="medium")
    assert first is not None
    first.set_ylabel("cosine to the gradient of all")
    first.legend(fontsize="small")
    return save_figure(path, figure)


def iterate_sheet(
    path: Path, pictures: Mapping[str, Mapping[int, Tensor]], labels: Tensor, names: Sequence[str]
) -> Path:
    """Condensed images over iterations: the first image of every class a row, a column an iterate.

    Args:
        path: a PNG.
        pictures: regulariser -> iterations done -> uint8 (B, C, S, S).
        labels: (B,) classes.
        names: of the classes.
    """
    classes = labels.unique(sorted=True)[: len(COLOURS)]
    members = [int((labels == c).nonzero()[0]) for c in classes]
    looks = len(next(iter(pictures.values())))
    figure = new_figure(0.55 * looks * len(pictures) + 1.2, 0.55 * len(members) + 0.8)
    for i, (name, columns) in enumerate(pictures.items()):
        axes = figure.add_subplot(1, len(pictures), i + 1)
        size, gap = next(iter(columns.values())).shape[-1], 1
        sheet = np.full((len(members) * (size + gap), looks * (size + gap), 3), 255, dtype=np.uint8)
        for x, images in enumerate(columns.values()):
            for y, member in enumerate(members):
                tile = images[member].permute(1, 2, 0).cpu().numpy()
                sheet[y * (size + gap) :, x * (size + gap) :][:size, :size] = tile
        axes.imshow(sheet, interpolation="nearest")
        places = (np.arange(max(looks, len(members))) + 0.5) * (size + gap) - gap
        axes.set_xticks(places[:looks], ["start" if k == 0 else str(k) for k in columns], fontsize="small")
        axes.set_yticks(places[: len(members)], [names[int(c)] for c in classes] if i == 0 else [""] * len(members))
        axes.tick_params(length=0)
        axes.set_title(f"regularise: {name}", fontsize="medium")
    figure.supxlabel("iterations", fontsize="medium")
    return save_figure(path, figure)


def _band(axes: Axes, x: Sequence[float], values: Sequence[Sequence[float]], name: str) -> None:
    mean, spread = np.mean(values, axis=1), np.std(values, axis=1)
    axes.plot(x, mean, label=name)
    axes.fill_between(x, np.maximum(mean - spread, mean * 0.1), mean + spread, alpha=0.15)
