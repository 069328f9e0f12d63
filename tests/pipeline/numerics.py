"""The numbers of the tiny study, as they are recorded in ``numerics.json`` and compared by ``test_numerics.py``.

``python numerics.py CHECKOUT``, with a finished checkout of the tiny study, records them again after a stage's version
was raised.
"""

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from edc.pipeline.devices import device_name
from edc.stages.versions import VERSIONS

CPU = Path("/proc/cpuinfo")
RECORDED = Path(__file__).with_name("numerics.json")


def platform() -> str:
    """What the last bits depend on. Processors with the same vector instructions may have other kernels."""
    facts = dict(re.findall(r"^(vendor_id|cpu family|model)\s*: (.*)$", CPU.read_text(), re.M)) if CPU.exists() else {}
    return ", ".join([device_name("cpu"), *map(" ".join, facts.items()), f"torch {torch.__version__}"])


def numbers(root: Path) -> dict[str, dict[str, Any]]:
    """Per stage: its version, the digests of every run's files, and a few values of each run."""
    stages: dict[str, dict[str, Any]] = {}
    for path in sorted(root.glob("runs/*/*/manifest.json")):
        manifest = json.loads(path.read_text("utf-8"))
        stage = manifest["stage"]
        entry = stages.setdefault(stage, {"version": VERSIONS[stage], "digests": {}, "values": {}})
        entry["digests"][manifest["run"]] = {name: file["sha256"][:16] for name, file in manifest["files"].items()}
        entry["values"][manifest["run"]] = values(path.parent, manifest)
    return stages


def values(folder: Path, manifest: dict[str, Any]) -> dict[str, float]:
    """Means of what a run wrote: of each column of its history, of each tensor, of each array."""
    means: dict[str, float] = {}
    for name in manifest["files"]:
        if name.endswith(".csv"):
            rows = list(csv.DictReader((folder / name).open()))
            for column in rows[0]:
                cells = [float(row[column]) for row in rows if row[column] not in ("", "all")]
                means[f"{name} {column}"] = float(np.mean(cells)) if cells else 0.0
        elif name.endswith(".safetensors"):
            for key, tensor in load_file(folder / name).items():
                means[f"{name} {key}"] = tensor.double().abs().mean().item()
        elif name == "correct.npy":  # a bit per image
            means[name] = 100 * float(np.unpackbits(np.load(folder / name)).mean())
        else:
            means[name] = float(np.abs(np.load(folder / name).astype(np.float64)).mean())
    return means


if __name__ == "__main__":
    recorded = {"platform": platform(), "stages": numbers(Path(sys.argv[1]))}
    RECORDED.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
