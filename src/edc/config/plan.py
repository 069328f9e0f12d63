"""Studies -> plan: every run of every stage, with every value, in ``params.yaml``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edc import STAGES
from edc.config.compact import compact, text
from edc.config.expand import Builder, Origin, identity
from edc.config.files import read
from edc.config.partial import Values
from edc.config.references import check_references
from edc.config.rows import Plan, StudyRuns, free_key
from edc.config.validation import validate
from edc.errors import EdcError
from edc.nets import build
from edc.storage import STATE, read_text, write_text
from edc.storage.planlock import replacing_plan

HEADER = """\
# yaml-language-server: $schema=workflow/schema/params.json
# Written by `edc plan {studies}`. Values may be edited here; what depends on them becomes stale. Defaults are left out
# of datasets, recipes, labels and training; `edc explain RUN` prints every value of a run and its origin.
"""

Run = tuple[str, str]
"""Stage and key."""
SMALLEST = 8
"""Side of an image in pixels that every network of this package takes."""


def make_plan(*names: str) -> Plan:
    """Spell studies out, side by side in one plan.

    Raises:
        EdcError: a name is unknown, a value is not allowed, or a network cannot take a dataset's images.
    """
    plan = expand_studies(names)[0]
    check_sizes(plan)
    return plan


def check_sizes(plan: Plan) -> None:
    """Refuse networks that cannot take the images of their dataset."""
    pairs = {(row.dataset, row.network): f"pretrain.{key}.network" for key, row in plan.pretrain.items()}
    for stage in StudyRuns.model_fields:
        pairs |= {(row.dataset, row.student): f"{stage}.{key}.student" for key, row in getattr(plan, stage).items()}
    for (name, network), place in pairs.items():
        dataset = plan.datasets[name]
        if ":" not in network and dataset.image_size >= SMALLEST:
            continue
        import torch

        size: dict[str, Any] = dataset.model_dump(include={"classes", "image_size", "channels"}) | {"load": False}
        try:
            try:
                with torch.device("meta"):  # without values: milliseconds
                    build(network, **size)
            except EdcError:  # it may be one that cannot be built so
                build(network, **size)
        except EdcError as error:
            raise EdcError(
                f"params.yaml would have {place} = {network!r} on {name} ({dataset.image_size} px): {error}; "
                "expected another network, or another image_size of the dataset"
            ) from None


def expand_studies(names: Sequence[str]) -> tuple[Plan, dict[Run, list[Origin]]]:
    """As :func:`make_plan`, with where the values of each row were written."""
    builders = [Builder(name, read("studies", name)) for name in dict.fromkeys(names)]
    plans = [builder.build() for builder in builders]
    if len(plans) == 1:
        return plans[0], builders[0].origins
    combined, origins = plans[0].model_dump(mode="json"), dict(builders[0].origins)
    for plan, builder in zip(plans[1:], builders[1:], strict=True):
        keys = add(combined, plan.model_dump(mode="json"), builder.name)
        origins = {(stage, keys[stage, key]): found for (stage, key), found in builder.origins.items()} | origins
    made: Plan = validate(Plan, combined, "params.yaml")
    check_references(made, "params.yaml")
    return made, origins


def add(plan: Values, other: Values, study: str) -> dict[Run, str]:
    """Add, in place, the runs of a study's plan; returns the key of each. Those with the same values are shared.

    Raises:
        EdcError: both have a dataset of the same name with different values.
    """
    for name, dataset in other["datasets"].items():
        if plan["datasets"].setdefault(name, dataset) != dataset:
            raise EdcError(
                f"study {study!r}: its overrides make another dataset of {name!r} than the studies before it have; "
                "plan it by itself"
            )
    keys: dict[Run, str] = {}
    for stage in list(STAGES)[:-1]:
        rows = plan[stage]
        known = {identity(row): key for key, row in reversed(rows.items())}
        for key, row in other[stage].items():
            _rename(row, keys)
            keys[stage, key] = known.get(identity(row)) or free_key(key, rows)
            rows.setdefault(keys[stage, key], row)
    runs = other["studies"][study]
    plan["studies"][study] = {
        stage: list(dict.fromkeys(keys[stage, key] for key in run_keys)) for stage, run_keys in runs.items()
    }
    return keys


def _rename(row: Values, keys: dict[Run, str]) -> None:
    """Let a row name the runs it builds on by their new keys."""
    for name in row.keys() & {"observers", "scorers"}:
        row[name] = [keys["pretrain", key] for key in row[name]]
    for name, stage in (("statistics", "statistics"), ("images", "synthesize"), ("labels", "relabel")):
        if row.get(name) is not None:
            row[name] = keys[stage, row[name]]


def render(plan: Plan) -> str:
    """``params.yaml`` as text."""
    return HEADER.format(studies=" ".join(plan.studies)) + text(compact(plan))


def write_plan(plan: Plan, root: Path = Path(".")) -> Path | None:
    """Write ``params.yaml``, atomically; returns where another one is kept that stood there, perhaps edited by hand.

    Raises:
        EdcError: a runner works on another plan.
    """
    path, kept = root / "params.yaml", None
    written, old = render(plan), read_text(path)
    if old is not None and old != written:
        kept = root / STATE / f"params.{hashlib.sha256(old.encode()).hexdigest()[:8]}.yaml"  # none is overwritten
        with replacing_plan(root):
            write_text(kept, old)
            write_text(path, written)
    elif old is None:
        write_text(path, written)
    return kept
