"""One run of one stage: its parameters, device, checkpoint, outputs and tracking, the same way for every stage."""

from __future__ import annotations

import importlib
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edc.pipeline import dag
from edc.errors import EdcError
from edc.config.references import load_plan
from edc.config.rows import Dataset, Plan
from edc.storage import (
    RESULTS,
    STATE,
    Checkpoint,
    fingerprint,
    read_manifest,
    replacing,
    sha256,
    write_json,
    write_text,
)
from edc.pipeline.warm import ONE_THREAD

if TYPE_CHECKING:
    import torch

    from edc.data.sets import Images
    from edc.tracking import Run


class Job:
    """What a stage module needs to do its work.

    Attributes:
        stage, key: which run.
        plan, row: the plan and this run's row of it.
        device: torch's name of the claimed device.
    """

    def __init__(self, stage: str, key: str, plan: Plan, device: str) -> None:
        self.stage, self.key, self.plan, self.device = stage, key, plan, device
        self.row: Any = plan.row(stage, key)
        self.folder = RESULTS / stage / key
        self._started = time.monotonic()
        self._earlier = 0.0
        self._checkpoint: Checkpoint | None = None
        self._inputs: dict[str, str] = {}
        self._ancestors: dict[str, str] = {}
        self._splits: dict[str, str] = {}
        self._classes: tuple[str, ...] = ()
        self._origin = self._data_from = self._digest = ""

    @property
    def dataset(self) -> Dataset:
        """The dataset this run belongs to."""
        return self.plan.datasets[self.row.dataset]

    @property
    def precision(self) -> torch.dtype:
        """What the networks' passes compute in."""
        import torch

        found: torch.dtype = getattr(torch, self.plan.machine.precision)
        return found

    @property
    def seconds(self) -> float:
        """Time spent so far, with the runs this one goes on from."""
        return self._earlier + time.monotonic() - self._started

    @cached_property
    def code(self) -> str:
        """Fingerprint of the source files this run's numbers depend on."""
        return next(
            dag.code_digest(task) for task in dag.tasks(self.plan) if (task.stage, task.key) == (self.stage, self.key)
        )

    def path(self, name: str) -> Path:
        """Where one of this run's files goes."""
        return self.folder / name

    def load(self, split: Any) -> Images:
        """A split of the dataset, whose classes must be those of everything loaded before."""
        from edc.data.sets import load_split

        images, where = load_split(self.dataset, split), f"dataset {self.row.dataset!r}"
        self._agree(images.classes, where)
        self._splits[split] = images.digest
        if split == "train":
            self._same_data(images.digest, where)
        return images

    def upstream(self, stage: str, key: str) -> dict[str, Any]:
        """The manifest of an earlier run, its files checked and its classes compared.

        Raises:
            EdcError: the run has not finished, a file is damaged, or its classes are not in the order of the others'.
        """
        manifest = read_manifest(stage, key)
        self._inputs[f"{stage}/{key}"] = fingerprint(manifest["files"])
        for run, files in (manifest["inputs"] | {f"{stage}/{key}": self._inputs[f"{stage}/{key}"]}).items():
            if self._ancestors.setdefault(run, files) != files:
                raise EdcError(
                    f"results/{stage}/{key} was made with another version of {run} than is here or than the other "
                    f"inputs of {self.stage} {self.key} were made with; run `edc {stage} --run {key}` again"
                )
        self._agree(tuple(manifest["classes"]), f"results/{stage}/{key}")
        self._same_data(manifest["dataset_digest"], f"results/{stage}/{key}")
        return manifest

    def _same_data(self, digest: str, where: str) -> None:
        """Everything a run builds on must come from the same training images."""
        if not self._digest:
            self._digest, self._data_from = digest, where
        if digest != self._digest:
            raise EdcError(
                f"{where} and {self._data_from} are of different training images ({digest[:12]}, {self._digest[:12]}); "
                "the data changed in between, run the earlier stages again"
            )

    def _agree(self, classes: tuple[str, ...], where: str) -> None:
        if not self._classes:
            self._classes, self._origin = classes, where
        if classes == self._classes:
            return
        if len(classes) != len(self._classes):
            raise EdcError(f"{where} has {len(classes)} classes, {self._origin} has {len(self._classes)}")
        i = next(i for i, (a, b) in enumerate(zip(classes, self._classes, strict=True)) if a != b)
        raise EdcError(
            f"{where} and {self._origin} disagree on the classes: class {i} is {classes[i]!r} in the first, "
            f"{self._classes[i]!r} in the second"
        )

    def checkpoint(self) -> Checkpoint:
        """This run's checkpoint; ask for it once all inputs are loaded, for it belongs to them."""
        import torch

        from edc.training.optimisers import cuda_graphs as recording

        values = self.plan.resolved(self.stage, self.key)
        # Steps recorded as a graph may round differently from those that are not.
        device = [self.device, recording.wanted()] if self.device == "cuda" else self.device
        identity = fingerprint([values, self._inputs, self._splits, self.code, device, str(torch.__version__)])
        self._checkpoint = Checkpoint(self.checkpoint_path(".pt"), identity)
        return self._checkpoint

    def checkpoint_path(self, suffix: str) -> Path:
        """A file beside the checkpoint, outside the outputs."""
        return STATE / "checkpoints" / self.stage / f"{self.key}{suffix}"

    def resume(self, checkpoint: Checkpoint) -> dict[str, Any] | None:
        """The state an interrupted run left."""
        state = checkpoint.load()
        if state is not None:
            self._earlier = float(state.get("seconds", 0.0))
            print(f"edc: {self.stage} {self.key} goes on from its checkpoint", file=sys.stderr)
        return state

    def keep(self, checkpoint: Checkpoint, state: Callable[[], Mapping[str, Any]]) -> None:
        """Save the state if it is time to."""
        if checkpoint.due():
            checkpoint.save({**state(), "seconds": self.seconds})

    @property
    def _precision(self) -> dict[str, str]:
        """What tells a run in half precision from the same row in full."""
        given = self.plan.machine.precision
        return {} if given == "float32" else {"precision": given}

    def track(self, seed: int | None = None) -> Run:
        """A tracked run of this job, with short flat parameter names."""
        from edc.tracking import Run

        return Run(
            stage=self.stage,
            row=self.key,
            params=tracked_params(self.row.model_dump(mode="json") | self._precision),
            study=self.plan.study,
            seed=seed,
            tags={
                "edc.device": self.device,
                "edc.threads": str(self.plan.machine.threads),
                "edc.precision": self.plan.machine.precision,
            },
        )

    def finite(self, loss: float, when: str) -> float:
        """A loss that is a number.

        Raises:
            EdcError: it is none; what was learned from there on would mean nothing.
        """
        if not math.isfinite(loss):
            row = f"{self.stage}.{self.key}"
            knobs = ("optimise.lr", "match.weight") if self.stage == "synthesize" else ("optimiser.lr",)
            lower = " or ".join(f"{row}.{knob}" for knob in knobs)
            raise EdcError(f"{row}: diverged in {when} (loss {loss}); lower {lower}")
        return loss

    def table(self, name: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Path:
        """Write a CSV history."""
        lines = [",".join(columns), *(",".join(_cell(value) for value in row) for row in rows)]
        write_text(self.path(name), "\n".join(lines) + "\n")
        return self.path(name)

    def tensors(self, name: str, tensors: Mapping[str, torch.Tensor]) -> Path:
        """Write a safetensors file."""
        from edc.storage import write_tensors

        write_tensors(self.path(name), tensors)
        return self.path(name)

    def adopt(self, name: str, source: Path) -> Path:
        """Move a finished file from beside the checkpoint to the outputs."""
        with replacing(self.path(name)) as temporary:
            shutil.move(source, temporary)
        return self.path(name)

    def finish(self, files: Iterable[str], **facts: object) -> None:
        """Write the manifest, which makes the run complete, and forget the checkpoint.

        Args:
            files: names of the files others will read.
            facts: what else is known of the outputs; no times, dates or paths of this machine.
        """
        from edc.data.sets import class_hash

        entries = {name: {"bytes": self.path(name).stat().st_size, "sha256": sha256(self.path(name))} for name in files}
        manifest = {
            "stage": self.stage,
            "run": self.key,
            "params": self.plan.resolved(self.stage, self.key),
            "inputs": self._inputs,
            **facts,
        }
        manifest |= {
            "classes": list(self._classes),
            "class_hash": class_hash(self._classes),
            "files": entries,
        }
        write_json(self.path("run.json"), self.provenance())
        write_json(self.path("manifest.json"), manifest)
        if self._checkpoint is not None:
            self._checkpoint.clear()

    def provenance(self) -> dict[str, Any]:
        """When, where and with what this run was made: facts that no runner hashes."""
        import torch

        from edc.pipeline.devices import device_name, peak_memory
        from edc.tracking.provenance import provenance

        on_gpu = self.device == "cuda"
        code = provenance()
        half = f", {self.plan.machine.precision}" if self._precision else ""
        return {
            "code": self.code,
            "seconds": round(self.seconds, 2),
            "device": device_name(self.device) + ("" if on_gpu else f", {self.plan.machine.threads} threads") + half,
            "peak_memory_mb": peak_memory() // 2**20,
            "peak_gpu_memory_mb": torch.cuda.max_memory_allocated() // 2**20 if on_gpu else None,
            "commit": code["edc.commit"],
            "dirty": code["edc.dirty"],
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        }


def tracked_params(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as a tracked run shows it: the seed is the run's own."""
    return {name: value for name, value in row.items() if name != "seeds"}


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


KNOBS = {
    "pretrain": "batch",
    "statistics": "batch",
    "synthesize": "optimise.group",
    "relabel": "observers",
    "evaluate": "batch",
    "continual": "batch",
    "slimming": "batch",
    "analysis": "gradients.images",
}


def execute(stage: str, key: str) -> None:
    """Run one row of one stage of the plan in the current directory.

    Raises:
        EdcError: anything the user can mend.
    """
    from edc.pipeline.devices import claim, keep_freed_memory, same_every_time, spare_compiler

    plan = load_plan()
    plan.row(stage, key)
    with claim(plan.machine.device if stage != "tables" else "cpu") as device:
        if stage == "tables":
            importlib.import_module("edc.stages.tables").run(plan, key)
            return
        threads = plan.machine.threads
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        os.environ.update(ONE_THREAD)
        keep_freed_memory()
        import torch

        torch.set_num_threads(threads)
        if device == "cuda" and not torch.cuda.is_available():
            if plan.machine.device == "cuda":
                raise EdcError("machine.device = 'cuda': torch can't use the GPU of this machine; use 'auto' or 'cpu'")
            print("edc: torch can't use the GPU of this machine; going on with the CPU", file=sys.stderr)
            device = "cpu"
        spare_compiler()
        if device == "cuda":
            same_every_time()
        try:
            importlib.import_module(f"edc.{stage}").run(Job(stage, key, plan, device))
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            raise EdcError(f"{stage}.{key}: out of memory on {device}; {knob(stage, key, device, plan)}") from None


def knob(stage: str, key: str, device: str, plan: Plan) -> str:
    """What to turn where memory was not enough.

    Synthesis on a GPU works on as many groups at once as it may plan memory for, and gives the same with fewer.
    """
    if stage == "synthesize" and device == "cuda":
        import torch

        from edc.pipeline.devices import share_of_memory

        now = f"{share_of_memory(plan.machine.memory, torch.device(device)):.3g}"
        groups = f"set EDC_GPU_MEMORY below {now} (GB to plan with; the images stay the same)"
        return f"{groups}, or else lower {stage}.{key}.{KNOBS[stage]} (other images)"
    return f"lower {stage}.{key}.{KNOBS[stage]}"


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether an error is for want of memory, or came up while such a one was dealt with."""
    import torch

    while error is not None:
        # The CPU's allocator says it with a plain RuntimeError; the end of a recording hides it behind another.
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
