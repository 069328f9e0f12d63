"""A project folder per test, and its tracking database, read past MLflow where rows are counted."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PREPARED = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; senders start only where a test asks for them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDC_TRACKING", "spool")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in PREPARED.items():  # what a drain sets must not outlive the test
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables, made once: MLflow takes seconds for them."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from edc.tracking.store import Store

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    Store(f"sqlite:///{path}")._client.search_experiments()
    return path


@dataclass
class Database:
    """What arrived in a tracking database."""

    path: Path

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def metrics(self, run_id: str | None = None) -> list[tuple[str, int, float]]:
        """(name, step, value) of each row, sorted: a step sent twice stands here twice."""
        where = f"where run_uuid = '{run_id}'" if run_id else ""
        return sorted(self.rows(f"select key, step, value from metrics {where}"))

    def runs(self) -> list[Any]:
        """The runs of all experiments, oldest first."""
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.path}")
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return client.search_runs(experiments, order_by=["attributes.start_time ASC"])

    def run(self) -> Any:
        """The only run."""
        (run,) = self.runs()
        return run


@pytest.fixture
def database(project: Path, empty_database: Path) -> Database:
    """The database a drain uses by default, with tables and without runs."""
    shutil.copy(empty_database, project / "mlflow.db")
    return Database(project / "mlflow.db")


@pytest.fixture
def fresh_database(project: Path) -> Database:
    """The database a drain uses by default, which does not exist yet."""
    return Database(project / "mlflow.db")


@pytest.fixture
def python(project: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python on a piece of code; what still runs at the end is killed."""
    started = []

    def start(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
            cwd=project,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
