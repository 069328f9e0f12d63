"""One case, measured in this process."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict
from typing import Any

import torch

from edc.bench.cases import BenchInputs, Case, Work
from edc.bench.memory import peak, tensor_peak, used
from edc.bench.workloads import STAGES
from edc.pipeline.devices import device_name, keep_freed_memory, same_every_time
from edc.storage.provenance import provenance

MB = 2**20
ROUNDS = 3
"""Least number of rounds, however long they take."""


def measure(
    case: Case, device: str, threads: int, seconds: float, recipe: str, precision: str = "float32"
) -> dict[str, Any]:
    """One row of the table."""
    torch.set_num_threads(threads)
    where = torch.device(device)
    if device == "cuda":
        same_every_time()  # as in a stage
    inputs, make = BenchInputs(case, where, recipe, getattr(torch, precision)), STAGES[case.stage]
    keep_freed_memory()
    make(inputs).stage()  # libraries load parts of themselves with their first work
    before = used(where)
    workload = make(inputs)
    process = peak(workload.stage, where, before)
    if device == "cuda":
        before = used(where)
        bare = workload.bare()
        memory, bare_memory = process, peak(bare, where, before)
    else:
        make_bare = workload.bare
        del workload
        memory, bare_memory = tensor_peak(lambda: make(inputs).stage), tensor_peak(make_bare)
        workload = make(inputs)
        bare = workload.bare()
    work = {"stage": workload.stage, "bare": bare}
    if workload.reference is not None:
        work["reference"] = workload.reference()
    times = in_turns(work, where, seconds)
    each = {name: 1000 * statistics.median(rounds) / workload.units for name, rounds in times.items()}
    code = provenance()
    return asdict(case) | {
        "unit": workload.unit,
        "milliseconds": each["stage"],
        "bare": each["bare"],
        "ratio": ratio(times, "stage", "bare"),
        "reference": each.get("reference"),
        "reference_ratio": ratio(times, "reference", "bare") if workload.reference else None,
        "peak_mb": memory / MB,
        "bare_peak_mb": bare_memory / MB,
        "floor_mb": workload.floor / MB,
        "process_mb": process / MB if device == "cpu" else None,
        "recipe": recipe,
        "threads": threads,
        "precision": precision,
        "device": device_name(device),
        "torch": str(torch.__version__),
        "commit": code["commit"],
        "dirty": str(code["dirty"]).lower(),
    }


def in_turns(work: dict[str, Work], device: torch.device, seconds: float) -> dict[str, list[float]]:
    """Seconds of each piece of work in each round; a round does every piece once, so noise affects all of them alike.

    Rounds go on for so many seconds.
    """

    def seconds_of(function: Work) -> float:
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    for function in work.values():
        seconds_of(function)
    times: dict[str, list[float]] = {name: [] for name in work}
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(next(iter(times.values()))) < ROUNDS:
        for name, function in work.items():
            times[name].append(seconds_of(function))
    return times


def ratio(times: dict[str, list[float]], name: str, base: str) -> float:
    """Median over the rounds of the ratio of two pieces of work."""
    return statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))
