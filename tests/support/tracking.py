"""Finished runs to be tracked, and an MLflow store (SQLite) of their own to look into."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edc.config import rows
from edc.config.rows import EvaluateRow, Plan, StudyRuns
from edc.storage import run_folder
from edc.tracking import location

STUDENT = {"dataset": "digits", "recipe": "edc", "ipc": 10, "student": "convnet_d2", "protocol": "edc"}
STUDENT |= {"regime": "soft", "images": "digits-edc-ipc10", "labels": "digits-edc-ipc10-edc", "seeds": [0, 1]}
STUDENT |= {"epochs": 3, "batch": 25, "optimiser": {"name": "adamw", "lr": 0.001}, "ema": None, "variant": ""}
STUDENT |= {"split": "test", "precision": "float32"}
EDC, RANDOM = "digits-edc-ipc10-convnet_d2-edc", "digits-random-ipc10-convnet_d2-edc"
SCORES = {"final": [90.0, 92.0], "best": [91.0, 93.0], "final_mean": 91.0, "final_std": 1.4142135, "best_mean": 92.0}
HISTORY = "seed,epoch,lr,train_loss,accuracy\n" + "".join(
    f"{seed},{epoch},0.00{3 - epoch},{seed + epoch},{'' if epoch == 0 else 88 + 2 * seed + epoch}\n"
    for seed in (0, 1)
    for epoch in range(3)
)


def finish(stage: str, key: str, row: dict[str, Any], history: str = "", **facts: Any) -> Path:
    """The folder of a finished run."""
    folder = run_folder(stage, key)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"stage": stage, "run": key, "params": {stage: row}, "dataset_digest": "d" * 64, "files": {}} | facts
    (folder / "manifest.json").write_text(json.dumps(manifest))
    made = {"seconds": 12.5, "device": "CPU", "commit": "c" * 40, "dirty": False}
    (folder / "run.json").write_text(json.dumps(made))
    if history:
        (folder / "history.csv").write_text(history)
    return folder


def make_plan() -> Plan:
    """A plan of two evaluations and what they are made from; only values that tracking reads."""
    images = {"observers": ["digits-convnet_d1"], "scorers": [], "statistics": "digits-p4", "dataset": "digits"}
    labels = {"source": "observers", "observers": ["digits-convnet_d1"], "dataset": "digits"}
    random = STUDENT | {"recipe": "random", "images": "digits-random-ipc10", "labels": "digits-random-ipc10-edc"}
    return Plan.model_construct(
        studies={"digits": StudyRuns(evaluate=[EDC, RANDOM])},
        pretrain={"digits-convnet_d1": rows.PretrainRow.model_construct(dataset="digits")},
        statistics={"digits-p4": rows.StatisticsRow.model_construct(dataset="digits", observers=["digits-convnet_d1"])},
        synthesize={
            "digits-edc-ipc10": rows.SynthesizeRow.model_construct(**images),
            "digits-random-ipc10": rows.SynthesizeRow.model_construct(**images | {"observers": [], "statistics": None}),
        },
        relabel={
            f"digits-{name}-ipc10-edc": rows.RelabelRow.model_construct(**labels, images=f"digits-{name}-ipc10")
            for name in ("edc", "random")
        },
        evaluate={EDC: EvaluateRow.model_construct(**STUDENT), RANDOM: EvaluateRow.model_construct(**random)},
    )


def client() -> Any:
    """A client of the test's store."""
    from mlflow import MlflowClient

    return MlflowClient(location.store_uri())


def runs(experiment: str = "digits", text: str = "") -> dict[str, Any]:
    """The active runs of an experiment by their tag; each tag stands there once."""
    number = client().get_experiment_by_name(experiment).experiment_id
    listed = client().search_runs([number], text)
    tagged = {run.data.tags["edc.run"]: run for run in listed}
    assert len(tagged) == len(listed)
    return tagged


def identifiers() -> dict[str, str]:
    """MLflow's identifiers by tag."""
    return {tag: run.info.run_id for name in ("digits", "digits stages") for tag, run in runs(name).items()}


def history(run: Any, metric: str) -> list[tuple[int, float]]:
    """Steps and values of a metric."""
    return sorted((m.step, m.value) for m in client().get_metric_history(run.info.run_id, metric))


@contextlib.contextmanager
def server(database: str, port: int, folder: Path) -> Iterator[None]:
    """The documented command; killed with SIGKILL, as all of its workers, at the end of the block."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
    command += [f"--backend-store-uri={database}", f"--artifacts-destination={folder}/artifacts"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 300
        while True:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200:
                    break
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
