"""What all tests share."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import support


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """Numbers the published code computes from small inputs."""
    return support.golden("edc")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are fastest on one thread, above all where tests share the processor."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
