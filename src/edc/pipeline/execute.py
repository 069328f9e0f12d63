"""One run in this process: its lock, its device, its stage."""

from __future__ import annotations

import gc
import importlib
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from filelock import FileLock, Timeout

from edc import __version__
from edc.config.rows import Plan
from edc.errors import EdcError
from edc.nets.processes import processes, rank
from edc.pipeline import devices
from edc.pipeline.status import Run, up_to_date
from edc.storage import STATE, run_folder
from edc.storage.provenance import provenance

SMALLER = {"synthesize": "optimise.group", "relabel": "observers", "analysis": "gradients.images"}
"""The value of a row to lower where memory is not enough, if that is not ``batch``."""


def prepare(plan: Plan, device: str) -> None:
    """Set this process up for runs on a claimed device, "cpu" or "cuda"; PyTorch is imported here."""
    # NumPy's own threads change the last bits of a product.
    os.environ.update({"OMP_NUM_THREADS": str(plan.machine.threads), "OPENBLAS_NUM_THREADS": "1"})
    devices.keep_freed_memory()
    import torch

    torch.set_num_threads(plan.machine.threads)
    if device == "cuda":
        if not torch.cuda.is_available():
            raise EdcError("machine.device: torch can't use the GPU of this machine; set it to 'cpu' in params.yaml")
        devices.same_every_time()


def execute(plan: Plan, run: Run, device: str, force: bool = False) -> bool:
    """Make one run on a prepared device, unless it is up to date and not forced; whether anything had to be done.

    Where another process is making it, wait for that one.

    Raises:
        EdcError: anything the user can mend.
    """
    import torch

    from edc.nets.distributed import agreed
    from edc.stages.context import Context

    stage, key = run
    with _locked(run) if rank() == 0 else nullcontext():
        if not agreed(force or not up_to_date(plan, run)):
            return False
        on = torch.device(device)
        memory = devices.share_of_memory(plan.machine.memory, on)
        devices.reset_peak_memory(device)
        for partial in run_folder(*run).glob(".*.tmp"):  # of an attempt that was killed while it wrote
            partial.unlink()
        context = Context(plan, stage, key, on, memory, lambda: environment(plan, device))
        try:
            importlib.import_module(f"edc.stages.{stage}").run(context)
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise EdcError(f"{stage}.{key}: out of memory on {device}; {remedy(run, device, memory)}") from None
        finally:
            gc.collect()  # hooks make cycles, which would hold this run's tensors through the next
        return True


@contextmanager
def _locked(run: Run) -> Iterator[None]:
    path = STATE / "locks" / f"{'-'.join(run)}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"edc: {' '.join(run)} is being made by another process; waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def environment(plan: Plan, device: str) -> dict[str, Any]:
    """Facts of machine and code for ``run.json``."""
    import torch

    on_gpu = device == "cuda"
    return {
        "device": devices.device_name(device),
        "threads": None if on_gpu else plan.machine.threads,
        "peak_memory_mb": devices.peak_memory() // 2**20,
        "peak_gpu_memory_mb": torch.cuda.max_memory_allocated() // 2**20 if on_gpu else None,
        "processes": processes(),
        **provenance(),
        "edc": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def remedy(run: Run, device: str, memory: float | None) -> str:
    """What to change where memory was not enough.

    Synthesis on a GPU works on as many groups at once as it may plan memory for, and gives the same with fewer.
    """
    smaller = f"lower {'.'.join(run)}.{SMALLER.get(run[0], 'batch')}"
    if run[0] == "synthesize" and device == "cuda" and memory is not None:
        groups = f"set EDC_GPU_MEMORY below {memory:.3g} (GB to plan with; the images stay the same)"
        return f"{groups}, or else {smaller} (other images)"
    return smaller


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error is for want of memory, or came up while such a one was dealt with."""
    import torch

    while error is not None:
        # The CPU's allocator says it with a plain RuntimeError; the end of a recording hides it behind another.
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
