"""Runs in worker processes: order, failures, force; nothing heavy is imported without work."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from support import workers as support
from support.workers import IMAGES, JOINED, RUNS, A, B, plan

from edc.errors import EdcError
from edc.pipeline import workers
from edc.pipeline.execute import execute
from edc.pipeline.status import stale
from edc.pipeline.workers import run_all


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class InlinePool:
    """Makes runs in this process, at once."""

    order: list[Any] = []

    def __init__(self, *_: object) -> None:
        self.order.clear()

    def __enter__(self) -> InlinePool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Any, plan: Any, run: Any, force: bool) -> Future[float | None]:
        future: Future[float | None] = Future()
        self.order.append(run)
        try:
            future.set_result(1.5 if execute(plan, run, "cpu", force) else None)
        except EdcError as error:
            future.set_exception(error)
        return future


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The runs in the order they were begun, in this process."""
    monkeypatch.setattr(workers, "ProcessPoolExecutor", InlinePool)
    return InlinePool.order


def test_two_workers_make_runs_after_those_they_build_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all(plan(), RUNS, jobs=2) == 4
    made = support.times()
    assert max(made[A], made[B]) < made[JOINED]
    lines = [line for line in capsys.readouterr().err.splitlines() if " took " in line]
    assert {tuple(line.split()[1:3]) for line in lines} == set(RUNS)
    assert lines[-1].endswith("(4 of 4, about 0.0 min left)")


def test_up_to_date_runs_are_skipped(order: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all(plan(), RUNS, jobs=1) == 4
    order.clear()
    assert run_all(plan(), RUNS) == 0
    assert run_all(plan(seed=2), RUNS, jobs=1) == 2
    assert order == [B, JOINED]
    # Back to the former values of b: its bytes are the former ones.
    assert run_all(plan(), [B], jobs=1) == 1
    capsys.readouterr()
    assert run_all(plan(), RUNS, jobs=1) == 1
    assert order == [JOINED]


def test_a_run_whose_input_came_out_the_same_was_up_to_date(
    order: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run_all(plan(), RUNS, jobs=1)
    (Path("runs") / "pretrain" / "b" / "weights.safetensors").unlink()
    assert run_all(plan(), RUNS, jobs=1) == 1
    assert order == [B, JOINED]
    assert "edc: statistics joined was up to date (2 of 2, about 0.0 min left)" in capsys.readouterr().err


def test_the_longest_runs_start_first_and_all_again_where_forced(order: list[Any]) -> None:
    seconds = {A: 1.0, B: 3.0, IMAGES: 2.0}
    assert run_all(plan(), [A, B, IMAGES], jobs=1, seconds=seconds.__getitem__) == 3
    assert order == [B, IMAGES, A]
    assert run_all(plan(), [A], jobs=1, force=True) == 1
    assert order == [A]


def test_a_failed_run_stops_what_builds_on_it_and_nothing_else(order: list[Any]) -> None:
    diverging = plan(optimiser={"name": "sgd", "lr": 1e30})
    with pytest.raises(EdcError) as error:
        run_all(diverging, RUNS, jobs=1)
    first, *lines = str(error.value).splitlines()
    assert first == "2 of 4 runs failed"
    assert lines[0].startswith("edc: pretrain b failed: pretrain.b: diverged in epoch 0")
    assert lines[1] == "edc: statistics joined failed: it builds on pretrain b"
    assert stale(diverging) == [B, JOINED]


def test_a_failure_after_which_nothing_can_be_made(order: list[Any]) -> None:
    with pytest.raises(EdcError, match="2 of 2 runs failed"):
        run_all(plan(optimiser={"name": "sgd", "lr": 1e30}), [B, JOINED], jobs=1)


def test_without_anything_to_do_nothing_heavy_is_imported(order: list[Any]) -> None:
    assert run_all(plan(), [B], jobs=1) == 1
    assert support.call(plan()).communicate() == ("[]\n", "")
