"""Two pictures of stage analysis: matching of points in the plane (EDC, Figure 2(a)), and images over iterations."""

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
        axes.set(aspect="equal", xlim=(-6, 6), ylim=(-6, 6))
    caption = "pale: original; rings: condensed; ellipses: one deviation (dashed: original; black: all classes)"
    figure.supxlabel(caption, fontsize="medium")
    return save_figure(path, figure)


def _ellipse(axes: Axes, points: Tensor, **style: Any) -> None:
    width, height = 2 * points.std(dim=0, correction=0)
    centre = points.mean(dim=0)
    axes.add_patch(Ellipse((float(centre[0]), float(centre[1])), float(width), float(height), fill=False, **style))


def iterate_sheet(
    path: Path, pictures: Mapping[str, Mapping[int, Tensor]], labels: Tensor, names: Sequence[str]
) -> Path:
    """Condensed images over iterations: the first image of every class a row, a column an iterate.

    Args:
        pictures: regulariser -> iterations done -> uint8 (B, C, S, S).
        labels: (B,) classes, whose ``names`` stand beside the rows.
    """
    classes = labels.unique(sorted=True)[: len(COLOURS)]
    members = [int((labels == c).nonzero()[0]) for c in classes]
    columns_shown = len(next(iter(pictures.values())))
    figure = new_figure(0.55 * columns_shown * len(pictures) + 1.2, 0.55 * len(members) + 0.8)
    for i, (name, columns) in enumerate(pictures.items()):
        axes = figure.add_subplot(1, len(pictures), i + 1)
        size, gap = next(iter(columns.values())).shape[-1], 1
        sheet = np.full((len(members) * (size + gap), columns_shown * (size + gap), 3), 255, dtype=np.uint8)
        for x, images in enumerate(columns.values()):
            for y, member in enumerate(members):
                tile = images[member].permute(1, 2, 0).cpu().numpy()
                sheet[y * (size + gap) :, x * (size + gap) :][:size, :size] = tile
        axes.imshow(sheet, interpolation="nearest")
        places = (np.arange(max(columns_shown, len(members))) + 0.5) * (size + gap) - gap
        axes.set_xticks(places[:columns_shown], ["start" if k == 0 else str(k) for k in columns], fontsize="small")
        axes.set_yticks(places[: len(members)], [names[int(c)] for c in classes] if i == 0 else [""] * len(members))
        axes.tick_params(length=0)
        axes.set_title(f"regularise: {name}", fontsize="medium")
    figure.supxlabel("iterations", fontsize="medium")
    return save_figure(path, figure)
