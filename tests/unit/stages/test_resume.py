"""Every stage gives the same bytes again, and an interrupted run resumes and ends with them too."""

import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
from support import laboratory as lab

from edc.stages import relabel
from edc.storage import run_folder

LPQLD = {
    "name": "kl", "temperatures": {"every": 2}, "student_temperature": "calibrated",
    "hard": {"smoothing": 0.8, "mix": "cutmix"},
}  # fmt: skip
HALD = [{"regime": "soft", "share": 0.25}, {"regime": "hard", "share": 0.5}, {"regime": "soft", "share": 0.25}]
CIM = {
    "initialise": {"method": "mosaics", "factor": 2}, "match": {"target": "anchors", "cross_entropy": 0.0},
    "statistics": None, "scorers": ["observer"], "regularise": {"method": "none"}, "optimise": {"iterations": 4},
}  # fmt: skip
CASES = [
    ("pretrain", {}, [1, 3, 4]),
    ("statistics", {"batch": 40}, [1, 3, 4]),
    ("synthesize", {}, [1, 3, 6, 8]),
    ("synthesize", {"regularise": {"method": "none"}, "match": {"carry": True}}, [5]),
    ("synthesize", CIM, [3]),
    ("relabel", {"epochs": 30}, [1, 2]),
    ("evaluate", {}, [1, 2, 3]),
    ("evaluate", {"loss": LPQLD, "phases": HALD, "epochs": 8, "reuse": "pool_once"}, [1, 3, 7]),
    ("evaluate", lab.FULL | {"schedule": {"name": "alrs"}, "epochs": 3}, [2]),
    # Two orders of two steps of three epochs: 16 checkpoints, the last when only the files are left to be written.
    ("continual", {}, [1, 4, 7, 16]),
    ("continual", lab.FULL | {"epochs": 3}, [6]),
    # Two seeds of 3 + 2 + 2 epochs in three units: 20 checkpoints.
    ("slimming", {}, [1, 9, 20]),
    ("slimming", {"ema": 0.5}, [2, 6]),
]


@pytest.mark.parametrize(("stage", "changes", "saves"), CASES, ids=[case[0] for case in CASES])
def test_an_interrupted_run_ends_with_the_same_bytes(project, monkeypatch, capsys, stage, changes, saves):
    expected = lab.run(stage, **changes)
    for count in saves:
        shutil.rmtree(run_folder(stage, "row"))
        lab.interrupt(stage, count, monkeypatch, **changes)
        assert not (run_folder(stage, "row") / "manifest.json").exists()
        capsys.readouterr()
        assert lab.run(stage, **changes) == expected
        assert f"edc: {stage} row resumes from its checkpoint" in capsys.readouterr().err
        assert not list(Path(".edc/checkpoints", stage).iterdir())


@pytest.mark.parametrize("stage", ["evaluate", "continual", "slimming"])
@pytest.mark.parametrize("regime", ["soft", "static", "hard"])
def test_a_second_run_gives_the_same_bytes(project, stage, regime):
    first = lab.run(stage, regime=regime)
    images = {"correct.npy"} if stage == "evaluate" else set()
    assert set(first) == {"history.csv", "curves.png", "manifest.json"} | images
    shutil.rmtree(run_folder(stage, "row"))
    assert lab.run(stage, regime=regime) == first


@pytest.mark.parametrize(
    ("upstream", "changes"),
    [({}, {"class_variance": "mixture"}), ({"dataset": {"split_seed": 1}}, {}), ({"observer": {"seed": 1}}, {})],
    ids=["values", "images", "observer"],
)
def test_a_checkpoint_of_other_values_or_inputs_is_ignored(project, monkeypatch, capsys, upstream, changes):
    lab.interrupt("statistics", 2, monkeypatch)
    if upstream:
        lab.execute(lab.plan("statistics", upstream), "pretrain", "observer")
    capsys.readouterr()
    found = lab.run("statistics", upstream, **changes)
    assert "resumes" not in capsys.readouterr().err
    shutil.rmtree(run_folder("statistics", "row"))
    assert lab.run("statistics", upstream, **changes) == found


@pytest.mark.parametrize("name", ["row.pt", "row.npy"])
def test_a_truncated_file_of_a_checkpoint_costs_time_but_no_byte(project, monkeypatch, name):
    expected = lab.run("relabel", epochs=40)
    shutil.rmtree(run_folder("relabel", "row"))
    lab.interrupt("relabel", 2, monkeypatch, epochs=40)
    path = Path(".edc/checkpoints/relabel", name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    label_epochs = Mock(wraps=relabel.label_epochs)
    monkeypatch.setattr(relabel, "label_epochs", label_epochs)
    assert lab.run("relabel", epochs=40) == expected
    assert [epoch for call in label_epochs.call_args_list for epoch in call.args[2]] == list(range(40))
