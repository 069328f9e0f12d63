"""The files a study is composed from: datasets, recipes, protocols and studies under ``workflow/``.

Each is a short YAML file that may inherit from another of its kind. Values are laid over one another in a fixed order:
the file's own values, those for the dataset's family, those for the number of images per class, those for both, and
last the study's own. The result is checked after each layer, so an error names the file that brought it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edc.config.analysis import AnalysisChoices
from edc.config.choices import Optimiser, Schedule
from edc.errors import EdcError, unknown_name
from edc.config.rows import PRECISION, SPLIT, Machine, Precision, Split
from edc.config.validation import Model, Seeds, read_yaml, validate

WORKFLOW = Path("workflow")

Values = dict[str, Any]


class PretrainChoices(Model):
    """How a dataset's observers are trained."""

    weights: str | None = None
    epochs: int = Field(ge=0)
    batch: int = Field(ge=2)
    optimiser: Optimiser
    schedule: Schedule
    seed: int = Field(default=0, ge=0)


class StatisticsChoices(Model):
    """How the statistics pass over a dataset is made."""

    patch: int = Field(ge=1)
    batch: int = Field(ge=2)
    class_variance: Literal["within", "mixture"] = "within"
    seed: int = Field(default=0, ge=0)


class DatasetFile(Model):
    """``workflow/datasets/NAME.yaml``"""

    inherits: str | None = None
    description: str
    title: str = Field(description="how the dataset is called beside its numbers")
    data: Values
    observers: list[str] = Field(min_length=1, description="networks, in the order synthesis visits them")
    pretrain: PretrainChoices
    networks: dict[str, Values] = Field(default={}, description="values of `pretrain` for single networks")
    statistics: StatisticsChoices


Role = Literal["match", "score", "label"]
"""What a network is asked for: statistics to match and classes to agree with, scores of crops, soft labels."""


Networks = list[str] | Literal["first", "all"]
"""Observers of a dataset by name, the first of them, or all."""


class Layer(Model):
    """Values that apply to one family of datasets or one number of images per class."""

    synthesize: Values = {}
    relabel: Values = {}
    student: Values = {}
    observers: dict[Role, Networks] = {}
    protocol: str | None = None


class FamilyLayer(Layer):
    """A layer for a family, with layers for images per class inside."""

    ipc: dict[int, Layer] = {}


class RecipeFile(Model):
    """``workflow/recipes/NAME.yaml``: every choice for the images, and the protocol the method brings along."""

    inherits: str | None = None
    description: str
    source: str
    real: bool = Field(default=False, description="no condensed set: students train on the dataset itself")
    synthesize: Values = {}
    observers: dict[Literal["match", "score"], Networks] = Field(
        default={},
        description="networks matched (default: all of the dataset's) and networks that score (the first)",
    )
    protocol: str
    families: dict[str, FamilyLayer] = {}
    ipc: dict[int, Layer] = {}


class ProtocolFile(Model):
    """``workflow/protocols/NAME.yaml``: how images are labelled, and how a student is trained and judged."""

    inherits: str | None = None
    description: str
    source: str
    regime: Literal["soft", "static", "hard"]
    relabel: Values
    observers: dict[Literal["label"], Networks] = Field(
        default={}, description="networks that label; default: all of the dataset's"
    )
    student: Values
    students: dict[str, Values] = Field(default={}, description="values of `student` for single networks")
    families: dict[str, FamilyLayer] = {}
    ipc: dict[int, Layer] = {}


class Variant(Model):
    """Values laid over every recipe and protocol of a grid; all runs it concerns bear its name."""

    recipe: Values = {}
    protocol: Values = {}
    seed: int | None = Field(default=None, ge=0, description="of the draws of synthesis; null: the study's")


class Grid(Model):
    """A part of a study that is crossed in full; what is left out is as the study says."""

    datasets: list[str] | None = None
    recipes: list[str] | None = None
    ipc: list[int] | None = None
    protocols: list[str] | None = None
    students: list[str] | None = None
    seeds: Seeds | None = None
    variants: list[str] | None = Field(default=None, description="names of `variants`; '' is none")


class Application(Model):
    """Which condensed sets an application is tried with."""

    recipes: list[str] = Field(min_length=1)
    ipc: list[int] = Field(min_length=1)
    protocols: list[str] = Field(min_length=1)
    students: list[str] = Field(min_length=1)
    seeds: Seeds = [0]


class Continual(Application):
    """Class-incremental learning."""

    steps: int = Field(ge=2)
    orders: Seeds = [0]


class Slimming(Application):
    """Network slimming."""

    sparsity: float = Field(default=1e-4, ge=0)
    ratios: list[Annotated[float, Field(ge=0, lt=1)]] = Field(min_length=1)
    finetune: int = Field(ge=0)


class Analysis(Application, AnalysisChoices):
    """EDC's Figure 2 on our own runs."""


class StudyMachine(Machine):
    """Where a study's runs compute, and how exactly: the precision becomes part of every row."""

    precision: Precision = Field(default="float32", description=PRECISION)


class StudyFile(Model):
    """``workflow/studies/NAME.yaml``: what to run."""

    inherits: str | None = None
    description: str
    datasets: list[str] = Field(min_length=1)
    recipes: list[str] = Field(min_length=1)
    ipc: list[int] = Field(min_length=1)
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
    overrides: dict[Literal["datasets", "recipes", "protocols"], dict[str, Values]] = Field(
        default={}, description="values laid over a file's own, by name"
    )

    @model_validator(mode="after")
    def _chooses(self) -> StudyFile:
        for stage in ("continual", "slimming", "analysis") if self.split == "val" else ():
            if getattr(self, stage):
                raise ValueError(f"{stage}: expected none beside split = 'val', which chooses settings of students")
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


def names(kind: str) -> list[str]:
    """Names of all files of one kind, sorted."""
    return sorted(path.stem for path in (WORKFLOW / kind).glob("*.yaml"))


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """``over`` laid upon ``base``: mappings are merged key by key, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def root(kind: str, name: str) -> str:
    """The file that a file inherits from in the end; itself where it inherits nothing or there is none."""
    seen = [name]
    while (path := WORKFLOW / kind / f"{seen[-1]}.yaml").exists():
        parent = read_yaml(path).get("inherits")
        if not isinstance(parent, str) or parent in seen:
            break
        seen.append(parent)
    return seen[-1]


def read(kind: str, name: str, overrides: Mapping[str, Any] | None = None, where: str = "") -> Any:
    """Read one file with all it inherits.

    Args:
        kind: datasets, recipes, protocols or studies.
        name: the file's name without its ending.
        overrides: values of the study for this file.
        where: who asked for it, for the error line.

    Raises:
        EdcError: the name is unknown (the nearest is offered) or a value is not allowed.
    """
    singular = {"studies": "study"}.get(kind, kind.removesuffix("s"))
    values: Values = {}
    chain: list[str] = []
    current: str | None = name
    while current is not None:
        path = WORKFLOW / kind / f"{current}.yaml"
        if Path(current).name != current or not path.exists():  # a name, no path
            raise unknown_name(singular, current, names(kind), where or str(WORKFLOW / kind))
        if current in chain:
            raise EdcError(f"{path}: inherits from itself through {' -> '.join([*chain, current])}")
        own = read_yaml(path)
        chain.append(current)
        where = str(path)
        current = own.pop("inherits", None)
        if current is not None and not isinstance(current, str):
            raise EdcError(f"{path}: inherits = {current!r}: expected the name of a {singular}")
        values = merge(own, values)
    path = WORKFLOW / kind / f"{name}.yaml"
    file = validate(KINDS[kind], values, str(path))
    if overrides:
        file = validate(KINDS[kind], merge(values, overrides), f"study's overrides.{kind}.{name}")
    return file
