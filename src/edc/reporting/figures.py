"""Pictures a stage leaves: contact sheets and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edc.storage import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from edc.data.sets import Images

SHOWN_CLASSES = 20
SHOWN_IMAGES = 10


def contact_sheet(path: Path, images: Tensor, labels: Tensor, train: Images) -> Path:
    """Condensed images (left) beside real ones (right), one row a class, at most 20 classes and 10 images each.

    Args:
        path: a PNG.
        images: uint8 (N, C, S, S) condensed.
        labels: (N,).
        train: where the real ones come from.
    """
    from PIL import Image

    rows = range(min(len(train.classes), SHOWN_CLASSES))
    count = min(SHOWN_IMAGES, max(int((labels == c).sum()) for c in rows))
    size = images.shape[-1]
    zoom, gap = max(1, 48 // size), 2
    tile = size * zoom + gap
    sheet = np.full((len(rows) * tile + gap, 2 * count * tile + 5 * gap, 3), 255, dtype=np.uint8)
    for y, c in enumerate(rows):
        synthetic = images[labels == c][:count]
        real = train.read(train.by_class(c)[:count])
        for side, pictures in enumerate((synthetic, real)):
            for x, picture in enumerate(pictures.cpu().numpy()):
                pixels = np.kron(picture.transpose(1, 2, 0), np.ones((zoom, zoom, 1), dtype=np.uint8))
                top, left = gap + y * tile, gap + x * tile + side * (count * tile + 3 * gap)
                sheet[top : top + size * zoom, left : left + size * zoom] = pixels
    with replacing(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
    return path


def new_figure(width: float = 6.0, height: float = 4.0, fitted: bool = True) -> Figure:
    """A matplotlib figure without a window system, its axes fitted to their labels if asked."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained" if fitted else None)


def save_figure(path: Path, figure: Figure) -> Path:
    """Write a PNG whose bytes depend on the picture alone."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    return path


def learning_curves(path: Path, history: Sequence[Sequence[Any]], title: str) -> Path:
    """Training loss and test accuracy over epochs, one line a seed.

    Args:
        path: a PNG.
        history: rows of seed, epoch, learning rate, training loss, test accuracy or None.
        title: above the picture.
    """
    figure = new_figure(fitted=False)  # the labels' sizes are known, and fitting takes longer than the picture
    figure.subplots_adjust(left=0.13, right=0.88, bottom=0.13, top=0.92)
    loss = figure.add_subplot()
    right = loss.twinx()
    for seed in dict.fromkeys(row[0] for row in history):
        mine = [row for row in history if row[0] == seed]
        tested = [row for row in mine if row[4] is not None]
        loss.plot([r[1] + 1 for r in mine], [r[3] for r in mine], color="tab:gray", linewidth=0.7, alpha=0.7)
        right.plot([r[1] + 1 for r in tested], [r[4] for r in tested], marker=".", label=f"seed {seed}")
    loss.set_xlabel("epoch")
    loss.set_ylabel("training loss (grey)")
    loss.set_yscale("log")
    right.set_ylabel("test accuracy, %")
    right.legend(loc="lower right", fontsize="small")
    loss.set_title(title)
    return save_figure(path, figure)


def lines(
    path: Path, curves: Mapping[str, Sequence[tuple[float, float, float | None]]], horizontal: str, vertical: str
) -> Path:
    """Named curves with bands of one standard deviation.

    Args:
        path: a PNG.
        curves: by name: x, mean and standard deviation or None.
        horizontal, vertical: what the axes show.
    """
    figure = new_figure()
    axes = figure.add_subplot()
    for name, points in curves.items():
        x, mean = [p[0] for p in points], [p[1] for p in points]
        axes.plot(x, mean, marker=".", label=name)
        if all(p[2] is not None for p in points):
            low, high = ([m + sign * (p[2] or 0) for m, p in zip(mean, points, strict=True)] for sign in (-1, 1))
            axes.fill_between(x, low, high, alpha=0.15)
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.legend(fontsize="small")
    return save_figure(path, figure)
