"""Several processes that `torchrun` starts share a run: its results are those of one, and one of them writes."""

import csv
import json
import signal

import pytest
from checkout import until
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


@pytest.mark.slow
def test_groups_that_processes_share_become_the_images_of_one(finished, tmp_path):
    """Ten images in groups of four: two groups for the first process, one for the second, which is killed once."""
    key = RUNS["synthesize"]
    finished.edit({f"synthesize.{key}.optimise": {"group": 4, "iterations": 60}})
    alone, shared = (finished.copy(tmp_path / name) for name in ("alone", "shared"))
    alone.ok("edc", "synthesize", "--run", key)
    checkpoints = shared.path(".edc/checkpoints/synthesize")
    process = shared.start(*TORCHRUN, "synthesize", "--run", key, EDC_CHECKPOINT_SECONDS="0")
    until(lambda: len(list(checkpoints.glob("*.pt"))) == 2 or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert len(list(checkpoints.glob("*.pt"))) == 2
    assert "resumes from its checkpoint" in shared.run(*TORCHRUN, "synthesize", "--run", key).stderr
    assert shared.outputs() == alone.outputs()
    assert not list(checkpoints.glob("*.pt"))


@pytest.mark.parametrize(
    ("stage", "changes", "line"),
    [
        ("relabel", {}, "relabel: expected one process, torchrun started several"),
        ("synthesize", {}, "optimise.group = 0: groups: 1, which 2 processes of torchrun can't share"),
        ("synthesize", {"match": {"carry": True}}, "match.carry = true: one group begins where another ended"),
    ],
)
def test_what_cannot_be_shared_is_refused(finished, tmp_path, stage, changes, line):
    checkout = finished.copy(tmp_path / "refused")
    checkout.edit({f"{stage}.{RUNS[stage]}.{section}": values for section, values in changes.items()})
    refused = checkout.run(*TORCHRUN, stage, "--run", RUNS[stage], "--force")
    assert refused.returncode
    assert line in refused.stderr
