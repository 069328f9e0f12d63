"""A checkout with one finished condensed set of three classes, its labels and an evaluation, written by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from edc.storage import digest, run_folder, sha256, write_json, write_tensors
from support import one_line

RUN, LABELS = "pets-edc-ipc3", "pets-edc-ipc3-edc"
CLASSES = ("cat", "ant", "bee")  # not sorted
OF_IMAGES = torch.arange(3).repeat_interleave(3)
DATA: dict[str, Any] = {
    "family": "pets", "kind": "digits", "image_size": 8, "channels": 3, "classes": 3, "class_names": list(CLASSES),
    "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3],
}  # fmt: skip
DATASET: dict[str, Any] = {"name": "pets"} | DATA
REPLAY: dict[str, Any] = {
    "dataset": "pets", "images": RUN, "observers": ["pets-o"], "flip": True, "epochs": 4, "batch": 4,
}  # fmt: skip
FORMATS = ("folder", "parquet", "torch")


def pixels(n: int = 9, channels: int = 3, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, size, size), generator=generator, dtype=torch.uint8)


def make_project() -> None:
    """In the current directory."""
    row = {"dataset": "pets", "recipe": "edc", "ipc": 3, "seed": 0, "optimise": {"iterations": 0}}
    finish("synthesize", RUN, row, {"images.safetensors": {"images": pixels(), "labels": OF_IMAGES}})
    rng = np.random.default_rng(0)
    static = (8 * np.eye(3)[OF_IMAGES] + rng.normal(size=(9, 3))).astype(np.float16)
    logits = rng.normal(size=(4, 9, 3)).astype(np.float16)
    finish("relabel", LABELS, REPLAY, {"static.npy": static, "logits.npy": logits}, (RUN,))
    student = {"student": "convnet_d2", "protocol": "edc", "regime": "soft", "seeds": [0, 1], "variant": ""}
    for split, accuracy in (("test", 81.25), ("val", 99.0)):
        scores = {"final_mean": accuracy, "final_std": 0.5}
        finish("evaluate", f"{RUN}-{split}", student | {"split": split}, {}, (RUN,), scores=scores)
    rates = {"optimiser": {"name": "sgd", "lr": 0.1}, "schedule": {"name": "constant"}}
    dataset = {"description": "d", "title": "t", "data": DATA, "observers": ["convnet_d1"]}
    dataset |= {"pretrain": {"epochs": 1, "batch": 4, **rates}, "statistics": {"patch": 1, "batch": 4}}
    write_yaml("workflow/datasets/pets.yaml", dataset)
    write_yaml("workflow/recipes/edc.yaml", {"description": "d", "source": "s", "protocol": "edc"})


def write_yaml(path: str, values: object) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(yaml.safe_dump(values))


def finish(
    stage: str, run: str, row: dict[str, Any], files: dict[str, Any], inputs: tuple[str, ...] = (), **facts: Any
) -> None:
    """Write the files of a run as a stage does."""
    folder = run_folder(stage, run)
    folder.mkdir(parents=True)
    for name, content in files.items():
        write_tensors(folder / name, content) if isinstance(content, dict) else np.save(folder / name, content)
    values = {
        "stage": stage,
        "run": run,
        "version": 1,
        "params": {stage: row, "dataset": DATASET | {"root": "/here"}},
        "inputs": {f"synthesize/{key}": digest(manifest(run_folder("synthesize", key))) for key in inputs},
        "dataset_digest": "0" * 64,
        "classes": list(CLASSES),
        "files": {n: {"bytes": (folder / n).stat().st_size, "sha256": sha256(folder / n)} for n in files},
    }
    write_json(folder / "manifest.json", values | facts)
    write_json(folder / "run.json", {"commit": "c0ffee", "dirty": False})


def manifest(folder: str | Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(Path(folder, "manifest.json").read_text())
    return values


def refused(call: Callable[[], object], *parts: str) -> None:
    """A call ends with one line that has these parts, and writes nothing."""
    before = sorted(Path().rglob("*"))
    with one_line(*parts):
        call()
    assert sorted(Path().rglob("*")) == before
