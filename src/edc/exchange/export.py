"""`edc export`: a finished condensed set as an image folder, as Hugging Face parquet or as tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edc.config.rows import Dataset, RelabelRow
from edc.config.validation import validate
from edc.data.images import ImageSet
from edc.errors import EdcError, unknown_name
from edc.exchange.card import card
from edc.exchange.formats import LAYOUTS
from edc.exchange.sets import LabelledSet, new_folder, refuse_existing, write_set
from edc.storage import RUNS, digest, read_array, read_json, read_manifest, read_tensors, run_folder, write_text


def export(run: str, to: Path, layout: str, labels: str | None = None) -> Path:
    """Write a finished condensed set to a new folder, which is returned.

    Args:
        run: a finished synthesize run.
        to: the folder, which must not exist.
        layout: folder, parquet or torch.
        labels: a finished relabel run of these images; None: without soft labels.

    Raises:
        EdcError: the folder exists, a run is unknown, unfinished or damaged, the labels belong to other images, or a
            class name can't be a folder's.
    """
    if layout not in LAYOUTS:
        raise unknown_name("format", layout, LAYOUTS, "--format")
    refuse_existing(to)
    source = read_run(run, labels)
    with new_folder(to) as folder:
        write_text(folder / "README.md", card(write_set(folder, layout, source)))
    return to


def read_run(run: str, labels: str | None = None) -> LabelledSet:
    """A finished synthesize run, with the labels of a finished relabel run.

    Raises:
        EdcError: a run is unknown, unfinished or damaged, or the labels belong to other images.
    """
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
    arrays = {name: read_array(folder / f"{name}.npy") for name in ("static", "logits")}
    arrays = {name: array for name, array in arrays.items() if len(array)}  # imported ones may have no epoch
    return LabelledSet(images, dataset, origin | {"labels": labels}, arrays, row)


def finished(stage: str, run: str) -> dict[str, Any]:
    """The manifest of a finished run.

    Raises:
        EdcError: there is no such run (the nearest name is offered), or one of its files is damaged.
    """
    if not (run_folder(stage, run) / "manifest.json").is_file():
        known = [path.parent.name for path in (RUNS / stage).glob("*/manifest.json")]
        raise unknown_name(f"finished {stage} run", run, known, str(RUNS / stage))
    return read_manifest(stage, run)
