"""One run of one stage: its values, device and inputs, its checkpoint and its outputs, the same way for every stage."""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edc.config.rows import Dataset, Plan
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.sets import load_split
from edc.data.source import class_hash
from edc.errors import EdcError
from edc.nets.processes import processes, rank
from edc.stages.versions import VERSIONS
from edc.storage import (
    STATE,
    Checkpoint,
    digest,
    fingerprint,
    read_manifest,
    replacing,
    run_folder,
    sha256,
    write_json,
    write_manifest,
    write_text,
)
from edc.training import cuda_graphs

if TYPE_CHECKING:
    from edc.data.images import Images


class Context:
    """What a stage reads and where it writes.

    Args:
        memory: GB of the device which synthesis may plan with; None for no limit.
        environment: facts of the machine and the code for ``run.json``, collected when the run ends.

    Attributes:
        row: the values of the run.
        inputs: fingerprints of the runs read so far.
    """

    def __init__(
        self,
        plan: Plan,
        stage: str,
        key: str,
        device: torch.device,
        memory: float | None = None,
        environment: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.plan, self.stage, self.key, self.device, self.memory = plan, stage, key, device, memory
        self.row: Any = plan.row(stage, key)
        self.dataset: Dataset = plan.datasets[self.row.dataset]
        self.inputs: dict[str, str] = {}
        # Of several processes that share a run one writes; what the others have to write is the same, and is dropped.
        self._scratch = tempfile.TemporaryDirectory() if rank() else None
        self._environment = environment
        self._started, self._seconds_before = time.monotonic(), 0.0
        self._checkpoint: Checkpoint | None = None
        self._keeps = self._scratch is None
        self._ancestors: dict[str, str] = {}
        self._splits: dict[str, str] = {}
        self._classes: tuple[str, ...] = ()
        self._classes_from = self._digest = self._digest_from = ""

    @property
    def precision(self) -> torch.dtype:
        """What the networks' passes compute in."""
        return getattr(torch, self.row.precision)

    @cached_property
    def normaliser(self) -> Normaliser:
        """Into the space networks see."""
        return Normaliser(self.dataset.mean, self.dataset.std, self.device)

    @property
    def seconds(self) -> float:
        """Time spent so far, interrupted attempts included."""
        return self._seconds_before + time.monotonic() - self._started

    def path(self, name: str) -> Path:
        """Where one of this run's files goes."""
        folder = run_folder(self.stage, self.key)
        return (Path(self._scratch.name) if self._scratch else folder) / name

    def images(self, split: Any) -> Images:
        """A split of the dataset, whose classes must be those of everything read before."""
        images, where = load_split(self.dataset, split), f"dataset {self.row.dataset!r}"
        self._check_classes(images.classes, where)
        self._splits[split] = images.digest
        if split == "train":
            self._check_data(images.digest, where)
        return images

    def feed(self, images: Images) -> Feed:
        """Batches of images, normalised, on the device."""
        return Feed(images, self.dataset, self.normaliser, self.device)

    def manifest(self, stage: str, key: str) -> dict[str, Any]:
        """The manifest of an input, its files checked and its classes compared.

        Raises:
            EdcError: the run has not finished, a file is damaged, or it was made from other data or other runs than the
                inputs read before.
        """
        manifest, name = read_manifest(stage, key), f"{stage}/{key}"
        self.inputs[name] = digest(manifest)
        for run, files in (manifest["inputs"] | {name: self.inputs[name]}).items():
            if self._ancestors.setdefault(run, files) != files:
                raise EdcError(
                    f"{run_folder(stage, key)} was made with another version of {run} than is here or than the other "
                    f"inputs of {self.stage} {self.key} were made with; run `edc {stage} --run {key}` again"
                )
        self._check_classes(tuple(manifest["classes"]), str(run_folder(stage, key)))
        self._check_data(manifest["dataset_digest"], str(run_folder(stage, key)))
        return manifest

    def _check_data(self, digest: str, where: str) -> None:
        if not self._digest:
            self._digest, self._digest_from = digest, where
        if digest != self._digest:
            raise EdcError(
                f"{where} and {self._digest_from} are of different training images ({digest[:12]}, "
                f"{self._digest[:12]}); the data changed in between, run the earlier stages again"
            )

    def _check_classes(self, classes: tuple[str, ...], where: str) -> None:
        if not self._classes:
            self._classes, self._classes_from = classes, where
        if classes == self._classes:
            return
        if len(classes) != len(self._classes):
            raise EdcError(f"{where} has {len(classes)} classes, {self._classes_from} has {len(self._classes)}")
        i = next(i for i, (a, b) in enumerate(zip(classes, self._classes, strict=True)) if a != b)
        raise EdcError(
            f"{where} and {self._classes_from} disagree on the classes: class {i} is {classes[i]!r} in the first, "
            f"{self._classes[i]!r} in the second"
        )

    def checkpoint_path(self, suffix: str) -> Path:
        """A file beside the checkpoint, outside the outputs."""
        return STATE / "checkpoints" / self.stage / f"{self.key}{suffix}"

    def resume(self, own: bool = False) -> dict[str, Any] | None:
        """The state an interrupted attempt left, if it had the same values, inputs, version and device.

        Called once all inputs are read, for the checkpoint belongs to them. Of several processes that share a run the
        first keeps the state of all, or each its own.
        """
        # Steps recorded as a CUDA graph may round differently from those that are not.
        device = [self.device.type, cuda_graphs.enabled()] if self.device.type == "cuda" else self.device.type
        values = self.plan.resolved(self.stage, self.key)
        parts = [values, VERSIONS[self.stage], self.inputs, self._splits, device, str(torch.__version__)]
        if processes() > 1:  # sums over them may round differently
            parts.append(processes())
        suffix = f".{rank()}.pt" if own and processes() > 1 else ".pt"
        self._keeps = own or self._scratch is None
        self._checkpoint = Checkpoint(self.checkpoint_path(suffix), fingerprint(parts))
        state = self._checkpoint.load()
        if state is not None:
            self._seconds_before = float(state.get("seconds", 0.0))
            print(f"edc: {self.stage} {self.key} resumes from its checkpoint", file=sys.stderr, flush=True)
        return state

    def checkpoint(self, state: Callable[[], Mapping[str, Any]], now: bool = False) -> None:
        """Save the state, of tensors, numbers, strings, lists and dictionaries, if it is time to, or `now`."""
        assert self._checkpoint is not None, "resume() comes first"
        if self._keeps and (now or self._checkpoint.due()):
            self._checkpoint.save({**state(), "seconds": self.seconds})

    def clear_checkpoint(self) -> None:
        if self._checkpoint is not None and self._keeps:
            self._checkpoint.clear()

    def finite(self, loss: float, when: str) -> float:
        """The loss, if it is a number.

        Raises:
            EdcError: it is infinite or NaN, so nothing trained from there on would mean anything.
        """
        if not math.isfinite(loss):
            row = f"{self.stage}.{self.key}"
            names = ("optimise.lr", "match.weight") if self.stage == "synthesize" else ("optimiser.lr",)
            lower = " or ".join(f"{row}.{name}" for name in names)
            raise EdcError(f"{row}: diverged in {when} (loss {loss}); lower {lower}")
        return loss

    def write_table(self, name: str, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
        lines = [",".join(columns), *(",".join(_cell(value) for value in row) for row in rows)]
        write_text(self.path(name), "\n".join(lines) + "\n")

    def write_array(self, name: str, array: np.ndarray) -> None:
        with replacing(self.path(name)) as temporary, temporary.open("wb") as file:
            np.save(file, array)

    def move(self, source: Path, name: str) -> None:
        """Move a finished file from beside the checkpoint to the outputs."""
        with replacing(self.path(name)) as temporary:
            shutil.move(source, temporary)

    def finish(self, files: Iterable[str], **facts: object) -> None:
        """Write ``run.json`` and then the manifest, which makes the run complete, and delete the checkpoint.

        The files are those later stages and the tables read; further facts hold no times, dates, devices or paths.
        """
        for upstream in self.plan.upstream(self.stage, self.key):
            if "/".join(upstream) not in self.inputs:  # named by the row, though the stage had no need of it
                self.manifest(*upstream)
        entries = {name: {"bytes": self.path(name).stat().st_size, "sha256": sha256(self.path(name))} for name in files}
        manifest = {
            "stage": self.stage,
            "run": self.key,
            "version": VERSIONS[self.stage],
            "params": self.plan.resolved(self.stage, self.key),
            "inputs": self.inputs,
            **facts,
            "classes": list(self._classes),
            "class_hash": class_hash(self._classes),
            "files": entries,
        }
        write_json(self.path("run.json"), {"seconds": round(self.seconds, 2), **self._environment()})
        write_manifest(self.path(""), manifest)
        self.clear_checkpoint()


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
