"""What a run loads and holds, in processes of its own: another test may have loaded anything in this one."""

from __future__ import annotations

import subprocess
import sys

import pytest

TRAIN = """
import sys
from edc.devices import spare_compiler
import torch
spare_compiler()
model = torch.nn.Linear(3, 2)
for make in (torch.optim.AdamW, torch.optim.SGD, torch.optim.Adam):
    optimiser = make(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    before = model.weight.detach().clone()
    optimiser.step()
    optimiser.zero_grad()
    optimiser.load_state_dict(optimiser.state_dict())
    assert not torch.equal(model.weight, before)
assert not any(name.startswith("torch._dynamo.") for name in sys.modules), "the compiler was loaded"
"""
COMPILE = "assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(2)).tolist() == [2, 2]"
CONFIGURE = "import torch._dynamo.config\nassert torch._dynamo.config.cache_size_limit > 0"
ATTRIBUTE = "assert torch._dynamo.is_compiling() is False"


@pytest.mark.parametrize("then", ["", COMPILE, CONFIGURE, ATTRIBUTE], ids=["train", "compile", "config", "attribute"])
def test_optimisers_leave_the_compiler_out_and_it_still_works(then: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"{TRAIN}\n{then}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_peak_memory_is_not_inherited() -> None:
    """A process that a large one starts has a peak of its own."""
    ask = "from edc.devices import peak_memory; print(peak_memory())"
    large = bytearray(400 * 2**20)
    found = int(subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout)
    assert 2**20 < found < len(large)
