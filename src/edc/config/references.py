"""Reading a plan, and checking that every name in it means something."""

from __future__ import annotations

from pathlib import Path

from edc import STAGES
from edc.config.compact import PlanFile, expanded
from edc.config.registry import READERS
from edc.config.rows import Plan, StudentRow, StudyRuns
from edc.config.validation import read_yaml, validate
from edc.errors import EdcError, unknown_name
from edc.nets import check_name
from edc.nets.registry import PRUNABLE


def load_plan(path: Path = Path("params.yaml")) -> Plan:
    """Read and check the active plan.

    Raises:
        EdcError: the file is missing (``edc plan STUDY`` writes it) or holds a value that is not allowed.
    """
    if not path.exists():
        raise EdcError(f"{path}: no plan here; write one with `edc plan STUDY`")
    file: PlanFile = validate(PlanFile, read_yaml(path), str(path))
    plan: Plan = validate(Plan, expanded(file, str(path)), str(path))
    check_references(plan, str(path))
    return plan


def check_references(plan: Plan, where: str) -> None:
    """Every name of an upstream row, dataset or network must exist, before anything starts."""
    for name, dataset in plan.datasets.items():
        if dataset.kind not in READERS:
            raise unknown_name("dataset kind", dataset.kind, READERS, f"{where}: datasets.{name}")

    def need(section: str, name: str, key: str) -> None:
        if name not in getattr(plan, section):
            raise unknown_name(f"{section} row", name, getattr(plan, section), f"{where}: {key}")

    for stage in list(STAGES)[:-1]:
        for key, row in getattr(plan, stage).items():
            here = f"{stage}.{key}"
            need("datasets", row.dataset, here)
            for observer in [*getattr(row, "observers", []), *getattr(row, "scorers", [])]:
                need("pretrain", observer, here)
            if stage == "synthesize" and row.statistics is not None:
                need("statistics", row.statistics, here)
                for observer in row.observers:
                    if observer not in plan.statistics[row.statistics].observers:
                        raise EdcError(
                            f"{where}: {here}.observers: {row.statistics!r} has no statistics of {observer!r}"
                        )
            learns = isinstance(row, StudentRow) and row.images is not None
            if stage == "relabel" or learns:
                need("synthesize", row.images, here)
            if learns:
                need("relabel", row.labels, here)
                labels, images = plan.relabel[row.labels], plan.synthesize[row.images]
                for name in ("dataset", "ipc"):
                    mine, theirs = getattr(row, name), getattr(images, name)
                    if mine != theirs:
                        raise EdcError(f"{where}: {here}.{name} = {mine!r}: the images {row.images!r} have {theirs!r}")
                if labels.images != row.images:
                    raise EdcError(f"{where}: {here}.labels = {row.labels!r}: those are labels of {labels.images!r}")
                for name in ("epochs", "finetune") if stage != "continual" else ():
                    if labels.epochs < (wanted := getattr(row, name, 0)):
                        raise EdcError(
                            f"{where}: {here}.{name} = {wanted}: {row.labels!r} has labels for {labels.epochs} epochs"
                        )
            if stage == "evaluate" and row.split == "val" and not plan.datasets[row.dataset].val_fraction:
                raise EdcError(
                    f"{where}: {here}.split = 'val': dataset {row.dataset!r} holds no training image out (val_fraction "
                    "is 0.0); expected a val_fraction above 0"
                )
            if stage == "slimming" and row.student not in PRUNABLE:
                raise unknown_name("prunable network", row.student, PRUNABLE, f"{where}: {here}.student")
            if stage == "continual" and row.steps > plan.datasets[row.dataset].classes:
                classes = plan.datasets[row.dataset].classes
                raise EdcError(
                    f"{where}: {here}.steps = {row.steps}: expected at most {classes}, the number of classes"
                )
            if stage == "analysis":
                images, regulariser = plan.synthesize[row.images], plan.synthesize[row.images].regularise.method
                if not images.optimise.iterations or regulariser == "none":
                    raise EdcError(
                        f"{where}: {here}.images = {row.images!r}: expected images synthesised with a regulariser; "
                        f"theirs is {regulariser!r}, after {images.optimise.iterations} iterations"
                    )
                whole = plan.datasets[row.dataset].classes * row.ipc
                if max(row.gradients.batches) > whole:
                    raise EdcError(
                        f"{where}: {here}.gradients.batches = {row.gradients.batches}: expected at most {whole} each, "
                        "the number of condensed images"
                    )
            for network in filter(None, (getattr(row, "network", None), getattr(row, "student", None))):
                try:
                    check_name(network)
                except EdcError as error:
                    raise EdcError(f"{where}: {here}: {error}") from None
    for study, runs in plan.studies.items():
        for stage in StudyRuns.model_fields:
            for name in getattr(runs, stage):
                need(stage, name, f"studies.{study}.{stage}")
