"""The record of which images are right: it comes from runs, belongs to rows of the record, is refused if damaged."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import one_line
from support.record import evaluation, frame

from edc.reporting import correctness
from edc.storage import run_folder, sha256, write_manifest

RIGHT = np.arange(12) < np.array([[6], [9]])
BITS = [base64.b64encode(np.packbits(row).tobytes()).decode() for row in RIGHT]


def record(*accuracies: float, **values: Any) -> Any:
    return frame(evaluation("edc", *accuracies, run="a", test_images=12, test_digest="t", **values))


def stored() -> Any:
    """The rows of run ``a``, from its folder."""
    folder = run_folder("evaluate", "a")
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "correct.npy", np.packbits(RIGHT, axis=1))
    path = folder / "correct.npy"
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}}
    write_manifest(folder, {"files": files, "params": {"evaluate": {"seeds": [0, 1]}}, "test_digest": "t"})
    return correctness.collect(type("Plan", (), {"evaluate": ["a", "not finished"]})())  # type: ignore[arg-type]


def test_what_runs_left_is_written_and_read_again() -> None:
    table, runs = stored(), record(50, 75)
    assert table["correct"].tolist() == BITS
    merged = correctness.merge(correctness.read(), table, runs)
    correctness.write(merged)
    first = correctness.PATH.read_bytes()
    correctness.write(correctness.merge(correctness.read(), table.head(0), runs))
    assert correctness.PATH.read_bytes() == first
    np.testing.assert_array_equal(correctness.by_run(correctness.read(), runs)["a"], RIGHT)


@pytest.mark.parametrize(
    ("accuracies", "values"),
    [((50, 80), {}), ((50, 75), {"test_digest": "u"}), ((50,), {"run": "b"}), ((50, 75), {"stage": "continual"})],
    ids=["other accuracy", "other images", "run gone", "other stage"],
)
def test_rows_that_belong_to_no_row_of_the_record_do_not_count(accuracies: Any, values: dict[str, Any]) -> None:
    row = {"run": "a", "test_images": 12, "test_digest": "t"} | values
    runs = frame(evaluation("edc", *accuracies, **row))
    assert correctness.by_run(stored(), runs) == {}


def test_a_run_with_a_seed_missing_is_not_compared_image_by_image() -> None:
    assert correctness.by_run(stored(), record(50, 75, 60)) == {}


@pytest.mark.parametrize("damaged", ["", "AAA", "AAAAAA==", "!!!="])
def test_damaged_bits_are_refused_in_one_line(damaged: str, place: Path) -> None:
    table = stored()
    table.loc[1, "correct"] = damaged
    correctness.write(table)
    with one_line(start="results/correct.csv: run 'a': correct = ", match=r"expected 12 bits .* `git checkout"):
        correctness.by_run(correctness.read(), record(50, 75))
