"""Where the values of a run come from: file, line and layer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from edc import STAGES
from edc.config.compact import SECTIONS
from edc.config.expand import Origin
from edc.config.files import chain
from edc.config.layers import Place
from edc.config.plan import Run, expand_studies
from edc.config.references import load_plan
from edc.config.rows import Plan
from edc.config.validation import LOADER
from edc.errors import EdcError, unknown_name

PARAMS = Path("params.yaml")
STUDY = ("dataset", "recipe", "ipc", "student", "protocol", "seeds", "split", "variant", "precision")
"""Values that a study crosses, or gives to all of its rows."""
COMPUTED = ("flip", "min_accuracy", "observers", "scorers", "statistics", "images", "labels", "changed", "network")
"""Values that follow from the dataset or other rows where no file gives them."""


def explain(name: str, key: str = "") -> list[tuple[str, str, str]]:
    """The sources of a run's values, or of those of one key: for each its key, as JSON, and where it comes from.

    Raises:
        EdcError: there is no plan, no such run, or no such value.
    """
    plan = load_plan(PARAMS)
    run = find(plan, name)
    values = dict(leaves(plan.row(*run).model_dump(mode="json")))
    chosen = [place for place in values if not key or f"{'.'.join(place)}.".startswith(f"{key}.")]
    if not chosen:
        raise unknown_name("value", key, map(".".join, values), "/".join(run))
    try:
        studies, origins = expand_studies(list(plan.studies))
        written = dict(leaves(studies.row(*run).model_dump(mode="json")))
    except EdcError:  # a row written by hand, or a study that has changed since
        written, origins = {}, {}
    sources = []
    for place in chosen:
        as_written = place in written and written[place] == values[place]
        where = _source(run, place, values[place], origins[run]) if as_written else _edited(run, place)
        sources.append((".".join(place), json.dumps(values[place]), where))
    return sources


def find(plan: Plan, name: str) -> Run:
    """The run of a name: STAGE/KEY, or a key that only one stage has."""
    stage, _, key = name.rpartition("/")
    stages = [s for s in STAGES if s != "tables" and stage in ("", s)]
    if not stages:
        raise unknown_name("stage", stage, STAGES)
    runs = [(s, key) for s in stages if key in getattr(plan, s)]
    if not runs:
        raise unknown_name("run", key, {k for s in stages for k in getattr(plan, s)}, str(PARAMS))
    if len(runs) > 1:
        raise EdcError(f"run {key!r}: expected one of {', '.join('/'.join(run) for run in runs)}")
    return runs[0]


def leaves(values: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value in nested mappings, with the keys that lead to it."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _source(run: Run, key: tuple[str, ...], value: Any, origins: Sequence[Origin]) -> str:
    """The strongest layer of the first of these origins that gives a value."""
    for path, place, layer in (candidate for origin in origins for candidate in _candidates(origin, key)):
        if found := _find(path, place):
            note = "" if found[1] == value else f", {json.dumps(found[1])} there"
            return f"{path}:{found[0]} ({layer}{note})"
    if key[0] in STUDY or (key[0] == "seed" and run[0] == "synthesize"):
        return f"workflow/studies/{origins[-1].study}.yaml (study)"
    return "computed" if {key[0], key[-1]} & set(COMPUTED) else "default"


def _candidates(origin: Origin, key: tuple[str, ...]) -> Iterator[tuple[Path, Place, str]]:
    """Where an origin may have written a value: file, place and layer, strongest first."""
    if origin.gives and key != (origin.gives,):
        return
    key = () if origin.gives else key
    studies = [path for path, _ in chain("studies", origin.study)]
    if origin.variant:
        kind = origin.kind.removesuffix("s")
        for path in studies:
            yield path, ("variants", origin.variant, kind, *origin.places[0], *key), f"variant {origin.variant}"
    for place in reversed(origin.places):
        layer = "base" if place == origin.places[0] else ".".join(map(str, place))
        for path in studies if origin.kind != "studies" else ():
            yield path, ("overrides", origin.kind, origin.name, *place, *key), f"override, {layer}"
        for path, _ in chain(origin.kind, origin.name):
            yield path, (*place, *key), layer


def _edited(run: Run, key: tuple[str, ...]) -> str:
    """Where params.yaml has a value that the study's files don't give."""
    places: list[Place] = [(*run, *key)]
    if run[0] in SECTIONS:
        section, reference = SECTIONS[run[0]]
        _, shared = _find(PARAMS, (*run, reference)) or (0, "")
        places.append((section, shared, *key))
    lines = (found[0] for place in places if (found := _find(PARAMS, place)))
    line = next(lines, None)
    return f"{PARAMS} (edited)" if line is None else f"{PARAMS}:{line} (edited)"


@cache
def _document(path: Path) -> Any:
    return yaml.compose(path.read_text(encoding="utf-8"), Loader=LOADER)


def _find(path: Path, place: Place) -> tuple[int, Any] | None:
    """Line and value of what a file has at a place; None where it has nothing."""
    node, line = _document(path), 0
    for part in place:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            continue
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next((pair for pair in pairs if pair[0].value == str(part)), None)
        if found is None:
            return None
        line, node = found[0].start_mark.line + 1, found[1]
    return line, yaml.safe_load(yaml.serialize(node))
