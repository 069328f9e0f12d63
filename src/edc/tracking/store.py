"""The MLflow side. Only the client is used: the fluent interface follows MLFLOW_RUN_ID of whoever started it."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from edc.tracking.describe import DIGEST, RUN, Finished, Tracked, experiment_tags
from edc.tracking.location import open_database

PER_CALL = 1000
"""The most metrics MLflow takes, and the most runs it gives, in one call."""
PARENT = "mlflow.parentRunId"
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
"""No telemetry, no output; a server that is down costs seconds, one that does not answer a minute, and one that many
checkouts use at once is waited for. A user's own values stay."""


class Store:
    """An experiment of the tracking store at ``uri``, made if it is not there; MLflow's errors come through.

    ``runs`` has MLflow's runs by the run they were made from (``STAGE/KEY``).
    """

    def __init__(self, uri: str, experiment: str) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        for name in ("alembic", "urllib3"):
            logging.getLogger(name).setLevel(logging.ERROR)
        from mlflow import MlflowClient

        open_database(uri)
        self._client: Any = MlflowClient(tracking_uri=uri)
        self._experiment = self._open(experiment)
        self.runs: dict[str, list[Any]] = defaultdict(list)
        token: str | None = ""
        while token is not None:
            page = self._client.search_runs([self._experiment], max_results=PER_CALL, page_token=token or None)
            for run in page:
                self.runs["/".join(run.data.tags.get(RUN, "").split("/")[:2])].append(run)
            token = page.token or None

    def _open(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                self._client.create_experiment(name)
            except MlflowException:  # unless another checkout has created it meanwhile
                if self._client.get_experiment_by_name(name) is None:
                    raise
            experiment = self._client.get_experiment_by_name(name)
        elif experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        number = str(experiment.experiment_id)
        for key, value in experiment_tags(name, number).items():
            if experiment.tags.get(key) != value:
                _twice(self._client.set_experiment_tag, number, key, value)
        return number

    def current(self, run: Finished) -> list[Any]:
        """MLflow's runs of a finished run as it is now, the parent first; none where one of them is missing."""
        whole = [other for other in self.runs[run.path] if other.info.status == "FINISHED"]
        good = [other for other in whole if other.data.tags.get(DIGEST) == run.digest]
        for parent in good:
            own = [other for other in good if other.data.tags.get(PARENT) == parent.info.run_id]
            children = {other.data.tags[RUN]: other for other in own}  # without doubles
            if PARENT not in parent.data.tags and len(children) == len(run.seeds):
                return [parent, *children.values()]
        return []

    def create(self, run: Tracked, parent: str | None = None) -> None:
        """Record a run and its children; each is FINISHED once all of it is recorded."""
        from mlflow.entities import Dataset, DatasetInput, Metric, Param

        run_tags = run.tags if parent is None else run.tags | {PARENT: parent}
        number = self._client.create_run(self._experiment, run.start, run_tags, run.name).info.run_id
        params = [Param(name, str(value)) for name, value in run.params.items()]
        metrics = [Metric(name, value, run.end, step) for name, value, step in run.metrics]
        for begin in range(0, max(len(metrics), 1), PER_CALL):
            self._client.log_batch(number, metrics[begin : begin + PER_CALL], params if begin == 0 else ())
        if parent is None:
            dataset = Dataset(*run.dataset, source_type="edc", source="")
            _twice(self._client.log_inputs, number, [DatasetInput(dataset, [])])
        for path in run.pictures:
            self._client.log_artifact(number, str(path))
        for child in run.children:
            self.create(child, number)
        self._client.set_terminated(number, "FINISHED", run.end)

    def delete(self, runs: Iterable[Any]) -> None:
        """Move runs to MLflow's trash (``mlflow gc`` empties it)."""
        for run in runs:
            self._client.delete_run(run.info.run_id)


def _twice(call: Callable[..., object], *arguments: object) -> None:
    """Call once more on failure: of checkouts that add the same row at the same moment MLflow refuses all but one."""
    from mlflow.exceptions import MlflowException

    try:
        call(*arguments)
    except MlflowException:
        call(*arguments)
