"""On a real SLURM cluster, with faults, a plan ends with the same bytes as without one.

20 rows, or as many as ``EDC_SLURM_ROWS``. The four GPUs are counted only: the plan's device is the CPU.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from checkout import Checkout
from samples import DATASET, PROTOCOL, STUDY
from support.slurm import MISSING, Cluster, cluster

from edc import STAGES

ROWS = int(os.environ.get("EDC_SLURM_ROWS", "20"))
AGAIN = 1 + ROWS // 20
"""Jobs that are cancelled."""
SECRET = "a-password-of-the-tracking-server"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING) or os.getuid() != 0, reason=f"no {MISSING}, or no root"),
]


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path / "slurm") as running:
        yield running


def test_a_plan_survives_the_faults_of_a_cluster_with_the_same_bytes(slurm: Cluster, tmp_path: Path) -> None:
    project = planned(tmp_path / "project")
    whole = project.copy(tmp_path / "whole")
    gpu = [f"{stage}:gpu=1" for stage in STAGES if stage != "tables"]
    small = "pretrain:mem_mb=300*16**(attempt-1)"  # too little for the first time
    options = ["--config", f"minutes={0.08 + ROWS / 1000}", "--jobs", "12", "--latency-wait", "30", "--retries", "4"]
    options += ["--slurm-init-seconds-before-status-checks", "3", "--slurm-keep-successful-logs"]
    process = project.start(
        "snakemake", "--profile", "workflow/profiles/slurm", *options, "--set-resources", *gpu, small,
        PATH=f"{slurm.folder}/bin:{project.environment()['PATH']}",
        SLURM_CONF=str(slurm.configuration),
        MLFLOW_TRACKING_PASSWORD=SECRET,
    )  # fmt: skip
    output: list[str] = []
    reader = threading.Thread(target=lambda: output.extend(process.communicate()))
    reader.start()
    most, cancelled, exposed = 0, set[str](), False
    while reader.is_alive():
        running = slurm.jobs("RUNNING")
        most = max(most, len(running))
        for path in slurm.folder.glob("state/hash.*/job.*/*"):
            with suppress(FileNotFoundError):  # of a job that has ended meanwhile
                exposed |= SECRET.encode() in path.read_bytes()
        if len(running) == 4 and len(cancelled) < AGAIN:
            if not cancelled:
                slurm.stop("slurmd")
                slurm.start("slurmd")
            cancelled.add(running[0])
            slurm.call("scancel", running[0])
        time.sleep(0.5)
    text = "\n".join(output)
    assert process.returncode == 0, text
    assert most == 4, "not all GPUs were in use at once"
    assert len(cancelled) == AGAIN
    logs = [path.read_text() for path in project.path(".snakemake/slurm_logs/rule_pretrain").rglob("*.log")]
    assert any("exceeded memory limit" in log for log in logs)
    assert not exposed, "the environment's password is in SLURM's files"
    whole.ok("edc", "run")
    assert project.outputs() == whole.outputs()
    assert "Nothing to be done" in project.ok("snakemake", "-n")


def planned(root: Path) -> Checkout:
    """A checkout with a plan of so many rows: students of random images that differ in one value."""
    values = {f"ema={i:03}": {"protocol": {"student": {"ema": i / 1000}}} for i in range(ROWS - 4)}
    grid = {"recipes": ["random"], "protocols": ["hard_label"], "seeds": [0], "variants": list(values)}
    study = STUDY | {"variants": values, "grids": [grid], "overrides": {"protocols": {"hard_label": PROTOCOL}}}
    checkout = Checkout.make(root)
    checkout.write("workflow/datasets/tiny.yaml", DATASET)
    checkout.write("workflow/studies/tiny.yaml", study | {"continual": [], "slimming": []})
    checkout.ok("edc", "plan", "tiny")
    return checkout
