"""``edc bench``: cases measured one after the other, each in a process of its own, and the table of all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import torch

from edc.bench.cases import ALL, Case
from edc.bench.workloads import CONDENSED, STAGES
from edc.config.files import DatasetFile, names, read
from edc.config.rows import Precision
from edc.errors import EdcError, unknown_name
from edc.nets import check_name
from edc.stages.progress import ProgressLog
from edc.storage import RESULTS, replacing

WHERE = RESULTS / "bench"
COLUMNS = [
    "dataset", "stage", "network", "images", "seeds", "unit", "milliseconds", "bare", "ratio",
    "reference", "reference_ratio", "peak_mb", "bare_peak_mb", "floor_mb", "process_mb",
    "recipe", "threads", "precision", "device", "torch", "commit", "dirty",
]  # fmt: skip
KEY = ["dataset", "stage", "network", "images", "seeds", "recipe", "threads", "precision"]
"""Rows with the same of these are the same measurement."""
GROUPS = [name for name in KEY if name != "network"]
"""Rows with the same of these are added up in the summary."""
IMAGES = {"pretrain": [64], "statistics": [64], "synthesize": [10, 100], "relabel": [500], "evaluate": [25, 100]}
"""Default numbers of images of a batch or a group."""
STUDENTS = ("resnet18", "convnet_w128")
"""Observers that stand for all students: a large and a small one."""


def cases(dataset: str, stages: Iterable[str], networks: Sequence[str], images: Sequence[int]) -> list[Case]:
    """What is measured; where a list is empty, what the stage is usually measured with.

    Raises:
        EdcError: an unknown stage, network or dataset, or a number of images a stage does not work with.
    """
    file: DatasetFile = read("datasets", dataset, None, "--dataset")
    chosen = []
    for stage in stages or STAGES:
        if stage not in STAGES:
            raise unknown_name("stage", stage, STAGES, "--stage")
        usual, seeds = [*file.observers, *([ALL] if stage == "statistics" else [])], [1]
        if stage == "evaluate":
            usual, seeds = [name for name in usual if name in STUDENTS] or usual, [1, 3]
        for n in images:
            if stage == "evaluate" and n > CONDENSED:
                raise EdcError(f"--images {n}: evaluate trains on {CONDENSED} images; expected a batch of at most that")
            if stage == "relabel" and n % CONDENSED:
                raise EdcError(f"--images {n}: relabel labels {CONDENSED} images a pass; expected a multiple of that")
        for network in networks or usual:
            if (stage, network) != ("statistics", ALL):  # all in one pass
                check_name(network)
            chosen += [Case(stage, dataset, network, n, s) for n in images or IMAGES[stage] for s in seeds]
    return chosen


def run_bench(
    todo: Sequence[Case],
    device: str,
    threads: int,
    seconds: float,
    recipes: Sequence[str],
    to: Path,
    precision: str = "float32",
) -> pd.DataFrame:
    """Measure cases, write the table after each, and return their rows; those in the table are not measured again.

    Synthesis is measured with each of the recipes in turn, other stages once.

    Raises:
        EdcError: there is no such device, recipe or precision, ``to`` can't be written, or a measurement failed.
    """
    allowed = [("device", device, ("cpu", "cuda")), ("precision", precision, get_args(Precision))]
    for kind, value, known in [*allowed, *(("recipe", recipe, names("recipes")) for recipe in recipes)]:
        if value not in known:
            raise unknown_name(kind, value, known, f"--{kind}")
    if device == "cuda" and not torch.cuda.is_available():
        raise EdcError("--device cuda: torch can't use a GPU here")
    try:  # before anything is measured
        to.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdcError(f"--to {to}: {error.strerror}; expected a file to write to") from None
    common = {"threads": threads, "precision": precision}
    pairs = [(case, name) for case in todo for name in recipes[: None if case.stage == "synthesize" else 1]]
    keys = [tuple((asdict(case) | common | {"recipe": recipe})[name] for name in KEY) for case, recipe in pairs]
    rows: list[dict[Any, Any]] = read_table(to).to_dict("records") if to.exists() else []
    measured = {tuple(row[name] for name in KEY) for row in rows}
    left = [pair for pair, key in zip(pairs, keys, strict=True) if key not in measured]
    if len(left) < len(pairs):
        done = f"{len(pairs) - len(left)} of {len(pairs)} cases"
        print(f"edc: {done} are in {to} already; move it away to repeat them", file=sys.stderr)
    progress = ProgressLog(len(pairs), "bench", len(pairs) - len(left), "case")
    for case, recipe in left:
        rows.append(measure_apart(case, device, threads, seconds, recipe, precision))
        with replacing(to) as temporary:
            pd.DataFrame(rows, columns=COLUMNS).round(4).to_csv(temporary, index=False)
        progress.update()
    return pd.DataFrame([row for row in rows if tuple(row[name] for name in KEY) in keys], columns=COLUMNS)


def measure_apart(case: Case, device: str, threads: int, *more: Any) -> dict[str, Any]:
    """One row, measured in a process that ends with this one, however this one ends."""
    arguments = json.dumps([asdict(case), device, threads, *more])
    # The last: else PyTorch's profiler prints that it begins and ends.
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "KINETO_LOG_LEVEL": "99"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", "edc.bench", arguments], env=environment, **pipes) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()  # not communicate(), which closes the standard input
    if process.returncode:
        raise EdcError(f"bench: {case.stage} of {case.network} at {case.images} images failed; see above")
    return json.loads(lines[-1])


def read_table(path: Path) -> pd.DataFrame:
    """Measurements of an earlier call; EdcError if the file holds something else."""
    try:
        table = pd.read_csv(path, dtype={"dirty": str})
    except (OSError, ValueError) as error:
        raise EdcError(f"{path}: {error}; expected measurements of `edc bench`") from None
    if list(table.columns) != COLUMNS:
        raise EdcError(f"{path}: made by another version; expected the columns {', '.join(COLUMNS)}; move it away")
    return table


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Sums over the networks for each stage and size: the ratio of the sums, and the largest of a single network.

    Where all networks were measured together, that is their sum. Memory is that of the network that takes most.
    """
    sums = []
    for (_, stage, images, seeds, recipe, _, precision), rows in table.groupby(GROUPS, sort=False):
        single, together = rows[rows["network"] != ALL], rows[rows["network"] == ALL]
        part = together if len(together) else single
        milliseconds, bare = part["milliseconds"].sum(), part["bare"].sum()
        reference = part["reference"].sum() / bare if part["reference"].notna().all() else None
        largest = rows.iloc[int(rows["peak_mb"].astype(float).fillna(0).argmax())]
        sums.append(
            {"stage": stage, "recipe": recipe, "precision": precision, "images": images, "seeds": seeds}
            | {"networks": len(single)}
            | {"unit": part["unit"].iloc[0], "milliseconds": milliseconds, "bare": bare, "ratio": milliseconds / bare}
            | {"largest_ratio": rows["ratio"].max(), "reference_ratio": reference}
            | {"peak_mb": largest["peak_mb"], "peak_to_floor": largest["peak_mb"] / largest["floor_mb"]}
            | {"peak_to_bare": largest["peak_mb"] / largest["bare_peak_mb"], "process_mb": largest["process_mb"]}
        )
    return pd.DataFrame(sums)
