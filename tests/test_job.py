"""What a run that fails says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from edc.stages.context import _out_of_memory, knob
from edc.config.rows import Plan


def hidden(kind: type[Exception], text: str) -> BaseException:
    """An error that came up while another one was dealt with, as at the end of a recording."""
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
def test_want_of_memory_is_known_whatever_came_up_since(error: BaseException, expected: bool) -> None:
    assert _out_of_memory(error) == expected


@pytest.mark.parametrize(
    ("stage", "device", "memory", "expected"),
    [
        ("evaluate", "cuda", None, "lower evaluate.row.batch"),
        ("synthesize", "cpu", None, "lower synthesize.row.optimise.group"),
        ("synthesize", "cuda", 20, "set EDC_GPU_MEMORY below 20 (GB to plan with; the images stay the same), or else"),
        ("synthesize", "cuda", None, "set EDC_GPU_MEMORY below 10 (GB"),
    ],
)
def test_the_knob_that_helps_is_named(
    stage: str, device: str, memory: float | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80e9))
    monkeypatch.setenv("EDC_RUNS_PER_GPU", "4")
    plan = Plan.model_validate({"study": "s", "datasets": {}, "machine": {"memory": memory}})
    assert knob(stage, "row", device, plan).startswith(expected)
