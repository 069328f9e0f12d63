"""One device for one run: a free GPU is claimed under a file lock before torch starts; the CPU's allocator is tuned."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from edc.errors import EdcError

if TYPE_CHECKING:
    import torch


def visible_gpus() -> list[str]:
    """Identifiers of the GPUs this process may use, without starting torch."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [gpu.strip() for gpu in listed.split(",") if gpu.strip() and gpu.strip() != "-1"]
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i, line in enumerate(answer.stdout.splitlines()) if line.startswith("GPU ")]


def runs_per_gpu() -> int:
    """How many runs may hold one GPU at once: ``EDC_RUNS_PER_GPU``, a whole number from 1 on, else 1."""
    text = os.environ.get("EDC_RUNS_PER_GPU", "1")
    if not text.strip().isdecimal() or int(text) < 1:
        raise EdcError(f"EDC_RUNS_PER_GPU={text}: expected a whole number, at least 1")
    return int(text)


def slots(device: str, threads: int) -> int:
    """How many runs, of so many threads on a CPU, fit on this machine at once; ``device`` as for :func:`claim`."""
    from edc.data.pictures import available_cores  # NumPy and Pillow are not needed before

    gpus = [] if device == "cpu" else visible_gpus()
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK", available_cores()))  # SLURM need not bind a job to its cores
    return len(gpus) * runs_per_gpu() if gpus else max(1, cores // threads)


def share_of_memory(planned: float | None, device: torch.device) -> float | None:
    """GB of a device that one run may plan with; None on a CPU for which the plan has no value.

    ``EDC_GPU_MEMORY`` goes before the plan's value: it changes no result. Without either it is half of what a run may
    have, so that the rest holds what is not planned.

    Raises:
        EdcError: ``EDC_GPU_MEMORY`` is no number above zero.
    """
    import torch

    if text := os.environ.get("EDC_GPU_MEMORY"):
        try:
            planned = float(text)
        except ValueError:
            planned = 0.0
        if not 0 < planned < math.inf:
            raise EdcError(f"EDC_GPU_MEMORY={text}: expected a number of GB above 0")
    if planned is not None or device.type == "cpu":
        return planned
    return torch.cuda.get_device_properties(device).total_memory / 2e9 / runs_per_gpu()


@contextlib.contextmanager
def claim(device: str) -> Iterator[str]:
    """Hold "cpu", "cuda", or for "auto" a GPU where there is one, while the block runs; yields "cpu" or "cuda".

    A GPU takes one run at a time, or as many as ``EDC_RUNS_PER_GPU`` says: small networks leave most of it idle. The
    lock lies outside the project, so that runs of several checkouts on one machine don't share a GPU by accident; it
    falls with the process, however that ends.

    Raises:
        EdcError: "cuda" where there is no GPU, or ``EDC_RUNS_PER_GPU`` is no number of runs.
    """
    gpus = [] if device == "cpu" else visible_gpus()
    if gpus and "SLURM_JOB_ID" in os.environ:
        yield "cuda"  # the scheduler has given this job devices of its own
        return
    if not gpus:
        if device == "cuda":
            raise EdcError("machine.device = 'cuda': no GPU is visible here; use 'auto' or 'cpu'")
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        yield "cpu"
        return
    gpu, lock = _free_gpu(gpus)
    try:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        yield "cuda"
    finally:
        lock.release()


def _free_gpu(gpus: list[str]) -> tuple[str, FileLock]:
    """The first free GPU and its lock; waits for one."""
    folder = Path(tempfile.gettempdir()) / f"edc-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    waiting = False
    while True:
        # Every GPU has one run before any has two.
        for place in range(runs_per_gpu()):
            for gpu in gpus:
                lock = FileLock(folder / f"{gpu.replace('/', '_')}{f'.{place}' if place else ''}.lock")
                with contextlib.suppress(Timeout):
                    lock.acquire(timeout=0)
                    return gpu, lock
        if not waiting:
            print(f"edc: other runs hold all GPUs ({', '.join(gpus)}); waiting for one", file=sys.stderr, flush=True)
            waiting = True
        time.sleep(1)


def same_every_time() -> None:
    """Have a GPU use algorithms that give the same bits in every run; on the CPU PyTorch's do anyway.

    Convolutions keep PyTorch's TF32, in which the sources computed too; matrix products and statistics have float32.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Every new tensor would be filled, in case somebody read it before writing; that is a kernel for each.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_freed_memory() -> None:
    """Let glibc's allocator keep what is freed instead of handing it back to the kernel, and in one piece.

    Training allocates the same large tensors again and again; mapped anew each time they cost a page fault per 4 KiB,
    a third of the time of small networks. No effect on numbers, nor where the C library has no `mallopt`.
    """
    mxfast, trim_threshold, top_pad, mmap_max = 1, -1, -2, -4  # names of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(mxfast, 0)
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)


def memory(record: str) -> int:
    """Bytes of this process in the kernel's records: "VmRSS" now, "VmHWM" at most; OSError where it keeps none."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{record}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {record} in /proc/self/status")


def device_name(device: str) -> str:
    """The GPU's name, or the CPU with the vector instructions on which the last bits of what it computes depend."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU ({torch.backends.cpu.get_cpu_capability()})"


def peak_memory() -> int:
    """Bytes of memory this process has held at most.

    From the kernel's record of this program: ``getrusage`` starts from the peak of the process that started it.
    """
    try:
        return memory("VmHWM")
    except OSError:
        import resource

        found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return found if sys.platform == "darwin" else found * 1024


def reset_peak_memory(device: str) -> None:
    """Count :func:`peak_memory` and the GPU's from here on: a worker makes many runs."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # of the kernel: reset VmHWM
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
