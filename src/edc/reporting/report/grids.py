"""A table as text to read, and beside each cell the number that it is sorted by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from edc.reporting.pages import images, kilobytes, signed, spread

NAMES = {
    "ipc": "IPC", "reported": "paper", "reported_imagenet1k": "paper, ImageNet-1k", "image_bytes": "image kB",
    "label_bytes": "label kB", "seconds": "s", "seconds_total": "s in all", "peak_memory_mb": "MB",
    "peak_gpu_memory_mb": "GPU MB",
}  # fmt: skip
HIDDEN = {"clear", "improvement_spread", "reported_student", "reported_std"}
FORMATS: dict[str, Callable[[Any], str]] = {
    "ipc": images, "difference": signed, "image_bytes": kilobytes, "label_bytes": kilobytes,
    "seconds": "{:,.1f}".format, "seconds_total": "{:,.1f}".format,
}  # fmt: skip


Cell = tuple[str, float | None]
Grid = tuple[list[tuple[str, bool]], list[tuple[Cell, ...]]]
"""Heads with whether their column holds numbers, and rows of text with the number to sort by."""


def grid(frame: pd.DataFrame) -> Grid:
    """A frame as a table to read: mean and deviation in one cell, bytes in kB, columns without values left out."""
    heads, columns = [], []
    for name in frame.columns:
        values, mean = frame[name], name.removesuffix("_mean")
        beside = name.endswith("_std") and f"{name.removesuffix('_std')}_mean" in frame
        if beside or name in HIDDEN or (values.isna() | (values == "")).all():
            continue
        numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        heads.append((NAMES.get(mean, mean.replace("_", " ")), numeric))
        columns.append([cell(row, name, numeric) for row in frame.to_dict("records")])
    return heads, list(zip(*columns, strict=True))


def cell(row: dict[Any, Any], name: str, numeric: bool) -> Cell:
    """Text and number of one cell."""
    value = row[name]
    if pd.isna(value) or value == "":
        return "", None
    if not numeric:
        return (str(value)[:7] if name == "commit" else str(value)), None
    if name.endswith("_mean") or name == "reported":
        text = spread(value, row.get(f"{name.removesuffix('_mean')}_std", float("nan")))
    elif name == "improvement":
        text = {"yes": signed(value), "no": f"({signed(value)})"}.get(row.get("clear", ""), "")
    elif name in FORMATS:
        text = FORMATS[name](value)
    else:
        text = f"{value:,.0f}" if value > 1000 or value == int(value) else f"{value:.4g}"
    return text, float(value)
