"""One run in this process: up to date, forced, out of memory."""

from types import SimpleNamespace

import pytest
import torch
from support import laboratory as lab

from edc.errors import EdcError
from edc.pipeline import execute as module
from edc.pipeline.execute import execute, out_of_memory, remedy
from edc.pipeline.status import up_to_date
from edc.storage import read_json, run_folder

RUN = ("pretrain", "row")
PLAN = lab.plan("pretrain", epochs=1)
FACTS = "seconds device threads peak_memory_mb peak_gpu_memory_mb processes commit dirty edc python torch"


def test_a_run_is_executed_once_and_again_where_forced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert execute(PLAN, RUN, "cpu")
    assert up_to_date(PLAN, RUN)
    first = lab.files("pretrain")
    assert not execute(PLAN, RUN, "cpu")
    (run_folder(*RUN) / ".weights.safetensors.1.tmp").touch()  # of an attempt that was killed while it wrote
    assert execute(PLAN, RUN, "cpu", force=True)
    assert lab.files("pretrain") == first
    facts = read_json(run_folder(*RUN) / "run.json")
    assert list(facts) == FACTS.split()
    assert (facts["threads"], facts["peak_gpu_memory_mb"]) == (1, None)


def hidden(kind, text):
    """An error raised while another one was handled, as at the end of a CUDA graph's recording."""
    try:
        try:
            raise kind(text)
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
    except RuntimeError as error:
        return error


ERRORS = [
    (torch.OutOfMemoryError("CUDA out of memory"), True),
    (MemoryError(), True),
    (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
    (hidden(torch.OutOfMemoryError, "CUDA out of memory"), True),
    (hidden(ValueError, "something else"), False),
    (RuntimeError("shapes do not fit"), False),
]


@pytest.mark.parametrize(("error", "memory"), ERRORS)
def test_a_run_out_of_memory_is_one_line_and_other_errors_pass(error, memory, tmp_path, monkeypatch):
    def run(context):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module.importlib, "import_module", lambda name: SimpleNamespace(run=run))
    assert out_of_memory(error) == memory
    with pytest.raises(EdcError if memory else type(error)) as raised:
        execute(PLAN, RUN, "cpu")
    assert raised.value is error or str(raised.value) == "pretrain.row: out of memory on cpu; lower pretrain.row.batch"


@pytest.mark.parametrize(
    ("stage", "device", "memory", "expected"),
    [
        ("evaluate", "cuda", None, "lower evaluate.row.batch"),
        ("synthesize", "cpu", None, "lower synthesize.row.optimise.group"),
        ("synthesize", "cuda", 20, "set EDC_GPU_MEMORY below 20 (GB to plan with; the images stay the same), or else"),
    ],
)
def test_the_remedy_names_a_value(stage, device, memory, expected):
    assert remedy((stage, "row"), device, memory).startswith(expected)
