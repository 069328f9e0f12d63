"""Reading a plan, and checking that its rows fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edc import STAGES
from edc.config.compact import PlanFile, expanded
from edc.config.registry import READERS
from edc.config.rows import (
    AnalysisRow,
    ContinualRow,
    EvaluateRow,
    Plan,
    SlimmingRow,
    StudentRow,
    StudyRuns,
    SynthesizeRow,
)
from edc.config.validation import read_yaml, validate
from edc.errors import EdcError, unknown_name
from edc.nets import check_name
from edc.nets.registry import PRUNABLE

UPSTREAM = {"dataset": "datasets", "images": "synthesize", "labels": "relabel", "statistics": "statistics"}
"""Values of a row that name an entry of a section; those of observers and scorers name several."""


def load_plan(path: Path = Path("params.yaml")) -> Plan:
    """Read and check the active plan; refuses a missing file and values that are not allowed."""
    if not path.exists():
        raise EdcError(f"{path}: no plan here; write one with `edc plan STUDY`")
    file = validate(PlanFile, read_yaml(path), str(path))
    plan: Plan = validate(Plan, expanded(file, str(path)), str(path))
    check_references(plan, str(path))
    return plan


def check_references(plan: Plan, where: str) -> None:
    """Every name of an upstream row, dataset or network must exist, and rows must fit the rows they build on."""
    for name, dataset in plan.datasets.items():
        if dataset.kind not in READERS:
            raise unknown_name("dataset kind", dataset.kind, READERS, f"{where}: datasets.{name}")
    for stage in STAGES:
        for key, row in getattr(plan, stage, {}).items():
            here = f"{where}: {stage}.{key}"
            _check_names(plan, row, here)
            if isinstance(row, SynthesizeRow) and (sizes := row.optimise.sizes):
                size = plan.datasets[row.dataset].image_size
                if sizes[-1] != size:
                    raise EdcError(f"{here}.optimise.sizes = {sizes}: expected {size} last, the dataset's image_size")
            if isinstance(row, StudentRow):
                _check_student(plan, row, here)
                _check_images(plan, row, key, here)
    for study, runs in plan.studies.items():
        for stage in StudyRuns.model_fields:
            for name in getattr(runs, stage):
                _need(plan, stage, name, f"{where}: studies.{study}.{stage}")


def _need(plan: Plan, section: str, name: str, here: str) -> None:
    if name not in getattr(plan, section):
        raise unknown_name(f"{section} row", name, getattr(plan, section), here)


def _check_names(plan: Plan, row: Any, here: str) -> None:
    """Upstream rows and networks."""
    for value, section in UPSTREAM.items():
        if (name := getattr(row, value, None)) is not None:
            _need(plan, section, name, here)
    observers = getattr(row, "observers", [])
    for observer in [*observers, *getattr(row, "scorers", []), *(getattr(row, "pretrained", None) or [])]:
        _need(plan, "pretrain", observer, here)
    if (statistics := getattr(row, "statistics", None)) is not None:
        for observer in observers:
            if observer not in plan.statistics[statistics].observers:
                raise EdcError(f"{here}.observers: {statistics!r} has no statistics of {observer!r}")
    for network in filter(None, (getattr(row, "network", None), getattr(row, "student", None))):
        try:
            check_name(network)
        except EdcError as error:
            raise EdcError(f"{here}: {error}") from None


def _check_images(plan: Plan, row: StudentRow, key: str, here: str) -> None:
    """Which images a row names. Recipes that make the same images share them; the row's key then has its recipe."""
    if row.images is None:
        return
    images = plan.synthesize[row.images]
    for name in ("dataset", "ipc", "recipe"):
        own, theirs = getattr(row, name), getattr(images, name)
        shared = name == "recipe" and f"-{own}-" in key
        if own != theirs and not shared:
            raise EdcError(f"{here}.{name} = {own!r}: the images {row.images!r} have {theirs!r}")


def _check_student(plan: Plan, row: StudentRow, here: str) -> None:
    """Values of a row with a student against those of its dataset, its images and its labels."""
    dataset = plan.datasets[row.dataset]
    if row.images is not None and row.labels is not None:
        labels = plan.relabel[row.labels]
        if labels.images != row.images:
            raise EdcError(f"{here}.labels = {row.labels!r}: those are labels of {labels.images!r}")
        needed = {"epochs": row.label_epochs, "finetune": getattr(row, "finetune", 0)}
        for name, epochs in needed.items() if not isinstance(row, ContinualRow) else ():
            if labels.epochs < epochs and labels.views is None:
                raise EdcError(
                    f"{here}.{name} = {getattr(row, name)}: {row.labels!r} has labels for {labels.epochs} epochs"
                )
    if (row.phases or row.loss.hard is not None) and (row.images is None or not isinstance(row, EvaluateRow)):
        key, only = "phases" if row.phases else "loss.hard", "only the evaluation of condensed images has them"
        raise EdcError(f"{here}.{key}: expected none; {only}")
    if getattr(row, "split", "test") == "val" and not dataset.val_fraction:
        raise EdcError(
            f"{here}.split = 'val': dataset {row.dataset!r} holds no training image out (val_fraction is 0.0); "
            "expected a val_fraction above 0"
        )
    if isinstance(row, SlimmingRow):
        if row.student not in PRUNABLE:
            raise unknown_name("prunable network", row.student, PRUNABLE, f"{here}.student")
        for key in row.pretrained or []:
            if (network := plan.pretrain[key].network) != row.student:
                raise EdcError(f"{here}.pretrained: {key!r} is a {network}; expected the student, {row.student}")
    if isinstance(row, ContinualRow) and row.steps > dataset.classes:
        raise EdcError(f"{here}.steps = {row.steps}: expected at most {dataset.classes}, the number of classes")
    if isinstance(row, AnalysisRow) and row.images is not None and row.kind == "figure2":
        images, whole = plan.synthesize[row.images], dataset.classes * row.ipc
        if not images.optimise.iterations or images.regularise.method == "none":
            raise EdcError(
                f"{here}.images = {row.images!r}: expected images synthesised with a regulariser; "
                f"theirs is {images.regularise.method!r}, after {images.optimise.iterations} iterations"
            )
        if images.optimise.sizes is not None:
            raise EdcError(
                f"{here}.images = {row.images!r}: expected images of one size in all iterations; theirs has "
                f"optimise.sizes = {images.optimise.sizes}"
            )
        if max(row.gradients.batches) > whole:
            raise EdcError(
                f"{here}.gradients.batches = {row.gradients.batches}: expected at most {whole} each, the number of "
                "condensed images"
            )
