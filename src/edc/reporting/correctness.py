"""``results/correct.csv``: which test images each student of an evaluation gets right after its last epoch.

One row per run and seed; ``correct`` is the bits of ``correct.npy``, one per image in the split's order, in base64. A
row counts as long as it belongs to a row of the record: same run, seed and images, and as many of them right as the
accuracy there says.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
import pandas as pd

from edc.config.rows import Plan
from edc.errors import EdcError
from edc.reporting import record
from edc.storage import RESULTS, checked, manifest_in, read_array, run_folder, write_text

PATH = RESULTS / "correct.csv"
COLUMNS: record.Columns = {
    "run": (record.TEXT, None), "seed": (record.INTEGER, record.COUNT), "test_digest": (record.TEXT, None),
    "correct": (record.TEXT, None),
}  # fmt: skip
NAME = "correct.npy"


def read() -> pd.DataFrame:
    """The rows of the file, none where it is missing.

    Raises:
        EdcError: a column is missing, or a value is not what its column holds.
    """
    return record.read_csv(PATH, COLUMNS, record.restoring(PATH), kept=True)


def write(table: pd.DataFrame) -> None:
    """Write the file: equal rows give equal bytes."""
    write_text(PATH, table.to_csv(index=False, lineterminator="\n"))


def collect(plan: Plan) -> pd.DataFrame:
    """The rows of the plan's finished evaluations; those of earlier versions have none."""
    rows = []
    for key in plan.evaluate:
        folder = run_folder("evaluate", key)
        manifest = manifest_in(folder) if (folder / "manifest.json").exists() else {"files": []}
        if NAME not in manifest["files"]:
            continue
        packed = read_array(checked(folder, manifest, NAME))
        for seed, bits in zip(manifest["params"]["evaluate"]["seeds"], packed, strict=True):
            rows.append([key, seed, manifest["test_digest"], base64.b64encode(bits.tobytes()).decode()])
    return record.typed(pd.DataFrame(rows, columns=list(COLUMNS), dtype=object), COLUMNS, "runs")


def merge(old: pd.DataFrame, new: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Old and new rows that belong to a row of the record ``runs``; a run's new rows replace all its old ones."""
    rows = pd.concat([old[~old["run"].isin(new["run"])], new], ignore_index=True)
    evaluations = runs[runs["stage"] == "evaluate"]
    rows = rows.merge(evaluations[[*list(COLUMNS)[:3], "accuracy", "test_images"]], on=list(COLUMNS)[:3])
    agreeing = [_agrees(*row) for row in rows[["correct", "accuracy", "test_images", "run"]].to_numpy()]
    return rows.loc[np.array(agreeing, dtype=bool), list(COLUMNS)].sort_values(["run", "seed"], ignore_index=True)


def by_run(table: pd.DataFrame, runs: pd.DataFrame) -> dict[str, np.ndarray]:
    """Bool (seeds, images) of each evaluation of the record ``runs`` all of whose seeds have a row."""
    rows = runs[runs["stage"] == "evaluate"]
    sizes = rows.groupby("run")["test_images"].first()
    table = merge(table, table.head(0), rows)
    seeds = rows.groupby("run").size()
    return {
        str(run): np.stack([unpack(text, int(sizes[run]), str(run)) for text in stored["correct"]])
        for run, stored in table.groupby("run")
        if len(stored) == seeds[run]
    }


def unpack(text: str, images: int, run: str) -> np.ndarray:
    """Bool (images,) of one row.

    Raises:
        EdcError: it is not base64 of so many bits.
    """
    try:
        packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except (binascii.Error, ValueError):
        packed = np.empty(0, np.uint8)
    if len(packed) != -(-images // 8):
        raise EdcError(
            f"{PATH}: run {run!r}: correct = {text[:12]!r}: expected {images} bits in base64; {record.restoring(PATH)}"
        )
    return np.unpackbits(packed, count=images).astype(bool)


def _agrees(text: str, accuracy: float, images: int, run: str) -> bool:
    share = 100.0 * int(unpack(text, int(images), run).sum()) / int(images)
    return bool(abs(share - accuracy) < 10.0**-record.DECIMALS)
