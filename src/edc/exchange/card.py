"""The data card of an exported set: what it is, how it was made, what it is good for, how to open it."""

from __future__ import annotations

from typing import Any

import yaml

from edc.errors import EdcError
from edc.reporting.evaluations import finished
from edc.storage import fingerprint, read_json

OPENING = {
    "folder": """\
from torchvision.datasets import ImageFolder

images = ImageFolder("PATH/OF/THIS/FOLDER")
labels = json.load(open("PATH/OF/THIS/FOLDER/classes.json"))["imagefolder_to_label"]  # ImageFolder sorts by name
```

`classes.json` has the classes in label order. `labels[i]` is the label of what ImageFolder calls class i.
""",
    "parquet": """\
from datasets import load_dataset

images = load_dataset("parquet", data_files="PATH/OF/THIS/FOLDER/data/*.parquet")["train"]
```

The column {image!r} is an image, {label!r} its class; the names of the classes are in the file's metadata.
""",
    "torch": """\
from safetensors.torch import load_file

tensors = load_file("PATH/OF/THIS/FOLDER/condensed.safetensors")  # images uint8 (N, C, S, S), labels int64 (N,)
```

The names of the classes are in `manifest.json`, and as JSON in the file's own metadata under `edc`.
""",
}
SOFT = """
With its soft labels and the augmentation they were made under (needs the package `edc`):

```python
import edc
condensed = edc.load("PATH/OF/THIS/FOLDER")
loader = torch.utils.data.DataLoader(condensed, batch_size=condensed.batch)  # image, soft label (logits), class
```

`{file}` holds {what}. The replay choices stand in its metadata and in `manifest.json`.
"""


def card(manifest: dict[str, Any], made: dict[str, Any]) -> str:
    """README.md of an export.

    Args:
        manifest: of the export.
        made: the manifest of its synthesize run.
    """
    dataset, choices = manifest["dataset"], manifest["params"]["synthesize"]
    count, channels, size, _ = manifest["shape"]
    name, image, label = dataset["name"], dataset["image_column"], dataset["label_column"]
    front: dict[str, Any] = {
        "pretty_name": manifest["run"],
        "license": "other",
        "license_name": "to-be-filled-in",
        "task_categories": ["image-classification"],
        "tags": ["dataset-condensation", "synthetic"],
        "source_datasets": [name],
        "size_categories": ["n<1K" if count < 1000 else "1K<n<10K" if count < 10_000 else "10K<n<100K"],
    }
    if manifest["layout"] == "parquet":
        front["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}]
    commit = (manifest["made_from"] or {}).get("commit") or "unknown"
    if (manifest["made_from"] or {}).get("dirty") == "true":
        commit += ", with uncommitted changes"
    opening = OPENING[manifest["layout"]].replace("{image!r}", repr(image)).replace("{label!r}", repr(label))
    colour = "grey" if channels == 1 else "RGB"
    text = f"""\
---
{yaml.safe_dump(front, sort_keys=False)}---

# {manifest["run"]}

A condensed stand-in for the training images of **{name}**: {count} images of {len(manifest["classes"])} classes,
{choices["ipc"]} of each, {size} x {size} pixels, {colour}. Networks are meant to learn from it; people need not
recognise anything in it.

| | |
| --- | --- |
| source dataset | {name}, training images with digest `{manifest["dataset_digest"][:16]}` |
| recipe | {choices["recipe"]} (every value in `manifest.json`) |
| seed | {choices["seed"]} |
| made with | edc {manifest["edc"]}, commit {commit} |
| normalise with | mean {dataset["mean"]}, standard deviation {dataset["std"]}, of pixels in [0, 1] |
| digest | `{manifest["digest"]}` (images, classes, names) |

## Licence

To be filled in by who shares this set. Its images derive from {name}, so the terms of that dataset apply.

## Accuracy

{accuracy(manifest["run"], made)}
## How to load

```python
{"import json" + chr(10) if manifest["layout"] == "folder" else ""}{opening}"""
    if told := manifest["labels"]:
        parts = [
            f"`{n}` {tuple(told[n])}: {what}"
            for n, what in (("static", "one an image"), ("logits", "one an image and epoch"))
            if told[n]
        ]
        text += SOFT.format(file=told["file"], what="; ".join(parts))
    return text


def accuracy(run: str, made: dict[str, Any]) -> str:
    """What students that learned from these very images reached on the real test set, as Markdown."""
    rows = []
    for path in finished("evaluate"):
        try:
            found = read_json(path)
            if found["inputs"].get(f"synthesize/{run}") != fingerprint(made["files"]):
                continue
            judged, scores = found["params"]["evaluate"], found["scores"]
            spread = "" if scores["final_std"] is None else f" ± {scores['final_std']:.1f}"
            variant = f" ({judged['variant']})" if judged.get("variant") else ""
            cells = (judged["student"], judged["protocol"] + variant, judged["regime"], str(len(judged["seeds"])))
            rows.append(f"| {' | '.join(cells)} | {scores['final_mean']:.1f}{spread} |")
        except (EdcError, KeyError, TypeError):
            continue  # a damaged result of another run is no reason to withhold this set
    if not rows:
        return "Not measured yet.\n"
    head = "| student | protocol | labels | seeds | accuracy, % |\n| --- | --- | --- | --- | --- |\n"
    return f"On the real test images, after the last epoch:\n\n{head}" + "\n".join(rows) + "\n"
