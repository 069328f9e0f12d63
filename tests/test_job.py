"""What a run that fails says."""

from __future__ import annotations

import pytest
import torch

from edc.job import _out_of_memory


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
