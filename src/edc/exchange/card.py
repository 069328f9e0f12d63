"""The data card of an exported set, ``README.md``: what it is, how it was made, its accuracy, how to load it."""

from __future__ import annotations

from typing import Any

import yaml
from jinja2 import Environment, PackageLoader

from edc.errors import EdcError
from edc.storage import RUNS, read_json

MEANING = {"static": "one per image", "logits": "one per image and epoch"}


def card(manifest: dict[str, Any]) -> str:
    """``README.md`` of an export, whose manifest is given."""
    origin, count = manifest["origin"], manifest["shape"][0]
    front: dict[str, Any] = {
        "pretty_name": origin["run"],
        "license": "other",
        "license_name": "to-be-filled-in",
        "task_categories": ["image-classification"],
        "tags": ["dataset-condensation", "synthetic"],
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
        rows=accuracies(origin["run"], origin["digest"]),
        about_labels="; ".join(f"`{name}.npy` {shape}, {MEANING[name]}" for name, shape in manifest["labels"].items()),
    )


def accuracies(run: str, digest: str) -> list[list[str]]:
    """Student, protocol, regime, seeds and accuracy of the runs that evaluated a set on the test images.

    Args:
        run: the synthesize run.
        digest: of its files.
    """
    rows = []
    for path in sorted((RUNS / "evaluate").glob("*/manifest.json")):
        try:
            manifest = read_json(path)
            row, scores = manifest["params"]["evaluate"], manifest["scores"]
            if manifest["inputs"].get(f"synthesize/{run}") != digest or row["split"] != "test":
                continue
            accuracy = f"{scores['final_mean']:.1f}"
            accuracy += "" if scores["final_std"] is None else f" ± {scores['final_std']:.1f}"
            protocol = row["protocol"] + (f" ({row['variant']})" if row["variant"] else "")
            rows.append([row["student"], protocol, row["regime"], str(len(row["seeds"])), accuracy])
        except (EdcError, KeyError, TypeError, AttributeError):
            continue  # a damaged evaluation is no reason to refuse the export
    return rows
