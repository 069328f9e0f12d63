"""MLflow runs made from finished runs: a tracking server that is down costs no run and loses no metric.

MLflow takes seconds to import: that happens once there are finished runs to show.
"""

from __future__ import annotations

from collections.abc import Iterator

from filelock import FileLock

from edc.config.rows import Plan, StudyRuns
from edc.errors import EdcError, switched_on
from edc.storage import STATE, fingerprint, manifest_in, run_folder
from edc.tracking.describe import Finished, describe, names
from edc.tracking.location import one_line, shown, store_uri


class TrackingError(Exception):
    """Runs could not be recorded; one line, without credentials."""


def enabled() -> bool:
    """Whether runs are tracked: the environment variable ``EDC_TRACKING``, refused if it is neither on nor off."""
    return switched_on("EDC_TRACKING")


def sync(plan: Plan, strict: bool = False) -> str:
    """Record in MLflow what it lacks of a plan's finished runs, or has in an earlier state.

    Returns:
        One line: what was done or went wrong; empty where tracking is off or no run is finished.

    Raises:
        EdcError: ``EDC_TRACKING`` is neither on nor off.
        TrackingError: only if ``strict``: MLflow cannot be reached or refuses, or a manifest is damaged. What was
            recorded stays; the next call does the rest.
    """
    if not enabled():
        return ""
    uri, path = store_uri(), STATE / "locks" / "tracking.lock"
    try:
        experiments = {name: finished for name, runs in _experiments(plan) if (finished := list(_finished(plan, runs)))}
        if not experiments:
            return ""
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path, timeout=60):
            recorded = sum(_record(uri, name, finished) for name, finished in experiments.items())
        unchanged = sum(map(len, experiments.values())) - recorded
        return f"tracking: {recorded} runs recorded, {unchanged} unchanged in {shown(uri)}"
    except Exception as error:  # whatever MLflow, its HTTP client or the database raises
        where = "" if isinstance(error, EdcError) else f"{shown(uri)}: "
        problem = f"tracking: {where}{one_line(error, uri)}; no result is lost, `edc track` records what is missing"
        if strict:
            raise TrackingError(problem) from None
        return problem


def _experiments(plan: Plan) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Experiments and their runs, as (stage, key): each study's evaluations, and the runs these are made from."""
    for name, study in plan.studies.items():
        last = [(stage, key) for stage in StudyRuns.model_fields for key in getattr(study, stage)]
        earlier: dict[tuple[str, str], None] = {}
        pending = list(last)
        while pending:
            upstream = [run for run in plan.upstream(*pending.pop()) if run not in earlier]
            earlier |= dict.fromkeys(upstream)
            pending += upstream
        yield name, last
        yield f"{name} stages", list(earlier)


def _finished(plan: Plan, runs: list[tuple[str, str]]) -> Iterator[Finished]:
    for (stage, key), name in names(plan, runs).items():
        folder = run_folder(stage, key)
        if (folder / "manifest.json").exists():
            manifest = manifest_in(folder)
            yield Finished(stage, key, name, manifest, fingerprint(manifest))


def _record(uri: str, experiment: str, finished: list[Finished]) -> int:
    """Record the runs of one experiment that are not there as they are now; how many these were."""
    from edc.tracking.store import Store

    store, recorded = Store(uri, experiment), 0
    for run in finished:
        current = store.current(run)
        if not current:
            store.create(describe(run))
            recorded += 1
        store.delete(other for other in store.runs[run.path] if other not in current)
    return recorded
