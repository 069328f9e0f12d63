"""Hand-made rows of the record, and the tables made of them."""

from typing import Any

import pandas as pd

from edc.reporting.applications import applications
from edc.reporting.evaluations import evaluations
from edc.reporting.figure2 import HISTORIES, figure2, kept
from edc.reporting.pages import page
from edc.reporting.paper import read_reported
from edc.reporting.quality import quality
from edc.reporting.record import COLUMNS, sort, typed
from edc.reporting.tables import tables

Row = dict[str, Any]
OWN = {
    "edc": "edc", "edc_code": "edc_code", "random": "edc", "rded": "rded", "sre2l": "sre2l", "full": "real_data",
    "gvbsm": "gvbsm", "config_c": "config_c", "config_d": "config_c", "config_f": "config_e", "config_g": "config_g",
}  # fmt: skip


def evaluation(recipe: str = "edc", *accuracies: float, run: str = "", **values: Any) -> list[Row]:
    """One evaluation, a row for each accuracy (seed); a protocol trains and labels in its own way."""
    row: Row = {"stage": "evaluate", "dataset": "digits", "recipe": recipe, "protocol": "edc", "ipc": 10}
    row |= {"student": "resnet18", "regime": "soft", "split": "test", "changed": False, "subset": False, "variant": ""}
    row |= {"image_bytes": 6400, "label_bytes": 240000, "steps": 480, "source": "run", "own_protocol": OWN.get(recipe)}
    row |= {
        "test_images": 1000,
        "seconds": 12.4,
        "device": "CPU",
        "threads": 1,
        "commit": "0123456789abcdef",
        "precision": "float32",
    }
    row |= values
    names = ("dataset", "recipe", "ipc", "student", "protocol", "variant")
    row["run"] = run or "-".join(str(row[name]) for name in names)
    row.setdefault("training", row["protocol"])
    return [row | {"seed": i, "accuracy": a, "best_accuracy": a + 1} for i, a in enumerate(accuracies or (49, 50, 51))]


def frame(*runs: list[Row]) -> pd.DataFrame:
    """A record of these runs."""
    return sort(typed(pd.DataFrame([row for run in runs for row in run], dtype=object), COLUMNS, "record"))


def every_table(*runs: list[Row]) -> dict[str, pd.DataFrame]:
    """All tables by name."""
    record = frame(*runs)
    made = tables(evaluations(record), read_reported()) | applications(record) | {"quality": quality(record)}
    return made | {"figure2": figure2({name: kept(name) for name in HISTORIES})}


def table(name: str, record: pd.DataFrame) -> pd.DataFrame:
    """One table."""
    if name in ("continual", "slimming"):
        return applications(record)[name]
    return tables(evaluations(record), read_reported())[name]


def ran(name: str, *runs: list[Row]) -> list[Row]:
    """Lines of a table that ran here, without empty cells."""
    lines = table(name, frame(*runs))
    lines = lines[lines["seeds"].notna()] if "seeds" in lines else lines
    return [{k: v for k, v in line.items() if not (pd.isna(v) or v == "")} for line in lines.to_dict("records")]


def only(name: str, *runs: list[Row]) -> Row:
    """The only line of a table."""
    (line,) = ran(name, *runs)
    return line


def text(name: str, *runs: list[Row]) -> str:
    """A table as Markdown."""
    record = frame(*runs)
    return page(name, table(name, record), evaluations(record))
