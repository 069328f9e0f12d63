"""Several processes that `torchrun` starts share a run: its results are those of one, and one of them writes."""

import csv
import json

import pytest
from test_faults import RUNS

TORCHRUN = ("torchrun", "--standalone", "--nproc-per-node", "2", "--no-python", "--", "edc")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "evaluate"])
def test_two_processes_make_the_run_that_one_makes(finished, tmp_path, stage):
    key = RUNS[stage]
    shared = finished.copy(tmp_path / "shared")
    shared.ok(*TORCHRUN, stage, "--run", key, "--force")
    folder = shared.path("runs", stage, key)
    assert json.loads((folder / "run.json").read_text())["processes"] == 2
    assert not list(folder.glob(".*")), "one process writes"
    manifests = [json.loads(c.path("runs", stage, key, "manifest.json").read_text()) for c in (finished, shared)]
    assert manifests[0]["params"] == manifests[1]["params"]
    alone, together = (
        list(csv.DictReader(c.path("runs", stage, key, "history.csv").open())) for c in (finished, shared)
    )
    assert len(alone) == len(together)
    # Later epochs drift apart by what rounding grows to; gradients are compared in tests/unit/nets/test_distributed.py.
    losses = [float(history[0]["train_loss"]) for history in (alone, together)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_stage_that_cannot_share_is_refused(finished):
    refused = finished.run(*TORCHRUN, "synthesize", "--run", RUNS["synthesize"], "--force")
    assert refused.returncode
    assert "edc: synthesize: expected one process, torchrun started several" in refused.stderr
