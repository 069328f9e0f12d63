"""`edc export`: a finished condensed set as an image folder, as Hugging Face parquet or as tensors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader

from edc.config.references import load_plan
from edc.config.rows import Dataset, RelabelRow
from edc.config.validation import validate
from edc.data.images import ImageSet
from edc.data.replay import VIEWS
from edc.errors import EdcError, unknown_name
from edc.exchange.formats import LAYOUTS, NAMES
from edc.exchange.sets import LabelledSet, new_folder, refuse_existing, write_set
from edc.storage import (
    RUNS,
    digest,
    manifest_in,
    read_array,
    read_json,
    read_manifest,
    read_tensors,
    run_folder,
    write_text,
)

MEANING = {"static": "one per image", "logits": "one per image and epoch"}


def export(run: str, to: Path, layout: str, labels: str | None = None, names: str = "class") -> Path:
    """Write a finished synthesize run, with a relabel run of it as its soft labels, to a new folder, which is returned.

    ``names`` are those of class folders: the classes', index (00000) or sre2l (new000/class000_id000.png).

    Raises:
        EdcError: the folder exists, a run is unknown, unfinished or damaged, the labels belong to other images, or a
            class name can't be a folder's.
    """
    if layout not in LAYOUTS:
        raise unknown_name("format", layout, LAYOUTS, "--format")
    if names not in NAMES:
        raise unknown_name("kind of names", names, NAMES, "--names")
    if names != "class" and layout not in ("folder", "fkd"):
        raise EdcError(f"--names {names}: format {layout} has no class folders; expected --format folder")
    refuse_existing(to)
    source = read_run(run, labels)
    if layout == "fkd":
        names = "sre2l" if names == "class" else names  # readers count images in the order of the folders' names
    with new_folder(to) as folder:
        write_text(folder / "README.md", card(write_set(folder, layout, source, names)))
    if layout == "folder" and names == "class" and list(source.images.classes) != sorted(source.images.classes):
        print(
            f"edc: {to}: the class names' alphabetical order is not the label order, so tools that number the folders "
            "(ImageFolder and those that use it) give other labels; translate by classes.json, or --names index",
            file=sys.stderr,
        )
    return to


def read_run(run: str, labels: str | None = None) -> LabelledSet:
    """A finished synthesize run, with the labels of a finished relabel run of it; see :func:`export` for refusals."""
    manifest, folder = finished("synthesize", run), run_folder("synthesize", run)
    dataset: Dataset = validate(Dataset, manifest["params"]["dataset"], f"{folder}: dataset")
    stored = read_tensors(folder / "images.safetensors")
    images = ImageSet(stored["images"], stored["labels"], tuple(manifest["classes"]))
    code = read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    origin = {"run": run, "digest": digest(manifest), "dataset_digest": manifest["dataset_digest"]}
    origin |= {"synthesize": manifest["params"]["synthesize"], **{key: code.get(key) for key in ("commit", "dirty")}}
    if labels is None:
        return LabelledSet(images, dataset, origin)
    relabel, folder = finished("relabel", labels), run_folder("relabel", labels)
    row: RelabelRow = validate(RelabelRow, relabel["params"]["relabel"], f"{folder}: relabel")
    if row.images != run:
        raise EdcError(f"labels {labels!r}: those are labels of {row.images!r}; expected labels of {run!r}")
    if relabel["inputs"].get(f"synthesize/{run}") != digest(manifest):
        remedy = f"run `edc relabel --run {labels}` again"
        raise EdcError(f"labels {labels!r}: made for an earlier version of {run!r}; {remedy}")
    if row.top_k is not None or row.bits < 16:
        raise EdcError(f"labels {labels!r}: stored with top_k or bits; expected all logits in half precision")
    arrays = {name: read_array(folder / f"{name}.npy") for name in ("static", "logits")}
    arrays = {name: array for name, array in arrays.items() if len(array)}  # imported ones may have no epoch
    views = read_tensors(folder / VIEWS) if row.replay == "stored" else {}
    return LabelledSet(images, dataset, origin | {"labels": labels}, arrays, row, views)


def finished(stage: str, run: str) -> dict[str, Any]:
    """The manifest of a finished run, checked; where there is none, the nearest name is offered."""
    if not (run_folder(stage, run) / "manifest.json").is_file():
        raise unknown_run(stage, run)
    return read_manifest(stage, run)


def unknown_run(stage: str, run: str) -> EdcError:
    """An error for a run that is not there or not finished."""
    if Path("params.yaml").exists() and run in getattr(load_plan(), stage):
        return EdcError(f"{stage} run {run!r}: not finished yet; run `edc {stage} --run {run}` or `edc run`")
    known = [path.parent.name for path in (RUNS / stage).glob("*/manifest.json")]
    return unknown_name(f"finished {stage} run", run, known, str(RUNS / stage))


def card(manifest: dict[str, Any]) -> str:
    """``README.md`` of an export, whose manifest is given."""
    origin, count = manifest["origin"], manifest["shape"][0]
    front: dict[str, Any] = {
        "pretty_name": origin["run"],
        "license": "other",
        "license_name": "to-be-filled-in",
        "task_categories": ["image-classification"],
        "tags": ["dataset-condensation", "dataset-distillation", f"ipc-{count // len(manifest['classes'])}"],
        "source_datasets": [manifest["dataset"]["name"]],
        "size_categories": ["n<1K" if count < 1000 else "1K<n<10K" if count < 10_000 else "10K<n<100K"],
    }
    if manifest["layout"] == "parquet":
        front["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}]
    environment = Environment(loader=PackageLoader("edc", "exchange"), trim_blocks=True, keep_trailing_newline=True)
    return environment.get_template("card.md.j2").render(
        manifest,
        front=yaml.safe_dump(front, sort_keys=False),
        recipe=origin["synthesize"],
        ordered=manifest["names"] != "class" or manifest["classes"] == sorted(manifest["classes"]),
        rows=accuracies(origin["run"], origin["digest"]),
        about_labels="; ".join(f"`{name}.npy` {shape}, {MEANING[name]}" for name, shape in manifest["labels"].items()),
    )


def accuracies(run: str, images: str) -> list[list[str]]:
    """Student, protocol, regime, seeds and accuracy of the runs that evaluated these images on the test set."""
    rows = []
    for path in sorted((RUNS / "evaluate").glob("*/manifest.json")):
        try:
            manifest = manifest_in(path.parent)
            row, scores = manifest["params"]["evaluate"], manifest["scores"]
            if manifest["inputs"].get(f"synthesize/{run}") != images or row["split"] != "test":
                continue
            accuracy = f"{scores['final_mean']:.1f}"
            accuracy += "" if scores["final_std"] is None else f" ± {scores['final_std']:.1f}"
            protocol = row["protocol"] + (f" ({row['variant']})" if row["variant"] else "")
            rows.append([row["student"], protocol, row["regime"], str(len(row["seeds"])), accuracy])
        except (EdcError, KeyError, TypeError, AttributeError):
            continue  # a damaged evaluation is no reason to refuse the export
    return rows
