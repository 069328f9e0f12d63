"""Stage analysis on a few digits: its tables and scores, the same bytes after an interruption between two parts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import laboratory as lab
from support import one_line

from edc.reporting import record
from edc.reporting.collect import collect, rows_of
from edc.stages import figure2
from edc.stages.copies import measurements
from edc.storage import run_folder

UPSTREAM = {"images": lab.EDC | {"ipc": 1}}
SIZES = {
    "ipc": 1,
    "mixture": {"steps": 30},
    "landscape": {"points": 5, "directions": 2},
    "hessian": {"draws": 2, "points": 3, "probes": 2},
    "gradients": {"batches": [2, 5], "draws": 3, "images": 40},
}


def test_the_stage_and_interruptions_between_its_parts(project, monkeypatch, capsys):
    for stage, key in (("synthesize", "images"), ("relabel", "labels")):
        lab.execute(lab.plan("analysis", UPSTREAM, **SIZES), stage, key)
    first = lab.run("analysis", UPSTREAM, **SIZES)
    check(first)
    kept_in_results(first)
    curvature, measured = figure2.Measurements._curvature, []

    def interrupt_the_second(measurements, group):
        return interrupt() if measured else measured.append(0) or curvature(measurements, group)

    parts = {"landscape": interrupt, "gradients": interrupt, "_curvature": interrupt_the_second}
    for part, replacement in parts.items():
        shutil.rmtree(run_folder("analysis", "row"))
        with monkeypatch.context() as patch:
            patch.setattr(figure2.Measurements, part, replacement)
            with pytest.raises(lab.KilledError):
                lab.run("analysis", UPSTREAM, **SIZES)
        assert not run_folder("analysis", "row").exists()
        capsys.readouterr()
        assert lab.run("analysis", UPSTREAM, **SIZES) == first
        assert "resumes from its checkpoint" in capsys.readouterr().err
    assert not list(Path(".edc/checkpoints/analysis").iterdir())


def test_starts_that_do_not_depend_on_the_seed_are_refused_before_any_is_measured(project, monkeypatch):
    monkeypatch.setattr(figure2.Measurements, "_curvature", lambda *_: pytest.fail("measured"))
    herding = {"initialise": {"method": "herding"}, "scorers": ["observer"]}
    ranked = {"images": lab.EDC | {"ipc": 1} | herding}
    for stage, key in (("synthesize", "images"), ("relabel", "labels")):
        lab.execute(lab.plan("analysis", ranked, **SIZES), stage, key)
    with one_line("hessian.draws = 2", "set it to 1", start="analysis.row."):
        lab.run("analysis", ranked, **SIZES)


def test_the_quality_of_random_images(project):
    for stage, key in (("synthesize", "images"), ("relabel", "labels")):
        lab.execute(lab.plan("analysis"), stage, key)
    first = lab.run("analysis", kind="quality")
    made = lab.manifest("analysis")
    assert made["observer"] == "convnet_d1"
    assert set(made["inputs"]) == {"pretrain/observer", "synthesize/images"}
    assert len(first["quality.csv"].decode().splitlines()) == 1 + 10
    scores = made["scores"]
    assert scores["nearest"] < 1e-6, "they are real images"
    assert 2 / 15 <= scores["coverage"] <= 1
    ((row,),) = (rows_of(run_folder("analysis", "row") / "manifest.json"),)
    assert (row["student"], row["coverage"], row["ipc"]) == ("convnet_d1", scores["coverage"], 2)
    plan = lab.plan("analysis", ipc=1)
    assert all(history.empty for history in measurements(plan, collect(plan)).values())
    shutil.rmtree(run_folder("analysis", "row"))
    fewer = lab.run("analysis", kind="quality", quality={"images": 5})
    assert fewer != first, "a sample of the real images"
    shutil.rmtree(run_folder("analysis", "row"))
    assert lab.run("analysis", kind="quality", quality={"images": 5}) == fewer


def kept_in_results(files):
    """Histories have the run's points; lines of runs that are elsewhere stay, but not of those the record lacks."""
    plan = lab.plan("analysis", UPSTREAM, **SIZES)
    frame = record.merge(record.read(), collect(plan))
    made = measurements(plan, frame)
    other = SIZES | {"landscape": {"radius": 0.25}}
    for changed in (plan, lab.plan("analysis", UPSTREAM, **other), lab.plan("analysis", UPSTREAM, kind="quality")):
        radii = measurements(changed, frame)["landscape"]["radius"]
        assert set(radii) == {0.5}, "what the run was made with, whatever the plan says now"
    for name, table in made.items():
        assert len(table) == len(files[f"{name}.csv"].decode().splitlines()) - 1
        path = Path("results/histories") / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.concat([table.assign(run="elsewhere"), table.assign(run="deleted")]).to_csv(path, index=False)
    both = pd.concat([frame, frame.assign(run="elsewhere")])
    for name, table in measurements(plan, both).items():
        assert list(table["run"].unique()) == ["elsewhere", "row"]
        assert len(table) == 2 * len(made[name])
    shutil.rmtree("results/histories")


def interrupt(*_):
    raise lab.KilledError


def check(files):
    """The tables are complete, and the manifest summarises them."""
    tables = {}
    for name, columns in figure2.TABLES.items():
        header, *lines = files[f"{name}.csv"].decode().splitlines()
        assert header == ",".join(columns)
        tables[name] = [dict(zip(columns, line.split(","), strict=True)) for line in lines]
    manifest = json.loads(files["manifest.json"])
    scores = manifest["scores"]
    assert set(manifest["files"]) == {f"{name}.csv" for name in figure2.TABLES}
    assert [row["alpha"] for row in tables["matching"]] == ["1", "0", "0.5"]
    hessian = tables["hessian"]
    assert [(row["draw"], row["regularise"], row["iteration"]) for row in hessian] == [
        (draw, name, k) for draw in ("0", "1") for name in ("logits", "none") for k in ("0", "2", "4")
    ]
    starts = [row["norm"] for row in hessian if row["iteration"] == "0"]
    assert starts[0] == starts[1] != starts[2] == starts[3], "one start with and without the regulariser, then another"
    assert all(float(row["norm"]) > 0 and float(row["step_norm"]) > 0 for row in hessian)
    for name, first in (("hessian_norm", 2), ("hessian_norm_without", 5)):
        ends = [float(hessian[row]["norm"]) for row in (first, first + 6)]
        assert scores[name] == pytest.approx(np.mean(ends), rel=1e-5)
        assert scores[f"{name}_std"] == pytest.approx(np.std(ends, ddof=1), rel=1e-3)
    # Two schedules, two seeds, two directions, five distances of which 0 and both radii are part.
    assert len(tables["landscape"]) == 2 * 2 * 2 * 5
    assert {row["schedule"] for row in tables["landscape"]} == {"smoothing zeta=2", "cosine to 0"}
    assert scores["val_loss"] != scores["val_loss_cosine"]
    # Epochs 0 (twice, of three a tenth is none), 2 and 3; three sets; two batch sizes.
    assert list(dict.fromkeys(row["epoch"] for row in tables["gradients"])) == ["0", "2", "3"]
    assert len(tables["gradients"]) == 3 * 3 * 2
    assert len(scores["condensed_to_real"]) == 3
    assert sum(content.startswith(b"\x89PNG") for content in files.values()) == 5
