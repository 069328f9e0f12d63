"""A store (SQLite) for each test, and a plan whose runs are finished."""

import shutil
from pathlib import Path

import pytest
from support.tracking import EDC, HISTORY, SCORES, STUDENT, finish, make_plan

from edc.config.rows import Plan
from edc.tracking.store import SETTINGS


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables, made once: MLflow takes seconds for them."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """An empty working directory with an empty store."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("EDC_TRACKING", raising=False)
    for name, value in SETTINGS.items():  # what a synchronisation sets must not outlive the test
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def plan() -> Plan:
    """A plan whose runs are finished: EDC's evaluation, its images, an observer."""
    row = {"dataset": "digits", "network": "convnet_d1", "epochs": 2, "batch": 64, "seed": 0}
    history = "epoch,lr,train_loss,val_accuracy\n0,0.05,2.5,77.9\n1,0.04,1.1,92.4\n"
    finish("pretrain", "digits-convnet_d1", row, history, val_accuracy=92.4)
    row = {"dataset": "digits", "recipe": "edc", "ipc": 10, "optimise": {"iterations": 2}}
    history = "group,iteration,observer,cross_entropy\n0,0,0,4\n0,1,0,2\n1,0,0,6\n1,1,0,4\n"
    (finish("synthesize", "digits-edc-ipc10", row, history, image_bytes=6400) / "contact_sheet.png").write_bytes(b"s")
    teachers = {"digits-convnet_d1": 90.0, "digits-convnet_d2": 92.0}
    row = {"dataset": "digits", "images": "digits-edc-ipc10", "epochs": 3, "mix": "cutmix"}
    finish("relabel", "digits-edc-ipc10-edc", row, val_accuracy=teachers, agreement=95.0)
    facts = {"scores": SCORES, "steps": 12, "image_bytes": 6400, "label_bytes": 160000}
    (finish("evaluate", EDC, STUDENT, HISTORY, **facts) / "curves.png").write_bytes(b"p")
    return make_plan()
