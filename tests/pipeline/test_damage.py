"""Damaged files are noticed: their run is made again with the same bytes, or refused in one line that names the file.

EDC_TEST_DAMAGE sets how many are damaged: after every 26, one of each kind in each way. One takes 10 to 20 seconds on
an idle core. What became of each is printed (``pytest -s``), and counted at the end.
"""

import csv
import json
import os
import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import Checkout
from test_faults import LONGER, RUNS, interrupted

CASES = int(os.environ.get("EDC_TEST_DAMAGE", "8"))
KINDS = {
    "weights": ("runs/pretrain/*/weights.safetensors", "edc statistics --force"),
    "statistics": ("runs/statistics/*/*.safetensors", f"edc synthesize --force --run {RUNS['synthesize']}"),
    "images": (f"runs/synthesize/{RUNS['synthesize']}/*.safetensors", f"edc relabel --force --run {RUNS['relabel']}"),
    "labels": (f"runs/relabel/{RUNS['relabel']}/logits.npy", f"edc evaluate --force --run {RUNS['evaluate']}"),
    "static labels": (f"runs/relabel/{RUNS['relabel']}/static.npy", "edc tables"),
    "accuracies": ("runs/evaluate/*/history.csv", "edc tables"),
    "correct images": ("runs/evaluate/*/correct.npy", "edc tables"),
    "manifests, run again": ("runs/*/*/manifest.json", "edc run"),
    "manifests, collected": ("runs/*/*/manifest.json", "edc tables"),
    "record": ("results/runs.csv", "edc tables"),
    "copies": ("results/*/learning.csv", "edc tables"),
    "plan": ("params.yaml", "edc run"),
    "recipe": ("workflow/recipes/edc.yaml", "edc plan tiny"),
}
"""Files, and a command that reads them."""


def truncated(content: bytes, rng: random.Random) -> bytes:
    """The first half, of what has been filled."""
    return content[: len(content.rstrip(b"\0")) // 2]


def flipped(content: bytes, rng: random.Random) -> bytes:
    """One bit is another, in what has been filled."""
    damaged, place = bytearray(content), rng.randrange(8 * len(content.rstrip(b"\0")))
    damaged[place // 8] ^= 1 << place % 8
    return bytes(damaged)


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (truncated, flipped)


def keys(value: Any, path: tuple[Any, ...] = ()) -> Iterable[tuple[Any, ...]]:
    """Paths of all values of a YAML file."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from keys(inner, (*path, key))


def valid(name: str, whole: bytes, damaged: bytes) -> bool:
    """Whether a text is valid still: with another value or run's name, or with the same values in other letters."""
    try:
        if name.endswith(".yaml"):
            old, new = (yaml.safe_load(text) for text in (whole, damaged))
            return old != new and list(keys(old)) == list(keys(new))
        if name.endswith("runs.csv"):
            old, new = (list(csv.DictReader(text.decode().splitlines())) for text in (whole, damaged))
            return [row.get("run") for row in old] != [row.get("run") for row in new]
        if name.endswith(".json"):
            return json.loads(whole) == json.loads(damaged) or b'"fingerprint"' not in damaged
    except (ValueError, yaml.YAMLError):
        pass
    return False


def outcome(project: Checkout, path: Path, command: str) -> str:
    """What a command does with a damaged file; where it is refused, a run is made again as the line says."""
    name, done = path.relative_to(project.root).as_posix(), project.run(*command.split())
    if done.returncode == 0:
        return "same bytes"
    lines = done.stderr.splitlines()
    assert done.returncode == 2, done.stderr
    assert all(line.startswith("edc: ") for line in lines), done.stderr
    assert name in done.stderr, done.stderr
    if name.startswith("runs/"):
        for remedy in dict.fromkeys(re.findall("`(edc [^`]*)`", done.stderr)) or ["edc run"]:
            project.ok(*remedy.split())
    return "refused"


@pytest.mark.slow
def test_damaged_files_never_give_other_numbers_in_silence(finished):
    shutil.rmtree(finished.path(".dvc"))  # its lock file is its own, and its commits take time
    rng, before, counts = random.Random(0), finished.files(), Counter[str]()
    times = {path: path.read_bytes() for path in finished.root.glob("runs/*/*/run.json")}
    cases = sorted(product(KINDS, DAMAGES), key=lambda _: rng.random())
    for kind, damage in islice(cycle(cases), CASES):
        pattern, command = KINDS[kind]
        path = rng.choice(sorted(finished.root.glob(pattern)))
        whole = path.read_bytes()
        damaged = damage(whole, rng)
        while damage is flipped and valid(path.name, whole, damaged):
            damaged = damage(whole, rng)
        path.write_bytes(damaged)
        result = outcome(finished, path, command)
        if path.suffix == ".yaml" or (result == "refused" and path.is_relative_to(finished.path("results"))):
            path.write_bytes(whole)
        for other, content in times.items():  # the record has them
            other.write_bytes(content)
        finished.ok("edc", "tables")
        changed = {name for name, digest in finished.files().items() if before.get(name) != digest}
        assert not changed, f"{damage.__name__} {path}, {command}: {result}, and {changed} differ"
        counts[f"{kind}, {damage.__name__}: {result}"] += 1
        print(f"{counts.total()} of {CASES}: {kind}, {damage.__name__}: {result}", flush=True)
    print(*(f"{count:4} {case}" for case, count in sorted(counts.items())), sep="\n")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["relabel", "evaluate"])
def test_a_damaged_checkpoint_costs_time_but_no_byte(finished, tmp_path, stage):
    rng, key = random.Random(0), RUNS[stage]
    finished.edit({f"{stage}.{key}.{name}": value for name, value in LONGER[stage].items()})
    whole = finished.copy(tmp_path / "whole")
    whole.ok("edc", stage, "--run", key)
    assert any(interrupted(finished, stage, signal.SIGKILL) for _ in range(5))
    folder = finished.path(".edc/checkpoints", stage)
    # What a kill in the middle of a write leaves, a .tmp, is never read.
    kept = {path: path.read_bytes() for path in folder.iterdir() if path.suffix != ".tmp"}
    for path, damage in islice(cycle(product(kept, DAMAGES)), max(2 * len(kept), CASES // 8)):
        shutil.rmtree(finished.path("runs", stage, key), ignore_errors=True)
        for other, content in kept.items():
            other.write_bytes(damage(content, rng) if other == path else content)
        assert "resumes" not in finished.ok("edc", stage, "--run", key) or path.suffix == ".npy"
        assert finished.outputs() == whole.outputs(), f"{damage.__name__} {path}"
