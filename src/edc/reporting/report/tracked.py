"""The tracked runs the results belong to, found in MLflow by their keys; a store that cannot be asked costs nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from edc.reporting.report.gather import Run

LOCAL = "http://127.0.0.1:5000"  # where `make ui` shows a store that is a file
LIMIT = 20_000  # runs read at most


@dataclass(frozen=True)
class Tracked:
    """A run of the tracking store, and the finished run it recorded."""

    stage: str
    run: str
    seed: int | None
    run_id: str
    link: str


def tracked_runs(runs: Sequence[Run]) -> list[Tracked] | None:
    """The newest tracked run of every finished run and seed; None where there is no store or it does not answer."""
    from edc.tracking.sender import store_uri

    uri = store_uri()
    if os.environ.get("EDC_TRACKING") == "off" or not there(uri):
        return None
    try:
        found = known(uri)
    except Exception:  # whatever the store's client raises: the report does without
        return None
    return matched(runs, found, served(uri))


def there(uri: str) -> bool:
    """Whether a store that is a file exists: asking for one that does not would make it."""
    if not uri.startswith("sqlite:"):
        return True
    return Path(uri.removeprefix("sqlite:///")).is_file()


def served(uri: str) -> str:
    """Where the store's pages are, without name and password."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return LOCAL
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def known(uri: str) -> dict[str, tuple[str, str]]:
    """Experiment and id of the newest finished run by key."""
    from edc.tracking.store import CURRENT, prepare_environment

    prepare_environment()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: dict[str, tuple[str, str]] = {}
    token, seen = None, 0
    while experiments and seen < LIMIT:
        page = client.search_runs(experiments, "attributes.status = 'FINISHED'", page_token=token, max_results=1000)
        for run in page:
            seen += 1
            key, newer = run.data.tags.get("edc.run_key"), run.data.tags.get("edc.superseded_by", CURRENT)
            if key and newer == CURRENT:
                found.setdefault(key, (run.info.experiment_id, run.info.run_id))
        token = page.token
        if not token:
            break
    return found


def matched(runs: Sequence[Run], found: dict[str, tuple[str, str]], base: str) -> list[Tracked]:
    """Finished runs with their ids, in the order of the runs."""
    from edc.stages.context import tracked_params
    from edc.tracking import run_key

    made = []
    for run in runs:
        params = tracked_params(run.row)
        for seed in (None, *run.row.get("seeds", [])):
            place = found.get(run_key(run.stage, run.key, params, seed))
            if place is not None:
                link = f"{base}/#/experiments/{quote(place[0], safe='')}/runs/{quote(place[1], safe='')}"
                made.append(Tracked(run.stage, run.key, seed, place[1], link))
    return made
