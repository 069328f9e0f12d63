"""The report: its verdicts and costs, what stands in a cell, what is escaped and refused, that a clone is enough."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support import REPOSITORY

from edc.config.plan import make_plan, write_plan
from edc.config.rows import Plan
from edc.errors import EdcError
from edc.reporting import record
from edc.reporting.answer import compared, method_of
from edc.reporting.costs import costs
from edc.reporting.report import grid, page, write_report
from edc.reporting.report.pictures import accuracies, shrunk
from edc.storage import run_folder, sha256, write_manifest, write_text

KEY, SETS = "digits-edc-ipc10-convnet_d2-edc", "digits-edc-ipc10"


@pytest.fixture(scope="module")
def plan() -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        return make_plan("digits")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The committed record, in a clone without any run's folder."""
    (tmp_path / "workflow").symlink_to(REPOSITORY / "workflow")
    (tmp_path / "results").mkdir()
    for name in ("runs.csv", "correct.csv", "tables"):
        (tmp_path / "results" / name).symlink_to(REPOSITORY / "results" / name)
    monkeypatch.chdir(tmp_path)
    return record.read()


def test_the_compared_method_is_edc_or_the_first_with_a_baseline() -> None:
    rows = pd.DataFrame({"recipe": ["random", "rded", "sre2l", "edc"], "baseline_mean": [np.nan, np.nan, 1.0, np.nan]})
    assert method_of(rows) == "edc"
    assert method_of(rows.head(3)) == "sre2l"
    assert method_of(rows.head(2)) == ""


def test_an_evaluation_stands_beside_its_baseline_and_what_all_it_needs_took(plan: Plan, runs: pd.DataFrame) -> None:
    runs = runs[runs["dataset"] == "digits"]
    runs = runs[[key in getattr(plan, stage) for stage, key in zip(runs["stage"], runs["run"], strict=True)]]
    cells = compared(plan, runs)
    row = cells[cells["run"] == KEY].iloc[0]
    baseline = cells[cells["run"] == "digits-random-ipc10-convnet_d2-edc"].iloc[0]
    assert row["baseline_mean"] == baseline["final_mean"]
    assert np.isnan(baseline["baseline_mean"])
    seconds = record.seconds()
    assert row["seconds_images"] == seconds["synthesize", SETS]
    assert row["seconds_labels"] == seconds["relabel", f"{SETS}-edc"]
    parts = row[["seconds_observers", "seconds_images", "seconds_labels", "seconds"]].sum()
    assert row["seconds_total"] == pytest.approx(parts)
    unrecorded = runs.assign(seconds=runs["seconds"].mask(runs["stage"] == "relabel"))
    assert np.isnan(costs(plan, unrecorded, KEY)["seconds_total"])


def test_cells_join_mean_and_deviation_and_sort_by_numbers() -> None:
    frame = pd.DataFrame(
        {
            "recipe": ["edc", "random"], "ipc": [10, 0], "final_mean": [9.14, 95.0], "final_std": [1.26, np.nan],
            "improvement": [0.2, np.nan], "improvement_low": [-1.0, np.nan], "clear": ["no", ""],
            "image_bytes": [6400, 640], "commit": ["c0ffee" * 6, ""], "static_mean": [np.nan, np.nan],
        }
    )  # fmt: skip
    heads, rows = grid(frame)
    assert heads == [
        ("recipe", False), ("IPC", True), ("final", True), ("improvement", True), ("image kB", True), ("commit", False)
    ]  # fmt: skip
    assert [text for text, _ in rows[0]] == ["edc", "10", "9.1 ± 1.3", "(+0.2)", "6.4", "c0ffeec"]
    assert [value for _, value in rows[0]] == [None, 10, 9.14, 0.2, 6400, None]
    assert rows[1] == (("random", None), ("all", 0), ("95.0", 95), ("", None), ("0.6", 640), ("", None))


def test_a_clone_without_runs_gives_a_small_page_that_loads_nothing(runs: pd.DataFrame, plan: Plan) -> None:
    write_plan(plan)
    assert write_report(Path("page.html")).startswith("wrote page.html: ")
    content = Path("page.html").read_bytes()
    write_report(Path("again.html"))
    assert Path("again.html").read_bytes() == content
    assert len(content) < 3e6
    text = content.decode()
    assert text.index(": 100 of the 1,293 training images, chosen at random, reach") < text.index('id="results"')
    assert "cifar10_light" not in text, "other studies than those of the plan"
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)


def test_only_the_plans_runs_count_and_none_is_refused(runs: pd.DataFrame, plan: Plan) -> None:
    with pytest.raises(EdcError, match=r"no run of the plan's studies \(digits\); make them with `dvc repro`"):
        page(plan, runs[runs["dataset"] != "digits"])
    left_out = (runs["stage"] == "evaluate") & (runs["run"] == KEY)
    assert f"1 did not run yet: evaluate {KEY}." in page(plan, runs[~left_out])


def test_runs_without_run_json_and_values_that_look_like_markup(runs: pd.DataFrame, plan: Plan) -> None:
    text = page(plan, runs.assign(seconds=np.nan, device="", threads=pd.NA, commit="", dirty=pd.NA))
    assert "kB; not recorded for images, labels and students" in text
    text = page(plan, runs.assign(device="<script>alert(1)</script>\"'>"))
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_curves_come_from_a_runs_history_else_from_the_committed_ones(runs: pd.DataFrame) -> None:
    saved = pd.DataFrame({"run": [KEY], "epoch": [3], "accuracy": [50.0]})
    np.testing.assert_array_equal(accuracies(KEY, saved), [[3, 50, np.nan]])
    assert len(accuracies("another", saved)) == 0
    path = run_folder("evaluate", KEY) / "history.csv"
    write_text(path, "seed,epoch,accuracy\n0,0,\n0,1,10\n1,1,14\n")
    write_manifest(path.parent, {"files": {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}}})
    np.testing.assert_allclose(accuracies(KEY, saved), [[2, 12, 8**0.5]])
    path.write_text(path.read_text().replace("14", "15"))
    with pytest.raises(EdcError, match=r"history\.csv: changed since it was made; run `edc evaluate --run .* --force`"):
        accuracies(KEY, saved)


def test_contact_sheets_are_halved_and_made_smaller(runs: pd.DataFrame, plan: Plan) -> None:
    folder = run_folder("synthesize", SETS)
    folder.mkdir(parents=True)
    content = io.BytesIO()
    Image.new("RGB", (1000, 500), "red").save(content, format="PNG")
    (folder / "contact_sheet.png").write_bytes(content.getvalue())
    text = page(plan, runs)
    assert text.count("data:image/webp") == 3  # condensed, real, continual learning
    (folder / "contact_sheet.png").write_bytes(content.getvalue()[:60])
    with pytest.raises(EdcError, match=r"contact_sheet\.png: damaged"):
        shrunk(folder / "contact_sheet.png", 100)
