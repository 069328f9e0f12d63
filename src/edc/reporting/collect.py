"""Finished runs -> rows of the record, from each run's ``manifest.json`` and ``run.json`` alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from pydantic import ValidationError

from edc.config.files import names, read
from edc.config.layers import own_protocol
from edc.config.rows import Plan
from edc.errors import EdcError
from edc.reporting.record import COLUMNS, ENVIRONMENT, QUALITY, STAGES, typed
from edc.storage import digest, fingerprint, manifest_in, read_json, run_folder

NOT_TRAINING = {"recipe", "ipc", "student", "protocol", "images", "labels", "seeds", "variant", "changed"}
"""Values of a row that name images and students, not how these are trained."""
SIZES = ("channels", "parameters", "macs")


def collect(plan: Plan) -> pd.DataFrame:
    """Rows of the plan's finished runs, in the order of the pipeline and of the plan.

    Raises:
        EdcError: a manifest is damaged or holds a value that is not allowed.
    """
    paths = [run_folder(stage, key) / "manifest.json" for stage in STAGES for key in getattr(plan, stage)]
    frames = [typed(pd.DataFrame(rows_of(path), dtype=object), COLUMNS, str(path)) for path in paths if path.exists()]
    return pd.concat(frames, ignore_index=True) if frames else typed(pd.DataFrame(), COLUMNS, "")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of one run, of its manifest and of ``run.json``, which is missing where DVC brought the run."""
    stage, key = path.parent.parent.name, path.parent.name
    manifest, beside = manifest_in(path.parent), path.with_name("run.json")
    environment = read_json(beside) if beside.exists() else {}
    try:
        shared = _shared(stage, manifest) | {name: environment.get(name) for name in ENVIRONMENT}
        return [shared | values for values in _results(stage, manifest)]
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise EdcError(f"{path}: damaged ({problem}); run `edc {stage} --run {key}` again") from None


def _shared(stage: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """What all rows of a run have in common."""
    row, dataset = manifest["params"][stage], manifest["params"]["dataset"]
    facts = {**row, **manifest}
    values = {name: value for name, value in facts.items() if name in COLUMNS and not isinstance(value, (list, dict))}
    values |= {"family": dataset["family"], "digest": digest(manifest), "source": "run"}
    values["subset"] = dataset["train_per_class"] is not None or dataset["test_per_class"] is not None
    values["inputs"] = " ".join(f"{name}={mark}" for name, mark in sorted(manifest["inputs"].items()))
    if stage == "pretrain":
        values["student"] = row["network"]
    if stage == "slimming":
        values["pretrained"] = row.get("pretrained") is not None
    if "protocol" in row:
        values["split"] = row.get("split", "test" if manifest.get("test_digest") else None)
        values |= {"training": training(stage, manifest), "steps": manifest.get("steps")}
        if row["recipe"] in names("recipes"):
            values["own_protocol"] = own_protocol(read("recipes", row["recipe"]), dataset["family"], row["ipc"])
    return values


def _results(stage: str, manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What tells the rows of a run apart: seeds, orders, steps and ratios, with their accuracies."""
    row, scores = manifest["params"][stage], manifest.get("scores", {})
    if stage == "evaluate":
        classes = {"classes": len(manifest["classes"])}
        for i, seed in enumerate(row["seeds"]):
            yield {"seed": seed, "accuracy": scores["final"][i], "best_accuracy": scores["best"][i]} | classes
    elif stage == "continual":
        for i, (order, seed) in enumerate(product(row["orders"], row["seeds"])):
            whole = {"average_accuracy": scores["average"][i], "forgetting": scores["forgetting"][i]}
            for step, (classes, accuracy) in enumerate(zip(scores["classes"], scores["accuracy"][i], strict=True), 1):
                yield {"order": order, "seed": seed, "step": step, "classes": classes, "accuracy": accuracy} | whole
    elif stage == "slimming":
        for i, seed in enumerate(row["seeds"]):
            for j, ratio in enumerate(scores["ratios"]):
                before_after = {"accuracy_before": scores["before"][i][j], "accuracy": scores["after"][i][j]}
                yield {"seed": seed, "ratio": ratio} | before_after | {name: scores[name][i][j] for name in SIZES}
    elif row.get("kind") == "quality":
        yield {"seed": row["quality"]["seed"], "student": manifest["observer"]} | {n: scores[n] for n in QUALITY}
    else:
        yield {"seed": row.get("seed")}


def training(stage: str, manifest: dict[str, Any]) -> str | None:
    """Fingerprint of how a run trained and labelled: equal where only the images, their number or the network differ.

    Two protocols may have the same values for one dataset. What labels are made from (observers, views) is read where
    they were made; None where that manifest is not here, or is of other labels than those the students had.
    """
    row = manifest["params"][stage]
    parts = {"row": chosen(stage, row)}
    labels, inputs = manifest["params"].get("relabel"), manifest["inputs"]
    if labels is None and (key := row["labels"]):
        folder = run_folder("relabel", key)
        relabel = manifest_in(folder) if (folder / "manifest.json").exists() else {}
        if inputs.get(f"relabel/{key}") != fingerprint(relabel.get("files")):
            return None
        labels, inputs = relabel["params"]["relabel"], relabel["inputs"]
    if labels is not None:
        parts |= {"labels": chosen("relabel", labels)}
        parts["observers"] = {name: mark for name, mark in inputs.items() if name.startswith("pretrain/")}
    named = {name: {k: v for k, v in part.items() if k not in NOT_TRAINING} for name, part in parts.items()}
    return fingerprint(named)


def chosen(stage: str, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a row that are not defaults, so that an option newer than a run makes no difference to it.

    All of them, where the stage no longer allows them.
    """
    _, model = get_args(Plan.model_fields[stage].annotation)
    try:
        return dict(model.model_validate(values).model_dump(mode="json", exclude_defaults=True))
    except ValidationError:
        return values
