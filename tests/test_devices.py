"""What a run loads and holds, in processes of its own: another test may have loaded anything in this one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edc.pipeline.devices import STARTED_AGAIN, start_again_without_cache, without_cache

TRAIN = """
import sys
from edc.pipeline.devices import spare_compiler
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
    ask = "from edc.pipeline.devices import peak_memory; print(peak_memory())"
    large = bytearray(400 * 2**20)
    found = int(subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout)
    assert 2**20 < found < len(large)


HEAP = """
from edc.pipeline.devices import keep_freed_memory, memory, peak_memory
import torch
keep_freed_memory()
others, begun = [torch.full((2,), 1.0), torch.ones(4)], memory("VmRSS")  # what they load is no part of the heap
for _ in range(40):
    maps = [torch.full((2**20,), 1.0) for _ in range(8)]
    others += [torch.ones(4) for _ in range(200)]
    del maps
print(peak_memory() - begun)
"""
AGAIN = """
import os
from edc.pipeline.devices import STARTED_AGAIN, start_again_without_cache
print("here")
start_again_without_cache()
print(os.environ.get("GLIBC_TUNABLES"))
"""

glibc = pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}), reason="another allocator")


@glibc
def test_tensors_fit_into_the_holes_that_earlier_ones_left() -> None:
    """Eight maps of 4 MiB at a time, and small tensors that stay: the heap holds the maps once, not twice."""
    environment = without_cache({name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"})
    said = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, env=environment, check=True)
    assert int(said.stdout) < 1.5 * 8 * 2**22


@glibc
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "glibc.malloc.tcache_count=0"),
        ("glibc.malloc.hugetlb=1", "glibc.malloc.hugetlb=1:glibc.malloc.tcache_count=0"),
    ],
)
def test_a_process_starts_again_once(before: str | None, after: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", STARTED_AGAIN)}
    environment |= {"GLIBC_TUNABLES": before} if before else {}
    command = [sys.executable, "-u", "-c", AGAIN, "word"]
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert said.stdout.split() == ["here", "here", after]


@glibc
def test_a_process_that_loses_the_variable_starts_again_once_only() -> None:
    command = [sys.executable, "-u", "-c", "import os; os.environ.pop('GLIBC_TUNABLES', None)" + AGAIN, "word"]
    environment = {name: value for name, value in os.environ.items() if name != STARTED_AGAIN}
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=60)
    assert said.stdout.split() == ["here", "here", "None"]


def test_what_the_user_has_set_stays() -> None:
    mine = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=3", "HOME": "here"}
    assert without_cache(mine) == mine


def test_a_process_that_does_the_work_of_another_stays_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["edc", "pretrain", "--run", "x"])
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("started again"))
    start_again_without_cache()
