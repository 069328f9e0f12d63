"""The MLflow side: find or open a run, write batches. Only this module imports MLflow, and only on use."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edc.tracking.files import Event
from edc.tracking.provenance import UNKNOWN

METRICS_PER_BATCH = 1000
"""The most MLflow takes in one call."""
PARAMS_PER_BATCH = 100
DIGEST_LENGTH = 36
TAG_LENGTH = 5000
CURRENT = "none"
"""Value of `edc.superseded_by` in the run that counts."""

Value = tuple[str, float, int, int]
"""Metric name, value, time in milliseconds, step."""


def prepare_environment() -> None:
    """Settings MLflow reads when it is imported."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ.pop("MLFLOW_RUN_ID", None)  # of another run; it would silently win over the one asked for
    # A server that is down is asked again later anyway; a user's own values stay.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.getLogger("alembic").setLevel(logging.WARNING)


class Store:
    """A tracking store, spoken to by the client: the fluent interface keeps a current run of its own."""

    def __init__(self, uri: str) -> None:
        """Connects to `uri`; nothing is sent yet.

        Raises:
            Exception: whatever MLflow raises for a store it cannot use.
        """
        prepare_environment()
        from mlflow import MlflowClient

        self._client: Any = MlflowClient(tracking_uri=uri)
        self._experiments: dict[str, str] = {}

    def open_run(self, start: Event) -> tuple[str, dict[str, int]]:
        """The run an execution belongs to, with its parameters and tags written.

        The run that holds this execution already (its start was sent before) is taken; else the newest run of
        the key if it did not finish, which the execution goes on with; else a new run is made. A finished run
        is never reopened: the new execution may come from other code, and one run must not mix the figures of
        two. The older runs of the key are kept, and marked by `edc.superseded_by`, so that `edc.superseded_by
        = 'none'` lists one run per key. `edc.executions` lists every execution that went into a run, with its
        commit.

        Args:
            start: a start event.

        Returns:
            Run id, and the last step it has of each metric.
        """
        experiment = self._experiment(start["study"])
        execution = start["execution"]
        runs = self._client.search_runs([experiment], f"tags.`edc.run_key` = '{start['key']}'")
        current = [run for run in runs if run.data.tags.get("edc.superseded_by", CURRENT) == CURRENT]
        holding = [run for run in runs if f"{execution}@" in run.data.tags.get("edc.executions", "")]
        unfinished = [run for run in current[:1] if run.info.status != "FINISHED"]
        tags = {key: str(value)[:TAG_LENGTH] for key, value in start["tags"].items()}
        commit = tags.get("edc.commit", UNKNOWN)
        tags |= {"edc.error": "", "mlflow.source.name": f"edc {tags['edc.stage']}"}
        if commit != UNKNOWN:
            tags["mlflow.source.git.commit"] = commit
        this = f"{execution}@{commit[:7]}"
        if holding:
            run = holding[0]
        elif unfinished:
            run = unfinished[0]
            tags["edc.executions"] = f"{run.data.tags.get('edc.executions', '')} {this}".strip()[-TAG_LENGTH:]
            self._client.update_run(run.info.run_id, status="RUNNING")
        else:
            # With its tags in the same call: a sender killed right after it finds this run again.
            first = tags | {"edc.superseded_by": CURRENT, "edc.executions": this}
            run = self._client.create_run(experiment, start["t"], first, run_name=start["name"])
        for older in current:
            if older.info.run_id != run.info.run_id and older.info.start_time <= run.info.start_time:
                self._client.set_tag(older.info.run_id, "edc.superseded_by", run.info.run_id)
        self._describe(run.info.run_id, start["params"], tags)
        return run.info.run_id, self._last_steps(run)

    def known_keys(self, study: str) -> set[str]:
        """The keys of all finished runs of a study."""
        experiment, token, found = self._experiment(study), None, set()
        while True:
            page = self._client.search_runs([experiment], "attributes.status = 'FINISHED'", page_token=token)
            found |= {run.data.tags.get("edc.run_key", "") for run in page}
            token = page.token
            if not token:
                return found

    def _describe(self, run_id: str, params: dict[str, str], tags: dict[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        every = [Param(*pair) for pair in params.items()]
        for begin in range(0, len(every), PARAMS_PER_BATCH):
            self._client.log_batch(run_id, params=every[begin : begin + PARAMS_PER_BATCH], synchronous=True)
        self._client.log_batch(run_id, tags=[RunTag(*pair) for pair in tags.items()], synchronous=True)

    def last_steps(self, run_id: str) -> dict[str, int] | None:
        """The last step of each metric of a run; None when the run is gone or was deleted."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return self._last_steps(run) if run.info.lifecycle_stage == "active" else None

    def metrics(self, run_id: str, values: Sequence[Value]) -> None:
        """Writes values, at most `METRICS_PER_BATCH` of them."""
        from mlflow.entities import Metric

        self._client.log_batch(run_id, metrics=[Metric(*value) for value in values], synchronous=True)

    def dataset(self, run_id: str, name: str, digest: str) -> None:
        """Adds a dataset input; the same one twice is one."""
        from mlflow.entities import Dataset, DatasetInput

        data = Dataset(name=name, digest=digest[:DIGEST_LENGTH], source_type="edc", source=name)
        self._client.log_inputs(run_id, datasets=[DatasetInput(dataset=data, tags=[])])

    def artifact(self, run_id: str, path: Path) -> None:
        """Uploads a file, replacing one of the same name."""
        self._client.log_artifact(run_id, str(path))

    def end(self, run_id: str, status: str, reason: str, time_ms: int) -> None:
        """Closes a run as FINISHED, FAILED or KILLED."""
        if reason:
            self._client.set_tag(run_id, "edc.error", reason)
        self._client.set_terminated(run_id, status, time_ms)

    def _last_steps(self, run: Any) -> dict[str, int]:
        history = self._client.get_metric_history
        return {key: max(m.step for m in history(run.info.run_id, key)) for key in run.data.metrics}

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            from mlflow.exceptions import MlflowException

            found = self._client.get_experiment_by_name(name)
            if found is None:
                try:
                    self._experiments[name] = self._client.create_experiment(name)
                    return self._experiments[name]
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    found = self._client.get_experiment_by_name(name)  # made by another host meanwhile
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)  # or its runs could never be sent
            self._experiments[name] = found.experiment_id
        return self._experiments[name]
