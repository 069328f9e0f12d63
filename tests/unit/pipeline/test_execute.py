"""One run in this process: up to date, locked, prepared, out of memory."""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from support import laboratory as lab

from edc.errors import EdcError
from edc.pipeline import execute as module
from edc.pipeline.execute import execute, out_of_memory, prepare, remedy
from edc.pipeline.status import up_to_date
from edc.storage import read_json, run_folder

RUN = ("pretrain", "row")
PLAN = lab.plan("pretrain", epochs=1)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_is_executed_once_and_again_where_forced() -> None:
    assert execute(PLAN, RUN, "cpu")
    assert up_to_date(PLAN, RUN)
    first = lab.files("pretrain")
    assert not execute(PLAN, RUN, "cpu")
    assert execute(PLAN, RUN, "cpu", force=True)
    assert lab.files("pretrain") == first
    facts = read_json(run_folder(*RUN) / "run.json")
    assert set(facts) == {
        "seconds", "device", "threads", "peak_memory_mb", "peak_gpu_memory_mb", "commit", "dirty", "edc", "python",
        "torch",
    }  # fmt: skip
    assert (facts["threads"], facts["peak_gpu_memory_mb"]) == (1, None)


def test_a_run_that_another_process_makes_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entered, leave = threading.Event(), threading.Event()
    pretrain = module.importlib.import_module("edc.stages.pretrain")
    run = pretrain.run

    def slow(context: Any) -> None:
        entered.set()
        assert leave.wait(60)
        run(context)

    monkeypatch.setattr(pretrain, "run", slow)
    made: dict[str, bool] = {}
    threads = [
        threading.Thread(target=lambda name=name: made.update({name: execute(PLAN, RUN, "cpu")}))
        for name in ("first", "second")
    ]
    threads[0].start()
    assert entered.wait(60)
    threads[1].start()
    while "is being made by another process; waiting for it" not in capsys.readouterr().err:
        assert threads[1].is_alive()
    leave.set()
    for thread in threads:
        thread.join(60)
    assert made == {"first": True, "second": False}


def hidden(kind: type[Exception], text: str) -> BaseException:
    """An error raised while another one was handled, as at the end of a CUDA graph's recording."""
    try:
        try:
            raise kind(text)
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (hidden(torch.OutOfMemoryError, "CUDA out of memory"), True),
        (hidden(ValueError, "something else"), False),
        (RuntimeError("shapes do not fit"), False),
    ],
)
def test_out_of_memory_is_recognised_whatever_was_raised_since(error: BaseException, expected: bool) -> None:
    assert out_of_memory(error) == expected


@pytest.mark.parametrize(
    ("stage", "device", "memory", "expected"),
    [
        ("evaluate", "cuda", None, "lower evaluate.row.batch"),
        ("synthesize", "cpu", None, "lower synthesize.row.optimise.group"),
        ("synthesize", "cuda", 20, "set EDC_GPU_MEMORY below 20 (GB to plan with; the images stay the same), or else"),
    ],
)
def test_the_remedy_names_a_value(stage: str, device: str, memory: float | None, expected: str) -> None:
    assert remedy((stage, "row"), device, memory).startswith(expected)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("x")])
def test_a_run_out_of_memory_is_one_line_and_other_errors_pass(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = ModuleType("stage")

    def run(context: Any) -> None:
        raise error

    stage.run = run  # type: ignore[attr-defined]
    monkeypatch.setattr(module.importlib, "import_module", lambda name: stage)
    if isinstance(error, MemoryError):
        with pytest.raises(EdcError, match=r"^pretrain\.row: out of memory on cpu; lower pretrain\.row\.batch$"):
            execute(PLAN, RUN, "cpu")
    else:
        with pytest.raises(RuntimeError, match="x"):
            execute(PLAN, RUN, "cpu")


def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EdcError, match=r"^machine\.device: torch can't use the GPU"):
        prepare(PLAN, "cuda")
