"""The table of condensed sets measured on an observer's features (``edc.condense.quality``)."""

from __future__ import annotations

import pandas as pd

from edc.reporting.evaluations import finished

COLUMNS = ("dataset", "ipc", "observer", "recipe", "within_cosine", "density", "coverage", "nearest")


def quality(record: pd.DataFrame) -> pd.DataFrame:
    """One line for every condensed set and observer."""
    rows = record[(record["stage"] == "analysis") & record["coverage"].notna()]
    rows = rows.rename(columns={"student": "observer"}).drop_duplicates(["dataset", "ipc", "observer", "recipe"])
    return finished(rows, COLUMNS, ["dataset", "ipc", "observer", "recipe"])
