"""The files a study is composed from: datasets, recipes, protocols and studies under ``workflow/``.

Each may inherit from another of its kind. Every key is checked when its file is read. Values are merged in a fixed
order: the file's own, those for the dataset's family, those for the number of images per class, those for both, and
last the study's own; what comes out must be complete (:mod:`edc.config.layers`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model, model_validator

from edc.config.analysis import AnalysisChoices
from edc.config.choices import PretrainChoices, StatisticsChoices, SynthesisChoices
from edc.config.partial import Part, Values, merge, partial
from edc.config.protocol import LabelChoices, StudentChoices
from edc.config.rows import KEEP, PRECISION, SPLIT, Dataset, Machine, Precision, Split
from edc.config.validation import Fraction, Model, Seeds, Sizes, read_yaml, validate
from edc.errors import EdcError, unknown_name

WORKFLOW = Path("workflow")
NAME = r"(?![-+]?[0-9]+([eE][-+]?[0-9]+)?$)[A-Za-z0-9_][A-Za-z0-9_-]*"
"""Of a file of any kind: it becomes a key of params.yaml, where a dot separates keys, and a part of folders' names."""
NAMES = "letters, digits, _ and -, but no number"

SynthesisPart = Annotated[Values, Part(SynthesisChoices)]
LabelPart = Annotated[Values, Part(LabelChoices)]
StudentPart = Annotated[Values, Part(StudentChoices)]
PretrainPart = Annotated[Values, Part(PretrainChoices)]


class DatasetFile(Model):
    """``workflow/datasets/NAME.yaml``"""

    description: str
    title: str = Field(description="how the dataset is called beside its numbers")
    data: Annotated[Values, Part(Dataset, without=("name",))]
    observers: list[str] = Field(min_length=1, description="networks, in the order synthesis visits them")
    pretrain: PretrainChoices
    networks: dict[str, PretrainPart] = Field(default={}, description="values of `pretrain` for single networks")
    statistics: StatisticsChoices


def _networks(value: Any) -> Any:
    if isinstance(value, str) and value not in ("first", "all"):
        raise ValueError(f"expected 'first', 'all' or a list of observers, found {value!r}")
    return value


Networks = Annotated[list[str] | Literal["first", "all"], BeforeValidator(_networks)]
"""Observers of a dataset by name, the first of them, or all."""


class RecipeObservers(Model):
    """What a recipe uses observers for."""

    match: Networks | None = Field(default=None, description="whose statistics are matched; default: all")
    score: Networks | None = Field(default=None, description="that score crops or give features; default: the first")


class ProtocolObservers(Model):
    """What a protocol uses observers for."""

    label: Networks | None = Field(default=None, description="the teachers; default: all")


class RecipeLayer(Model):
    """Values that apply to one family of datasets or one number of images per class."""

    synthesize: SynthesisPart = {}
    observers: RecipeObservers = RecipeObservers()
    protocol: str | None = None


class RecipeFamily(RecipeLayer):
    """A layer for a family, with layers for images per class inside."""

    ipc: dict[int, RecipeLayer] = {}


class RecipeFile(Model):
    """``workflow/recipes/NAME.yaml``: every choice for the images, and the protocol the method brings along."""

    description: str
    source: str
    real: bool = Field(default=False, description="no condensed set: students train on the dataset itself")
    synthesize: SynthesisPart = {}
    observers: RecipeObservers = RecipeObservers()
    protocol: str
    families: dict[str, RecipeFamily] = {}
    ipc: dict[int, RecipeLayer] = {}


class ProtocolLayer(Model):
    """Values that apply to one family of datasets or one number of images per class."""

    relabel: LabelPart = {}
    student: StudentPart = {}
    observers: ProtocolObservers = ProtocolObservers()


class ProtocolFamily(ProtocolLayer):
    """A layer for a family, with layers for images per class inside."""

    ipc: dict[int, ProtocolLayer] = {}


class ProtocolFile(Model):
    """``workflow/protocols/NAME.yaml``: how images are labelled, and how a student is trained and evaluated."""

    description: str
    source: str
    regime: Literal["soft", "static", "hard"]
    relabel: LabelPart
    observers: ProtocolObservers = ProtocolObservers()
    student: StudentPart
    students: dict[str, StudentPart] = Field(default={}, description="values of `student` for single networks")
    families: dict[str, ProtocolFamily] = {}
    ipc: dict[int, ProtocolLayer] = {}


class RecipeChange(Model):
    """What a variant changes of every recipe."""

    synthesize: SynthesisPart = {}


class ProtocolChange(Model):
    """What a variant changes of every protocol."""

    relabel: LabelPart = {}
    student: StudentPart = {}


class Variant(Model):
    """Values laid over every recipe and protocol of a grid; all runs it concerns bear its name."""

    recipe: RecipeChange = RecipeChange()
    protocol: ProtocolChange = ProtocolChange()
    seed: int | None = Field(default=None, ge=0, description="of the draws of synthesis; null: the study's")


class Overrides(Model):
    """Values laid over files of one kind, by name."""

    datasets: dict[str, Annotated[Values, Part(DatasetFile)]] = {}
    recipes: dict[str, Annotated[Values, Part(RecipeFile)]] = {}
    protocols: dict[str, Annotated[Values, Part(ProtocolFile)]] = {}


class Grid(Model):
    """A part of a study that is crossed in full; what is left out is the study's."""

    datasets: list[str] | None = None
    recipes: list[str] | None = None
    ipc: Sizes | None = None
    protocols: list[str] | None = None
    students: list[str] | None = None
    seeds: Seeds | None = None
    variants: list[str] | None = Field(default=None, description="names of `variants`; '' is none")


class Application(Model):
    """Which condensed sets an application is tried with."""

    recipes: list[str] = Field(min_length=1)
    ipc: Sizes
    protocols: list[str] = Field(min_length=1)
    students: list[str] = Field(min_length=1)
    seeds: Seeds = [0]


class Continual(Application):
    """Class-incremental learning."""

    steps: int = Field(ge=2)
    orders: Seeds = [0]


class Slimming(Application):
    """Network slimming."""

    variants: list[str] = Field(default=[""], min_length=1, description="of the study, by name; '': values as they are")
    sparsity: float = Field(default=1e-4, ge=0)
    ratios: list[Annotated[float, Field(ge=0, lt=1)]] = Field(min_length=1)
    keep: Fraction = Field(default=0.0, description=KEEP)
    finetune: int = Field(ge=0)
    min_accuracy: Fraction | None = None
    pretrained: bool = Field(
        default=False, description="start with networks trained on the dataset, one for each seed, as its observers are"
    )


class Analysis(Application, AnalysisChoices):
    """EDC's Figure 2 on our own runs, or the quality of condensed sets."""


class StudyMachine(Machine):
    """Where a study's runs compute, and how exactly: the precision becomes part of every row."""

    precision: Precision = Field(default="float32", description=PRECISION)


class StudyFile(Model):
    """``workflow/studies/NAME.yaml``: what to run."""

    description: str
    datasets: list[str] = Field(min_length=1)
    recipes: list[str] = Field(min_length=1)
    ipc: Sizes
    protocols: list[str] = Field(min_length=1, description="names, or 'default' for each recipe's own")
    students: list[str] = Field(min_length=1)
    seeds: Seeds = Field(default=[0, 1, 2], description="of the students")
    seed: int = Field(default=0, ge=0, description="of the synthesis")
    split: Split = Field(default="test", description=SPLIT)
    variants: dict[str, Variant] = {}
    grids: list[Grid] = Field(default=[], description="parts crossed one by one; default: one of everything above")
    continual: list[Continual] = []
    slimming: list[Slimming] = []
    analysis: list[Analysis] = []
    machine: StudyMachine = StudyMachine()
    overrides: Overrides = Overrides()

    @model_validator(mode="after")
    def _chooses(self) -> StudyFile:
        for stage in ("continual", "analysis") if self.split == "val" else ():
            if getattr(self, stage):
                raise ValueError(
                    f"{stage}: expected none beside split = 'val', which chooses settings of students and of slimming"
                )
        return self

    def parts(self) -> list[Grid]:
        """The grids, every value filled in."""
        own = {name: getattr(self, name) for name in Grid.model_fields if name != "variants"} | {"variants": [""]}
        return [Grid(**(own | grid.model_dump(exclude_none=True))) for grid in self.grids or [Grid()]]


KINDS: dict[str, type[Model]] = {
    "datasets": DatasetFile,
    "recipes": RecipeFile,
    "protocols": ProtocolFile,
    "studies": StudyFile,
}


@cache
def written(kind: str) -> type[Model]:
    """The model of a single file: what it leaves out may stand in the file it inherits from."""
    inherits = Field(default=None, description="another file of this folder whose values these are laid over")
    name = f"{KINDS[kind].__name__}Written"
    made: type[Model] = create_model(name, __base__=partial(KINDS[kind]), inherits=(str | None, inherits))
    return made


def in_checkout() -> None:
    """Refuse to write ``workflow/`` anywhere but in the root of a checkout."""
    if not WORKFLOW.is_dir():
        raise EdcError(f"{WORKFLOW}: no such folder here; run edc in the root of a checkout")


def names(kind: str) -> list[str]:
    """Names of all files of one kind, sorted."""
    return sorted(path.stem for path in (WORKFLOW / kind).glob("*.yaml"))


def chain(kind: str, name: str, where: str = "") -> list[tuple[Path, Values]]:
    """A file and all it inherits from, itself first, each with its values as written.

    ``where`` is the file that names it, for the error line.

    Raises:
        EdcError: a name is unknown, a key or value is not allowed, or a file inherits from itself.
    """
    files: dict[str, tuple[Path, Values]] = {}
    current: str | None = name
    while current is not None:
        path, singular = WORKFLOW / kind / f"{current}.yaml", {"studies": "study"}.get(kind, kind.removesuffix("s"))
        if Path(current).name != current or not path.exists():  # a name, no path
            raise unknown_name(singular, current, names(kind), where or str(WORKFLOW / kind))
        if not re.fullmatch(NAME, current):
            raise EdcError(f"{path}: {singular} name {current!r}: expected {NAMES}; rename the file")
        if current in files:
            raise EdcError(f"{path}: inherits from itself through {' -> '.join([*files, current])}")
        values, where = read_yaml(path), str(path)
        validate(written(kind), values, where)
        files[current] = path, values
        current = values.pop("inherits", None)
    return list(files.values())


def root(kind: str, name: str) -> str:
    """The file that a file inherits from in the end; itself where it inherits nothing or is missing or unfit."""
    try:
        return chain(kind, name)[-1][0].stem
    except EdcError:
        return name


def read(kind: str, name: str, overrides: Mapping[str, Any] | None = None, where: str = "") -> Any:
    """Read one file with all it inherits and a study's overrides; errors as of :func:`chain`, or a key is missing."""
    values: Values = {}
    for _, own in reversed(chain(kind, name, where)):
        values = merge(values, own)
    file = validate(KINDS[kind], values, str(WORKFLOW / kind / f"{name}.yaml"))
    if overrides:
        file = validate(KINDS[kind], merge(values, overrides), f"{where}: overrides.{kind}.{name}")
    return file
