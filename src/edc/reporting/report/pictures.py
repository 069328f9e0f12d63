"""The report's pictures, each embedded once: SVG drawn from numbers, or what runs left, made smaller."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from edc.config.rows import Plan
from edc.errors import EdcError
from edc.reporting.evaluations import RANDOM
from edc.reporting.figures import draw, draw_applications
from edc.reporting.pages import images, spread, title
from edc.storage import RESULTS, checked, manifest_in, run_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HISTORIES, CONDENSED = RESULTS / "histories" / "learning.csv", RESULTS / "condensed"
CURVES, SHEETS, PANELS = 6, 12, 3
"""At most: curves in a panel, contact sheets of a dataset, panels beside each other."""
SHEET, WIDE = 230, 1000
"""Widths of contact sheets and of other pictures, in pixels."""
COLOURS = "012345689"  # of matplotlib's cycle; 7 is the grey of random images
STYLES = {RANDOM: {"color": "0.45", "linestyle": "--", "marker": ""}}


def histories() -> pd.DataFrame:
    """Accuracy of evaluations over epochs, as they are kept in ``results/``."""
    return pd.read_csv(HISTORIES) if HISTORIES.exists() else pd.DataFrame(columns=["run", "epoch", "accuracy"])


def learning_curves(cells: pd.DataFrame, method: str) -> list[tuple[str, str]]:
    """Accuracy over epochs, with headings: a panel for every dataset, IPC, student and label regime.

    A panel has recipes under their own protocols, or static or hard labels: the method, random images, and the best.
    """
    shown = (cells["regime"] != "soft") | (cells["protocol"] == cells["own_protocol"])
    cells = cells[shown & (cells["variant"] == "") & (cells["ipc"] > 0)]
    saved = histories()
    made = []
    for dataset, rows in cells.groupby("dataset", sort=False):
        panels = {}
        for _, panel in rows.groupby(["ipc", "student", "regime"], sort=False):
            ipc, student, regime = panel.iloc[0][["ipc", "student", "regime"]]
            first = panel["recipe"].isin([method, RANDOM])
            order = panel.assign(first=first).sort_values(["first", "final_mean"], ascending=False, kind="stable")
            curves = {row["recipe"]: accuracies(row["run"], saved) for _, row in order.head(CURVES).iterrows()}
            if curves := {name: points for name, points in curves.items() if len(points)}:
                panels[f"IPC {images(ipc)}, {student}, {regime} labels"] = curves
        recipes = dict.fromkeys([method, *(name for curves in panels.values() for name in curves if name != RANDOM)])
        styles = {name: {"color": f"C{COLOURS[place % 9]}", "marker": ""} for place, name in enumerate(recipes)}
        for some in (list(panels)[i : i + PANELS] for i in range(0, len(panels), PANELS)):
            figure = draw({name: panels[name] for name in some}, ("epoch", "accuracy, %"), 4.2, styles=styles | STYLES)
            made.append((f"{title(str(dataset))}: {'; '.join(some)}", drawn(figure)))
    return made


def accuracies(run: str, saved: pd.DataFrame) -> np.ndarray:
    """Epoch (from 1), mean accuracy and deviation over the seeds of one evaluation; empty where there is no history.

    The committed histories ``saved`` are used where the run's folder is not here; a damaged ``history.csv`` is refused.
    """
    folder = run_folder("evaluate", run)
    if not (folder / "manifest.json").exists():
        return saved[saved["run"] == run].reindex(columns=["epoch", "accuracy", "std"]).to_numpy(float)
    history = pd.read_csv(checked(folder, manifest_in(folder), "history.csv"))
    points = history.dropna(subset="accuracy").groupby("epoch")["accuracy"].agg(["mean", "std"]).reset_index()
    return points.assign(epoch=points["epoch"] + 1).to_numpy(float)


def contact_sheets(plan: Plan, cells: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Condensed images with captions, those of variants left out; real ones once for every dataset."""
    sets = cells[(cells["variant"] == "") & (cells["ipc"] > 0)]
    sets = sets.assign(images=[str(plan.evaluate[key].images) for key in sets["run"]]).drop_duplicates("images")
    for dataset, rows in sets.sort_values("ipc", ascending=False, kind="stable").groupby("dataset", sort=False):
        real = True
        for row in rows.head(SHEETS).to_dict("records"):
            places = (run_folder("synthesize", row["images"]), CONDENSED / row["images"])
            for path in [place / "contact_sheet.png" for place in places if (place / "contact_sheet.png").exists()][:1]:
                if real:
                    yield f"{title(str(dataset))}, real images", shrunk(path, SHEET, right=True)
                real = False
                accuracy = f"{spread(row['final_mean'], row['final_std'])} % ({row['protocol']})"
                yield f"{row['recipe']}, IPC {row['ipc']}: {accuracy}", shrunk(path, SHEET, right=False)


def application(name: str, tables: dict[str, pd.DataFrame]) -> str:
    """The figure of ``continual`` or ``slimming``, of the lines of these tables."""
    with TemporaryDirectory() as folder:
        draw_applications(Path(folder), tables["continual"], tables["slimming"])
        return shrunk(Path(folder) / f"{name}.png", WIDE)


def analyses(plan: Plan) -> list[tuple[str, str]]:
    """What the plan's analyses drew, with captions."""
    paths = (path for key in plan.analysis for path in sorted(run_folder("analysis", key).glob("*.png")))
    return [(f"{path.parent.name}: {path.stem}", shrunk(path, WIDE // 2)) for path in paths]


def drawn(figure: Figure) -> str:
    """A figure as an SVG in a data URI, the same for the same picture."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.hashsalt": "edc"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(text.getvalue().encode()).decode()}"


def shrunk(path: Path, width: int, right: bool | None = None) -> str:
    """A picture, its left or right half, or all of it, at most that wide, as a WebP in a data URI."""
    from PIL import Image

    content = io.BytesIO()
    try:
        with Image.open(path) as stored:
            picture: Any = stored.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        raise EdcError(f"{path}: damaged, expected a whole picture; run the stage that makes it again") from None
    if right is not None:
        middle = picture.width // 2
        picture = picture.crop((middle, 0, picture.width, picture.height) if right else (0, 0, middle, picture.height))
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)))
    picture.save(content, format="WEBP", quality=80, method=6)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
