"""Study -> plan: every run of every stage, with every value, in ``params.yaml``."""

from __future__ import annotations

from pathlib import Path

import yaml

from edc.config.expand import Builder
from edc.errors import EdcError
from edc.config.rows import Plan
from edc.storage import STATE, read_text, write_text
from edc.config.files import StudyFile, names, read
from edc.config.validation import DUMPER

HEADER = """\
# The active plan: study {study!r}, every run with every value. Written by `edc plan {study}`.
# Values may be edited here; the runs they belong to, and what depends on those, become stale.
"""


def make_plan(name: str) -> Plan:
    """Spell a study out.

    Raises:
        EdcError: the study, or anything it names, is unknown or holds a value that is not allowed.
    """
    return Builder(name, read("studies", name)).build()


def render(plan: Plan) -> str:
    """``params.yaml`` as text: plain YAML, keys in the order of the models."""
    body = yaml.dump(plan.model_dump(mode="json"), Dumper=DUMPER, sort_keys=False, width=110, default_flow_style=None)
    return HEADER.format(study=" ".join(plan.studies)) + body


def write_plan(plan: Plan, root: Path = Path(".")) -> Path | None:
    """Write ``params.yaml``; it appears whole or not at all.

    Returns:
        Where the ``params.yaml`` that stood there is kept, if it was another one: it may have been edited by hand.
    """
    path, kept = root / "params.yaml", None
    text, old = render(plan), read_text(path)
    if old is not None and old != text:
        kept = root / STATE / "params.previous.yaml"
        write_text(kept, old)
    write_text(path, text)
    return kept


def list_studies() -> list[tuple[str, StudyFile | EdcError, Plan | None]]:
    """Every study with its plan, or with what is wrong with it."""
    found: list[tuple[str, StudyFile | EdcError, Plan | None]] = []
    for name in names("studies"):
        try:
            found.append((name, read("studies", name), make_plan(name)))
        except EdcError as error:
            found.append((name, error, None))
    return found
