"""The DAG: what each run of a plan executes, reads and writes. Both runners are made from it.

``dvc.yaml`` is rendered from this list, because a run may need several upstream runs (all observers of a committee) and
DVC's own templates can't spell a list of dependencies. The Snakefile makes its rules from the same list.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from edc import STAGES
from edc.config import choices
from edc.config.choices import StudentChoices
from edc.errors import EdcError
from edc.nets import module_of
from edc.config.rows import AnalysisRow, ContinualRow, Plan, PretrainRow, RelabelRow, SynthesizeRow
from edc.config.registry import READERS
from edc.reporting.reported import FIGURES, REPORTED, TABLES
from edc.storage import fingerprint, sha256
from edc.config.validation import DUMPER

SOURCE = Path("src/edc")

# Modules that move data about or tell a device how to work, but hold no mathematics: editing them makes nothing stale.
INFRASTRUCTURE = {
    "analysis_choices", "budget", "builder", "choices", "cli", "cost", "current", "dag", "devices", "errors",
    "filing", "job", "layering", "loading", "locking", "new", "packing", "params", "pieces", "plan", "progress",
    "registry", "report", "schema", "sizes", "snake", "storage", "studies", "tracking", "unpacking", "validation",
}  # fmt: skip


@dataclass(frozen=True)
class Output:
    """One file a run leaves. Small ones are kept in Git, large ones in the DVC cache."""

    path: str
    cached: bool


@dataclass(frozen=True)
class Task:
    """One run of one stage."""

    stage: str
    key: str
    inputs: tuple[str, ...]
    outputs: tuple[Output, ...]
    code: tuple[str, ...]
    params: tuple[str, ...]
    gpu: int

    @property
    def name(self) -> str:
        """The run's name in DVC and Snakemake."""
        return f"{self.stage}-{self.key}"

    @property
    def command(self) -> str:
        """What either runner executes."""
        return f"edc {self.stage} --run {self.key}"


def folder(stage: str, key: str) -> str:
    """Where a run's results lie."""
    return f"results/{stage}/{key}"


def weights(observer: str) -> str:
    """The weights of one observer."""
    return f"{folder('pretrain', observer)}/weights.safetensors"


def observer_statistics(row: str, observer: str) -> str:
    """The statistics of one observer of a group."""
    return f"{folder('statistics', row)}/{observer}.safetensors"


def _pretrain(plan: Plan, key: str) -> tuple[list[str], list[Output]]:
    return [], [Output(weights(key), True), Output(f"{folder('pretrain', key)}/history.csv", False)]


def _statistics(plan: Plan, key: str) -> tuple[list[str], list[Output]]:
    observers = plan.statistics[key].observers
    return _weights(observers), [Output(observer_statistics(key, observer), True) for observer in observers]


def _synthesize(plan: Plan, key: str) -> tuple[list[str], list[Output]]:
    row, here = plan.synthesize[key], folder("synthesize", key)
    inputs = _weights([*row.observers, *(o for o in row.scorers if o not in row.observers)])
    if row.statistics is not None:
        inputs += [observer_statistics(row.statistics, observer) for observer in row.observers]
        inputs.append(f"{folder('statistics', row.statistics)}/manifest.json")
    outputs = [Output(f"{here}/images.safetensors", True)]
    return inputs, [
        *outputs,
        Output(f"{here}/history.csv", False),
        Output(f"{here}/contact_sheet.png", False),
    ]


def _relabel(plan: Plan, key: str) -> tuple[list[str], list[Output]]:
    row, here = plan.relabel[key], folder("relabel", key)
    outputs = [Output(f"{here}/logits.npy", True), Output(f"{here}/static.npy", True)]
    return [*_weights(row.observers), *_images(row.images)], outputs


def _evaluate(plan: Plan, key: str) -> tuple[list[str], list[Output]]:
    row, here = plan.evaluate[key], folder("evaluate", key)
    outputs = [Output(f"{here}/history.csv", False), Output(f"{here}/curves.png", False)]
    if row.images is None or row.labels is None:
        return [], outputs
    return [*_images(row.images), *_labels(row.labels)], outputs


def _continual(plan: Plan, key: str) -> tuple[list[str], list[Output]]:
    row, here = plan.continual[key], folder("continual", key)
    outputs = [Output(f"{here}/history.csv", False), Output(f"{here}/curves.png", False)]
    if row.images is None or row.labels is None:
        return [], outputs
    # The memory is labelled anew in every step: the observers are needed, not the stored labels.
    return [*_images(row.images), *_weights(plan.relabel[row.labels].observers)], outputs


def _slimming(plan: Plan, key: str) -> tuple[list[str], list[Output]]:
    row, here = plan.slimming[key], folder("slimming", key)
    outputs = [Output(f"{here}/history.csv", False), Output(f"{here}/curves.png", False)]
    if row.images is None or row.labels is None:
        return [], outputs
    return [*_images(row.images), *_labels(row.labels)], outputs


def _analysis(plan: Plan, key: str) -> tuple[list[str], list[Output]]:
    row, here = plan.analysis[key], folder("analysis", key)
    assert row.images is not None
    assert row.labels is not None
    made = _synthesize(plan, row.images)[0]  # it is made once more, step by step
    tables = ("matching.csv", "hessian.csv", "landscape.csv", "gradients.csv")
    pictures = ("matching.png", "hessian.png", "landscape.png", "gradients.png", "iterates.png")
    return [*_images(row.images), *_labels(row.labels), *made], [
        Output(f"{here}/{name}", False) for name in (*tables, *pictures)
    ]


def _tables(plan: Plan, key: str) -> tuple[list[str], list[Output]]:
    # Nothing of the analyses stands in a table, but a study is finished when its tables are, and they are part of it.
    named = plan.tables[key].model_dump()
    inputs = [f"{folder(stage, name)}/manifest.json" for stage, found in named.items() for name in found]
    made = [*(f"{name}.csv" for name in TABLES), *(f"{name}.png" for name in FIGURES)]
    return [*inputs, str(REPORTED)], [Output(f"results/tables/{name}", False) for name in made]


def _weights(observers: list[str]) -> list[str]:
    return [path for o in observers for path in (weights(o), f"{folder('pretrain', o)}/manifest.json")]


def _labels(key: str) -> list[str]:
    return [f"{folder('relabel', key)}/{name}" for name in ("logits.npy", "static.npy", "manifest.json")]


def _images(key: str) -> list[str]:
    return [f"{folder('synthesize', key)}/{name}" for name in ("images.safetensors", "manifest.json")]


_FILES: dict[str, Callable[[Plan, str], tuple[list[str], list[Output]]]] = {
    "pretrain": _pretrain,
    "statistics": _statistics,
    "synthesize": _synthesize,
    "relabel": _relabel,
    "evaluate": _evaluate,
    "continual": _continual,
    "slimming": _slimming,
    "analysis": _analysis,
    "tables": _tables,
}


def tasks(plan: Plan) -> Iterator[Task]:
    """Every run of a plan, in the order the data flows."""
    for stage in STAGES:
        for key, row in getattr(plan, stage).items():
            inputs, outputs = _FILES[stage](plan, key)
            params = [f"{stage}.{key}"]
            outputs.append(Output(f"{folder(stage, key)}/manifest.json", False))
            if hasattr(row, "dataset"):
                params = ["machine", f"datasets.{row.dataset}", *params]
            if borrowed := plan.borrowed(stage, key):
                params.append(f"relabel.{borrowed}")
            sources = tuple(sorted({path for m in (stage, *_by_name(plan, row)) for path in code(m)}))
            gpu = int(stage != "tables" and plan.machine.device != "cpu")
            yield Task(stage, key, tuple(inputs), tuple(outputs), sources, tuple(params), gpu)


def _by_name(plan: Plan, row: Any) -> Iterator[str]:
    """Modules a run imports by name: its dataset's reader and its networks."""
    if hasattr(row, "dataset"):
        yield "data.sets"
        yield READERS[plan.datasets[row.dataset].kind].split(":")[0].removeprefix("edc.")
    networks = [getattr(row, name) for name in ("network", "student") if hasattr(row, name)]
    observers = [*getattr(row, "observers", []), *getattr(row, "scorers", [])]
    for network in networks + [plan.pretrain[key].network for key in observers]:
        yield module_of(network).removeprefix("edc.")
    if isinstance(row, AnalysisRow) and row.images is not None:
        yield from _by_name(plan, plan.synthesize[row.images])
    if isinstance(row, StudentChoices | PretrainRow):
        yield choices.module_of(choices.SCHEDULE, row.schedule.name)
    if isinstance(row, StudentChoices):
        yield choices.module_of(choices.LOSS, row.loss.name)
    if isinstance(row, SynthesizeRow):
        yield choices.module_of(choices.CURRICULUM, row.augment.curriculum.name)
        yield choices.module_of(choices.INITIALISE, row.initialise.method)
        yield choices.module_of(choices.REGULARISE, row.regularise.method)
    if isinstance(row, ContinualRow) and row.labels is not None:
        row = plan.relabel[row.labels]
        yield from (module_of(plan.pretrain[key].network).removeprefix("edc.") for key in row.observers)
    if isinstance(row, RelabelRow):
        yield choices.module_of(choices.ENSEMBLE, row.ensemble)
        yield choices.module_of(choices.LABELS, row.source)


@cache
def code(module: str) -> tuple[str, ...]:
    """Source files whose content decides what a module computes: its own and those it imports from this package."""
    found: set[Path] = set()
    queue = [module]
    while queue:
        module = queue.pop()
        path = _file(module)
        if path is None or path in found or module.split(".")[0] in INFRASTRUCTURE:
            continue
        found.add(path)
        queue.extend(_imports(path))
    return tuple(sorted(path.relative_to(_package()).as_posix() for path in found))


def code_digest(task: Task) -> str:
    """Fingerprint of the source files a run's numbers depend on."""
    return fingerprint({path: sha256(_package() / path) for path in task.code})


def _package() -> Path:
    return Path(__file__).resolve().parents[2]


def _file(module: str) -> Path | None:
    base = _package() / SOURCE / module.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _imports(path: Path) -> tuple[str, ...]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "edc":
            base = node.module.partition(".")[2]
            found += [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
    return tuple(found)


def check_written(plan: Plan) -> None:
    """Refuse a ``dvc.yaml`` that is not this plan's.

    Raises:
        EdcError: it is missing or of another plan.
    """
    path = Path("dvc.yaml")
    if not path.exists() or path.read_text(encoding="utf-8") != render(plan):
        raise EdcError("dvc.yaml does not belong to params.yaml; run `edc plan --sync`")


def render(plan: Plan) -> str:
    """``dvc.yaml`` as text."""
    stages = {}
    for task in tasks(plan):
        stages[task.name] = {
            "cmd": task.command,
            "deps": sorted([*task.code, *task.inputs]),
            "params": sorted(task.params),
            "outs": [o.path if o.cached else {o.path: {"cache": False}} for o in task.outputs],
        }
    header = f"# The runs of study {plan.study!r} for DVC, written by `edc plan` (src/edc/dag.py); not to be edited.\n"
    return header + yaml.dump({"stages": stages}, Dumper=DUMPER, sort_keys=False, width=200)
