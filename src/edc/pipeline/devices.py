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
    """How many runs may hold one GPU at once.

    Raises:
        EdcError: ``EDC_RUNS_PER_GPU`` is no whole number from 1 on.
    """
    said = os.environ.get("EDC_RUNS_PER_GPU", "1")
    try:
        number = int(said)
    except ValueError:
        number = 0
    if number < 1:
        raise EdcError(f"EDC_RUNS_PER_GPU={said}: expected a whole number, at least 1")
    return number


def slots(device: str, threads: int) -> int:
    """How many runs fit on this machine at once.

    Args:
        device: "cpu", "cuda" or "auto", as the plan has it.
        threads: of one run, on a CPU.
    """
    gpus = [] if device == "cpu" else visible_gpus()
    return len(gpus) * runs_per_gpu() if gpus else max(1, (os.cpu_count() or 1) // threads)


def share_of_memory(wanted: float | None, device: torch.device) -> float | None:
    """GB of a device that one run may plan with.

    ``EDC_GPU_MEMORY`` goes before what the plan says: it changes no result, so no plan, and no run is stale for it.

    Args:
        wanted: what the plan says; None: half of what a run may have, so that the rest holds what is not planned.
        device: of a CPU nothing is planned; None where nobody said a number.

    Raises:
        EdcError: ``EDC_GPU_MEMORY`` is no number above zero.
    """
    import torch

    if said := os.environ.get("EDC_GPU_MEMORY"):
        try:
            wanted = float(said)
        except ValueError:
            wanted = 0.0
        if not 0 < wanted < math.inf:
            raise EdcError(f"EDC_GPU_MEMORY={said}: expected a number of GB above 0")
    if wanted is not None or device.type == "cpu":
        return wanted
    return torch.cuda.get_device_properties(device).total_memory / 2e9 / runs_per_gpu()


@contextlib.contextmanager
def claim(wanted: str) -> Iterator[str]:
    """Hold a device while the block runs.

    A GPU takes one run at a time, or as many as ``EDC_RUNS_PER_GPU`` says: small networks leave most of it idle.
    The lock lies outside the project, so runs of several checkouts on one machine don't meet on one GPU; it falls with
    the process, however that ends.

    Args:
        wanted: "cpu", "cuda", or "auto" (a GPU where there is one).

    Yields:
        "cpu" or "cuda".

    Raises:
        EdcError: a GPU was asked for and there is none, or ``EDC_RUNS_PER_GPU`` is no number of runs.
    """
    gpus = [] if wanted == "cpu" else visible_gpus()
    if gpus and "SLURM_JOB_ID" in os.environ:
        yield "cuda"  # the scheduler has given this job devices of its own
        return
    if not gpus:
        if wanted == "cuda":
            raise EdcError("machine.device = 'cuda': no GPU is visible here; use 'auto' or 'cpu'")
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        yield "cpu"
        return
    from filelock import FileLock, Timeout

    folder = Path(tempfile.gettempdir()) / f"edc-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # Slot by slot, so that every GPU has one run before any has two.
    slots = [(gpu, slot) for slot in range(runs_per_gpu()) for gpu in gpus]
    told = False
    while True:
        for gpu, slot in slots:
            lock = FileLock(folder / f"{gpu.replace('/', '_')}{f'.{slot}' if slot else ''}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                os.environ["CUDA_VISIBLE_DEVICES"] = gpu
                yield "cuda"
            finally:
                lock.release()
            return
        if not told:
            print(
                f"edc: all GPUs ({', '.join(gpus)}) are claimed by other runs; waiting for one",
                file=sys.stderr,
            )
            told = True
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
    """Bytes of this process in the kernel's records: "VmRSS" now, "VmHWM" at most.

    Raises:
        OSError: the kernel keeps no such record.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{record}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {record} in /proc/self/status")


def device_name(device: str) -> str:
    """The GPU's name, or the CPU with the vector instructions on which the last bits of what it computes depend.

    Args:
        device: "cpu" or "cuda".
    """
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
