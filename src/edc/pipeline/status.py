"""Which runs are up to date: a run's manifest names the values, inputs and version of the numerics it came from.

Decided from manifests alone, without PyTorch and without reading large files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from edc import STAGES
from edc.config.rows import Plan
from edc.errors import EdcError
from edc.stages.versions import VERSIONS
from edc.storage import MADE_FROM, digest, fingerprint, manifest_in, read_text, run_folder, write_text

Run = tuple[str, str]
"""Stage and key."""


def runs(plan: Plan) -> list[Run]:
    """Every run of a plan but the tables, in the order the data flows."""
    return [(stage, key) for stage in STAGES if stage != "tables" for key in getattr(plan, stage)]


def read(run: Run) -> dict[str, Any] | None:
    """The manifest of a finished run; None where it is missing or damaged, or one of its files missing or truncated."""
    folder = run_folder(*run)
    try:
        manifest = manifest_in(folder)
        complete = all((folder / name).stat().st_size == entry["bytes"] for name, entry in manifest["files"].items())
    except (EdcError, OSError, KeyError, TypeError, AttributeError):
        return None
    return manifest if complete else None


def up_to_date(plan: Plan, run: Run, manifest: Callable[[Run], dict[str, Any] | None] = read) -> bool:
    """Whether a run's results are those its values, its inputs and this version of the code would give."""
    made = manifest(run)
    if made is None:
        return False
    inputs = {"/".join(upstream): manifest(upstream) for upstream in plan.upstream(*run)}
    return (
        made.get("version") == VERSIONS[run[0]]
        and plan.same(*run, made.get("params"))
        and made.get("inputs") == {name: of_input and digest(of_input) for name, of_input in inputs.items()}
    )


def stale(plan: Plan, among: Sequence[Run] | None = None) -> list[Run]:
    """Runs, of all or of some, that are not up to date or build on one that is not, in the order the data flows.

    One of the latter ends at once if what it builds on comes out with the same bytes.
    """
    manifest = cache(read)
    found: dict[Run, None] = {}
    for run in runs(plan) if among is None else among:
        if any(upstream in found for upstream in plan.upstream(*run)) or not up_to_date(plan, run, manifest):
            found[run] = None
    return list(found)


def tables_up_to_date(plan: Plan) -> bool:
    """Whether the tables were made from the runs that are here, by this version of the code."""
    return (read_text(MADE_FROM) or "").strip() == _tables(plan)


def tables_made(plan: Plan) -> None:
    """Note what the tables were made from, if runs are here: without any they are those of the record as before."""
    if any(read(run) for run in runs(plan)):
        write_text(MADE_FROM, _tables(plan) + "\n")


def _tables(plan: Plan) -> str:
    studies = {name: study.model_dump() for name, study in plan.studies.items()}
    files = ["/".join(run) + " " + digest(manifest) for run in runs(plan) if (manifest := read(run))]
    return fingerprint([VERSIONS["tables"], studies, files])
