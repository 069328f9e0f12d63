"""``params.yaml`` as it is written: values that rows share stand once, and rows name them.

Sections ``recipes``, ``labels`` and ``training`` hold the shared values. A row that names some of them has those, and
lays the values written in itself over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

import yaml
from pydantic import create_model

from edc.config.choices import SynthesisChoices
from edc.config.partial import Part, Values, merge
from edc.config.protocol import LabelChoices, StudentChoices
from edc.config.rows import Plan, StudentRow, free_key
from edc.config.validation import SCIENTIFIC, Model
from edc.errors import unknown_name

_TRAINING = ("training", "training_values")
SECTIONS = {
    "synthesize": ("recipes", "recipe_values"),
    "relabel": ("labels", "label_values"),
    "evaluate": _TRAINING,
    "continual": _TRAINING,
    "slimming": _TRAINING,
    "analysis": _TRAINING,
}
"""Stage -> section of the values its rows share, and the key under which a row names them."""

SHARED = {
    "recipes": (*SynthesisChoices.model_fields, "statistics", "observers", "scorers", "precision"),
    "labels": (*LabelChoices.model_fields, "observers", "precision"),
    # Epochs and batch stand in each row: they change with the images per class.
    "training": (
        "regime",
        *(name for name in StudentChoices.model_fields if name not in ("epochs", "batch")),
        "precision",
    ),
}
"""Section -> which values it holds."""

FEW = 4
"""In how many values a row may differ from the shared ones it names; one that differs in more gets its own."""

FIRST = ("dataset", "network", "recipe", "ipc", "student", "protocol", "images", "labels", "seed", "seeds")
"""Values a row begins with."""

UNSAID = {"variant": "", "changed": False, "split": "test", "pretrained": None}
"""Values that a row need not write."""


def _plan_file() -> type[Model]:
    """The model of ``params.yaml``: a plan whose rows may leave out what they share, and the shared values."""
    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in Plan.model_fields.items()}
    for stage, (section, key) in SECTIONS.items():
        _, row = get_args(Plan.model_fields[stage].annotation)
        shared = StudentRow if section == "training" else row
        fields[section] = dict[str, Annotated[Values, Part(shared)]], {}
        fields[stage] = dict[str, Annotated[Values, Part(row, **{key: str})]], {}
    made: type[Model] = create_model("PlanFile", __base__=Model, **fields)
    return made


PlanFile = _plan_file()


def expanded(file: Model, where: str) -> Values:
    """The values of a :class:`Plan`: every row with what it shares; refuses names of shared values that don't exist."""
    values: Values = {name: getattr(file, name) for name in Plan.model_fields}
    for stage, (section, key) in SECTIONS.items():
        shared, rows = getattr(file, section), {}
        for name, row in values[stage].items():
            own = {k: value for k, value in row.items() if k != key}
            if key in row and row[key] not in shared:
                raise unknown_name(f"entry of {section}", row[key], shared, f"{where}: {stage}.{name}.{key}")
            rows[name] = merge(shared[row[key]], own) if key in row else own
        values[stage] = rows
    return values


def compact(plan: Plan) -> Values:
    """The same plan with shared values written once: what :func:`expanded` takes."""
    plain, bare = (plan.model_dump(mode="json", exclude_defaults=exclude) for exclude in (False, True))
    sections = {section: Shared() for section in SHARED}
    for stage, (section, reference) in SECTIONS.items():
        for key, row in plain[stage].items():
            values = {name: row[name] for name in SHARED[section]}
            said = {name: value for name, value in _ordered(row).items() if UNSAID.get(name, ...) != value}
            own = {name: value for name, value in said.items() if name not in values}
            # A relabel row's protocol stands in its key alone.
            preferred = row.get("protocol") or row.get("recipe") or key.removeprefix(f"{row.get('images')}-")
            short = {name: value for name, value in bare[stage][key].items() if name in values}
            name, different = sections[section].place(preferred, values, short)
            plain[stage][key] = own | {reference: name} | different
    for stage in ("pretrain", "statistics"):
        plain[stage] = {key: _ordered(row) for key, row in plain[stage].items()}
    head = {name: plain.pop(name) for name in ("studies", "machine", "datasets")}
    head["studies"] = {
        study: {stage: keys for stage, keys in runs.items() if keys} for study, runs in head["studies"].items()
    }
    head["datasets"] = bare["datasets"]
    shared = {section: entries.short for section, entries in sections.items()}
    # Empty sections too: DVC refuses a stage whose section is missing.
    return head | shared | plain


def _ordered(row: Values) -> Values:
    return {name: row[name] for name in (*FIRST, *row) if name in row}


class Shared:
    """The entries of one section by name; ``short``: without those that are the models' defaults, as written."""

    def __init__(self) -> None:
        self.values: dict[str, Values] = {}
        self.short: dict[str, Values] = {}
        self._names: dict[str, list[str]] = {}

    def place(self, preferred: str, values: Values, short: Values) -> tuple[str, Values]:
        """The entry for some values and in what they differ from it; a new entry where none is near.

        ``preferred`` is the name of the recipe or protocol, whose own entries alone are considered.
        """
        names = self._names.setdefault(preferred, [])
        differences = [(name, difference(values, self.values[name])) for name in names]
        name, different = min(differences, key=lambda pair: count(pair[1]), default=("", values))
        if count(different) <= FEW:
            return name, different
        name = free_key(preferred, self.values)
        names.append(name)
        self.values[name], self.short[name] = values, short
        return name, {}


def difference(values: Values, base: Values) -> Values:
    """What must be laid over ``base``, which has the same keys, to get ``values``."""
    found: Values = {}
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(base[key], dict):
            if inner := difference(value, base[key]):
                found[key] = inner
        elif value != base[key]:
            found[key] = value
    return found


def count(values: Values) -> int:
    """How many values stand in nested mappings."""
    return sum(count(value) if isinstance(value, dict) else 1 for value in values.values())


class _Flow(dict[str, Any]):
    """A mapping written on one line, as far as it fits."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


# Text such as 1e5 needs quotes for readers of YAML 1.2.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", SCIENTIFIC, list("-+0123456789"))
_Dumper.add_representer(
    _Flow, lambda dumper, values: dumper.represent_mapping("tag:yaml.org,2002:map", values, flow_style=True)
)


def text(values: Mapping[str, Any]) -> str:
    """A compact plan as YAML: a line for each value of datasets and shared entries, and one or two for each row."""
    inline: Values = {}
    for section, entries in values.items():
        if section in SHARED:
            entries = {
                name: {key: _Flow(v) if isinstance(v, dict) else v for key, v in entry.items()}
                for name, entry in entries.items()
            }
        elif section not in ("studies", "datasets", "machine"):
            entries = {key: _Flow(row) for key, row in entries.items()}
        inline[section] = entries
    return yaml.dump(inline, Dumper=_Dumper, sort_keys=False, width=112, default_flow_style=None)
