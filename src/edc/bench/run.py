"""The measurements of ``edc bench``: one process each, one table of all."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import torch

from edc.bench.cases import ALL, Bench, Case
from edc.bench.pieces import STAGES, TRAINED
from edc.bench.timing import held, kernels, matrix_rate, most_in_tensors, peak, ratio, side_by_side
from edc.pipeline.devices import device_name, keep_freed_memory, same_every_time, spare_compiler, without_cache
from edc.errors import EdcError, unknown_name
from edc.nets import check_name
from edc.config.rows import Machine
from edc.stages.progress import bar
from edc.storage import replacing
from edc.storage.provenance import provenance
from edc.config.files import DatasetFile, names, read

WHERE = Path("results/bench")
COLUMNS = (
    "dataset", "stage", "network", "images", "seeds", "unit", "milliseconds", "bare", "ratio",
    "reference", "reference_ratio", "peak_mb", "bare_peak_mb", "floor_mb", "process_mb",
    "kernels", "bare_kernels", "share_of_matrix_rate",
    "recipe", "threads", "precision", "device", "torch", "commit", "dirty",
)  # fmt: skip
KEY = ("dataset", "stage", "network", "images", "seeds", "recipe", "threads", "precision")
"""Lines with the same of these are the same measurement."""
GROUPS = tuple(name for name in KEY if name != "network")
"""Lines that the summary adds up."""
IMAGES = {"pretrain": [64], "statistics": [64], "synthesize": [10, 100], "relabel": [500], "evaluate": [25, 100]}
"""Of a batch or a group, where nothing else is asked for."""

QUIET = {"KINETO_LOG_LEVEL": "99"}
"""Else PyTorch's profiler says that it begins and ends."""

STUDENTS = ("resnet18", "convnet_w128")
"""Observers that stand for all students: a large and a small one."""


def cases(dataset: str, stages: Iterable[str], networks: Sequence[str], images: Sequence[int]) -> list[Case]:
    """What is measured.

    Raises:
        EdcError: an unknown stage, network or dataset.
    """
    file: DatasetFile = read("datasets", dataset, None, "--dataset")
    found = []
    for stage in stages or STAGES:
        if stage not in STAGES:
            raise unknown_name("stage", stage, STAGES, "--stage")
        usual, together = file.observers, [1]
        if stage == "statistics":
            usual = [*usual, ALL]
        if stage == "evaluate":
            usual, together = [name for name in usual if name in STUDENTS] or usual, [1, 3]
        for network in networks or usual:
            if (stage, network) != ("statistics", ALL):  # one pass takes them all
                check_name(network)
            for n in images:
                check_images(stage, n)
            found += [Case(stage, dataset, network, n, seeds) for n in images or IMAGES[stage] for seeds in together]
    return found


def check_images(stage: str, images: int) -> None:
    """Refuse a number of images that a stage would not work with.

    Raises:
        EdcError: says which do.
    """
    if stage == "evaluate" and images > TRAINED:
        raise EdcError(f"--images {images}: evaluate trains on {TRAINED} images; expected a batch of at most so many")
    if stage == "relabel" and images % TRAINED:
        raise EdcError(f"--images {images}: relabel labels {TRAINED} images a pass; expected a multiple of {TRAINED}")


def measure(
    case: Case, device: str, threads: int, seconds: float, recipe: str, precision: str = "float32"
) -> dict[str, Any]:
    """One line of the table, measured in this process."""
    torch.set_num_threads(threads)
    spare_compiler()
    where = torch.device(device)
    if device == "cuda":
        same_every_time()  # as in a stage
    bench = Bench(case, where, recipe, getattr(torch, precision))
    make = STAGES[case.stage]
    keep_freed_memory()
    make(bench).stage()  # what the libraries load with their first work is no part of it
    begun = held(where)
    pieces = make(bench)
    taken = peak(pieces.stage, where, begun)
    if device == "cuda":
        between = held(where)
        works = {"stage": pieces.stage, "bare": pieces.bare()}
        peaks = [taken, peak(works["bare"], where, between)]
    else:
        bare = pieces.bare
        del pieces
        peaks = [most_in_tensors(lambda: make(bench).stage), most_in_tensors(bare)]
        pieces = make(bench)
        works = {"stage": pieces.stage, "bare": pieces.bare()}
    if pieces.reference is not None:
        works["reference"] = pieces.reference()
    times = side_by_side(works, where, seconds)
    each = {name: 1000 * statistics.median(found) / pieces.units for name, found in times.items()}
    line: dict[str, Any] = dict.fromkeys(COLUMNS)
    line |= asdict(case) | {"unit": pieces.unit, "milliseconds": each["stage"], "bare": each["bare"]}
    line |= {"ratio": ratio(times, "stage", "bare"), "bare_peak_mb": peaks[1] / 2**20, "peak_mb": peaks[0] / 2**20}
    line |= {"process_mb": taken / 2**20 if device == "cpu" else None}
    line |= {"floor_mb": pieces.floor / 2**20, "recipe": recipe, "threads": threads, "precision": precision}
    line |= {"torch": str(torch.__version__)}
    line["device"] = device_name(device)
    code = provenance()
    line |= {"commit": code["commit"], "dirty": str(code["dirty"]).lower()}
    if pieces.reference is not None:
        line |= {"reference": each["reference"], "reference_ratio": ratio(times, "reference", "bare")}
    if device == "cuda":
        from edc.nets.flops import arithmetic

        of = bench.dataset
        macs = sum(arithmetic(name, of.classes, of.image_size, of.channels).macs for name in bench.names)
        rate = 2 * macs * pieces.passes / statistics.median(times["stage"])
        line |= {"kernels": kernels(pieces.stage), "bare_kernels": kernels(works["bare"])}
        line |= {"share_of_matrix_rate": rate / matrix_rate(where)}
    return line


def bench(
    todo: Sequence[Case],
    device: str,
    threads: int,
    seconds: float,
    recipe: str,
    to: Path,
    precision: str = "float32",
) -> pd.DataFrame:
    """Measure cases one after the other, each in a process of its own, and write the table after each.

    A table that stands there already is gone on with: what it holds is not measured again.

    Returns:
        The lines of what was asked for.

    Raises:
        EdcError: there is no such device or precision, or a measurement failed.
    """
    if device not in ("cpu", "cuda"):
        raise unknown_name("device", device, ("cpu", "cuda"), "--device")
    if device == "cuda" and not torch.cuda.is_available():
        raise EdcError("--device cuda: torch can't use a GPU here")
    allowed = get_args(Machine.model_fields["precision"].annotation)
    if precision not in allowed:
        raise unknown_name("precision", precision, allowed, "--precision")
    if recipe not in names("recipes"):
        raise unknown_name("recipe", recipe, names("recipes"), "--recipe")
    try:  # before anything is measured
        to.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdcError(f"--to {to}: {error.strerror}; expected a file to write to") from None
    done = measured(to).to_dict("records") if to.exists() else []
    known = set(map(identity, done))
    common = {"recipe": recipe, "threads": threads, "precision": precision}
    left = [case for case in todo if identity(asdict(case) | common) not in known]
    with bar(len(todo), "bench", len(todo) - len(left), "case") as progress:
        if len(left) < len(todo):
            have = f"{len(todo) - len(left)} of {len(todo)} stand in {to} already"
            print(f"edc: {have}; move it away to have them measured anew", file=sys.stderr)
        for case in left:
            arguments = json.dumps([asdict(case), device, threads, seconds, recipe, precision])
            command = [sys.executable, "-m", "edc.bench.run", arguments]
            environment = without_cache(os.environ) | {"OMP_NUM_THREADS": str(threads)} | QUIET
            made = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
            if made.returncode:
                raise EdcError(f"bench: {case.stage} of {case.network} at {case.images} images failed; see above")
            done.append(json.loads(made.stdout.splitlines()[-1]))
            write(pd.DataFrame(done, columns=COLUMNS), to)
            progress.update()
    asked = {identity(asdict(case) | common) for case in todo}
    return pd.DataFrame([line for line in done if identity(line) in asked], columns=COLUMNS)


def identity(line: Mapping[Any, Any]) -> tuple[Any, ...]:
    """What tells a measurement from others."""
    return tuple(line[name] for name in KEY)


def measured(path: Path) -> pd.DataFrame:
    """A table of measurements.

    Raises:
        EdcError: the file is none.
    """
    try:
        table = pd.read_csv(path, dtype={"dirty": str})
    except (OSError, ValueError) as error:
        raise EdcError(f"{path}: {error}; expected measurements of `edc bench`") from None
    if list(table.columns) != list(COLUMNS):
        raise EdcError(f"{path}: not of today's `edc bench`; expected the columns {', '.join(COLUMNS)}; move it away")
    return table


def write(table: pd.DataFrame, to: Path) -> None:
    """The measurements as CSV."""
    with replacing(to) as temporary:
        table.round(4).to_csv(temporary, index=False)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Sums over the networks for each stage and size: the ratio of the sums, and the largest of a single network.

    Where all networks were measured together, that is their sum. Memory is that of the network that takes most.
    """
    found = []
    for (_, stage, images, seeds, *_, precision), lines in table.groupby(list(GROUPS), sort=False):
        single, together = lines[lines["network"] != ALL], lines[lines["network"] == ALL]
        part = together if len(together) else single
        whole = part["bare"].sum()
        # Decides how much memory a run of the stage takes.
        largest = lines.iloc[int(lines["peak_mb"].astype(float).fillna(0).argmax())]
        reference = part["reference"].sum() / whole if part["reference"].notna().all() else None
        found.append(
            {"stage": stage, "precision": precision, "images": images, "seeds": seeds, "networks": len(single)}
            | {"unit": part["unit"].iloc[0]}
            | {"milliseconds": part["milliseconds"].sum(), "bare": whole, "ratio": part["milliseconds"].sum() / whole}
            | {"largest_ratio": lines["ratio"].max(), "reference_ratio": reference}
            | {"peak_mb": largest["peak_mb"], "peak_to_floor": largest["peak_mb"] / largest["floor_mb"]}
            | {"peak_to_bare": largest["peak_mb"] / largest["bare_peak_mb"], "process_mb": largest["process_mb"]}
        )
    return pd.DataFrame(found)


if __name__ == "__main__":
    case, *rest = json.loads(sys.argv[1])
    try:
        print(json.dumps(measure(Case(**case), *rest)))
    except EdcError as error:
        sys.exit(f"edc: {error}")
