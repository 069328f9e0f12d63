"""Tables of the choices there are and of what each recipe and protocol chooses, for ``generate.py``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
from pydantic import BaseModel

from edc.config.choices import SynthesisChoices
from edc.config.expand import Builder
from edc.config.files import StudyFile, names
from edc.config.protocol import LabelChoices, StudentChoices
from edc.config.rows import EvaluateRow, Plan

MODELS = {"synthesize": SynthesisChoices, "relabel": LabelChoices, "student": StudentChoices}
STUDENT = {"imagenet1k": "torchvision:resnet18", "cifar10": "resnet18"}


def choices(model: str) -> pd.DataFrame:
    """Every key of a model, from its JSON schema."""
    schema = MODELS[model].model_json_schema()
    return pd.DataFrame(_keys(schema["properties"], schema["$defs"]))


def _keys(properties: dict[str, Any], definitions: dict[str, Any], prefix: str = "") -> Iterable[dict[str, str]]:
    for name, written in properties.items():
        types = [part for part in written.get("anyOf", [written]) if part.get("type") != "null"]
        value = {**types[0], **definitions.get(types[0].get("$ref", "").rpartition("/")[2], {})}
        meaning = " ".join(written.get("description", value.get("description", "")).replace("``", "`").split())
        default = str(written.get("default", "required")).replace("None", "null")
        nested = "properties" in value
        yield {
            "key": f"`{prefix}{name}`",
            "values": "" if nested else _values(value),
            "default": "" if nested else default.lower() if value.get("type") == "boolean" else default,
            "meaning": meaning,
        }
        if nested:
            yield from _keys(value["properties"], definitions, f"{prefix}{name}.")


def _values(value: dict[str, Any]) -> str:
    if "enum" in value:
        return ", ".join(f"`{name}`" for name in value["enum"])
    if "prefixItems" in value:
        return "smallest, largest"
    limits = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return ", ".join([value.get("type", ""), *(f"{limits[name]} {value[name]:g}" for name in limits if name in value)])


def space(dataset: str, recipes: list[str], protocols: list[str]) -> tuple[Plan, list[EvaluateRow]]:
    """The plan and the evaluations of recipes under protocols on one dataset, at ten images per class."""
    values = {"description": "", "datasets": [dataset], "ipc": [10], "students": [STUDENT[dataset]]}
    plan = Builder("space", StudyFile(**values, recipes=recipes, protocols=protocols)).build()
    return plan, list(plan.evaluate.values())


def recipes(dataset: str) -> pd.DataFrame:
    """One row per recipe, one column per choice."""
    plan, rows = space(dataset, names("recipes"), ["default"])
    lines = []
    for row in sorted(rows, key=lambda row: row.recipe):
        line: dict[str, Any] = {"recipe": f"`{row.recipe}`", "initialise": "all training images"}
        if row.images is not None:
            made = plan.synthesize[row.images]
            line["initialise"] = differing(made.initialise)
            parts = ["match", "regularise", "augment", "optimise"] if made.optimise.iterations else []
            line |= {name: differing(getattr(made, name)) for name in parts}
            line |= {"observers": len(made.observers) or None, "jpeg": made.jpeg}
        lines.append(line | {"protocol": f"`{row.protocol}`"})
    return pd.DataFrame(lines).astype({"observers": "Int64", "jpeg": "Int64"})


def protocols(dataset: str) -> pd.DataFrame:
    """One row per protocol, one column per choice."""
    plan, rows = space(dataset, ["edc"], [name for name in names("protocols") if name != "real_data"])
    lines = []
    for row in sorted(rows, key=lambda row: row.protocol):
        label = plan.relabel[row.labels or ""]
        lines.append({
            "protocol": f"`{row.protocol}`", "regime": row.regime,
            "teachers": "" if row.regime == "hard" else len(label.observers),
            "relabel": differing(label, {"dataset", "images", "observers", "flip", "epochs", "batch", "min_accuracy"}),
            "loss": "cross-entropy" if row.regime == "hard" else differing(row.loss),
            "optimiser": differing(row.optimiser), "schedule": differing(row.schedule),
            "batch": row.batch, "epochs": row.epochs, "ema": row.ema,
        })  # fmt: skip
    return pd.DataFrame(lines)


def differing(model: BaseModel, hidden: Iterable[str] = ()) -> str:
    """A choice's method and the values that differ from their defaults."""
    words = [str(getattr(model, name)) for name in ("method", "name") if hasattr(model, name)]
    if words == ["none"]:
        return ""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if name in ("method", "name", *hidden) or value == field.default:
            continue
        text = differing(value) if isinstance(value, BaseModel) else str(value).replace("True", "yes")
        words.append(f"{name} {text.replace('False', 'no').replace('(', '[').replace(')', ']')}")
    return ", ".join(words)
