"""The typed parameters: one model per section of ``params.yaml``, every value with its type and range.

A plan (``params.yaml``) has one dictionary per stage and one entry, a row, per run. Rows name the rows they build on.
The models refuse unknown keys, so a misspelt value cannot be silently ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edc import STAGES
from edc.errors import EdcError, unknown_name

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"expected the smaller limit first, found {limits[0]} before {limits[1]}")
    return limits


Range = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Area = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]], AfterValidator(_ascending)
]


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"expected every seed once, found {seeds}")
    return seeds


Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_distinct)]


class Model(BaseModel):
    """Base of every section: unknown keys are refused, values are fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Machine(Model):
    """Where and how a run computes. Threads are part of the plan because they change the last bits of a sum."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=2, ge=1, le=256, description="CPU threads of one run")


class Dataset(Model):
    """The original labelled images and the facts every stage needs about them."""

    name: str
    family: str = Field(description="which per-data-set values of recipes and protocols apply")
    kind: str = Field(description="digits, parquet, folder or torchvision")
    root: str | None = Field(
        default=None, description="relative path, or null: from `edc plan --data` or EDC_DATA_<NAME>"
    )
    source: str | None = Field(default=None, description="torchvision's class name, for kind torchvision")
    image_size: int = Field(ge=4, le=1024, description="side in pixels")
    channels: Literal[1, 3] = 3
    classes: int = Field(ge=2, le=100_000)
    mean: list[float]
    std: list[Positive]
    pad: int = Field(default=4, ge=0, description="random-crop padding for real images, pixels")
    flip: bool = Field(default=True, description="whether a mirrored image keeps its class")
    holdout: float = Field(default=0.1, ge=0, le=0.5, description="share of the training images never trained on")
    split_seed: int = Field(default=0, ge=0)
    train_per_class: int | None = Field(default=None, ge=1, description="keep at most so many training images a class")
    test_per_class: int | None = Field(default=None, ge=1)
    image_column: str = "img"
    label_column: str = "label"
    unreadable_limit: int = Field(default=0, ge=0, description="unreadable images tolerated before the run stops")

    @model_validator(mode="after")
    def _channels(self) -> Dataset:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need {self.channels} values, one per channel")
        return self


class Optimiser(Model):
    """Weight decay falls on convolution and linear weights only, not on biases and norm parameters."""

    name: Literal["adamw", "sgd"]
    lr: Positive
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: Fraction = 0.9
    betas: tuple[Decay, Decay] = (0.9, 0.999)


class Schedule(Model):
    """The learning rate's factor per epoch: EDC appendix, Eq. 33 for SSRS."""

    name: Literal["constant", "smoothing", "ssrs", "multistep", "linear_zeta", "alrs"]
    zeta: float = Field(default=1.0, ge=1, description="flattens the cosine: 1 ends at 0, 2 at one half")
    milestones: list[Fraction] = Field(default=[0.8, 0.9, 0.95], description="multistep: shares of the epochs")
    factor: Fraction = Field(default=0.5, description="multistep: applied at each milestone")


class PretrainRow(Model):
    """One observer trained on the dataset."""

    dataset: str
    network: str
    weights: str | None = Field(default=None, description="null, 'default' (published weights) or a local file")
    epochs: int = Field(ge=0, description="0 keeps the loaded weights as they are")
    batch: int = Field(ge=2)
    optimiser: Optimiser
    schedule: Schedule
    seed: int = Field(ge=0)


class StatisticsRow(Model):
    """One pass over the dataset for a group of observers."""

    dataset: str
    observers: list[str] = Field(min_length=1)
    patch: int = Field(ge=1, description="side of the cells of the patch statistics, pixels of the feature map")
    batch: int = Field(ge=2)
    class_variance: Literal["within", "mixture"] = Field(
        default="within",
        description="class target: mean within-image variance, or that plus the variance of means",
    )
    seed: int = Field(ge=0)


class Initialise(Model):
    """Where the pixels start."""

    method: Literal["real", "noise"] = "real"
    draw: Literal["independent", "softmin", "distinct"] = Field(
        default="independent", description="real: repeats may occur, are avoided, or are excluded"
    )


class Match(Model):
    """Statistics matching. ``none`` leaves the images as initialised."""

    method: Literal["none", "category"] = "category"
    weight: float = Field(default=0.01, ge=0, description="of the matching loss beside cross-entropy")
    alpha: Fraction = Field(default=0.5, description="share of the global target; 1 - alpha falls on the class target")
    first_hook: float = Field(default=10.0, ge=0, description="weight of the first hook, whose input is the image")
    ema: Fraction = Field(default=0.8, description="rho: how much of the running statistic survives a visit")
    ema_init: Literal["first", "zero"] = Field(default="first", description="running statistic before the first visit")
    swap_class_patch: bool = Field(
        default=False, description="exchange cell means and variances of the class target, as EDC's published code does"
    )
    drop: Fraction = Field(default=0.0, description="probability to skip a convolution's hook in a visit")


class Regularise(Model):
    """Flatness regularisation against the exponential moving average of the images."""

    method: Literal["none", "logits"] = "none"
    weight: float = Field(default=0.25, ge=0)
    beta: Fraction = Field(default=0.99, description="decay of the averaged images")
    tau: Positive = 4.0
    reduction: Literal["element_mean", "batch_mean"] = "batch_mean"


class SynthesisAugment(Model):
    """One crop rectangle and one flip per iteration, shared by the group."""

    crop_scale: Area = (0.5, 1.0)
    crop_ratio: Range = (0.75, 4 / 3)
    flip: bool = True


class Optimise(Model):
    """Adam on the pixels, cosine learning rate, one group of images after the other."""

    iterations: int = Field(ge=0)
    lr: Positive = 0.05
    betas: tuple[Decay, Decay] = (0.5, 0.9)
    group: int = Field(default=0, ge=0, description="images matched together; 0: all")


class SynthesisChoices(Model):
    """The choices of a recipe that make its images."""

    initialise: Initialise = Initialise()
    match: Match = Match()
    regularise: Regularise = Regularise()
    augment: SynthesisAugment = SynthesisAugment()
    optimise: Optimise


class SynthesizeRow(SynthesisChoices):
    """One condensed set."""

    dataset: str
    recipe: str
    ipc: int = Field(ge=1)
    seed: int = Field(ge=0)
    statistics: str | None = None
    observers: list[str] = []

    @model_validator(mode="after")
    def _needs(self) -> SynthesizeRow:
        if self.optimise.iterations and not self.observers:
            raise ValueError("observers must not be empty when optimise.iterations > 0")
        if self.observers and self.statistics is None:
            raise ValueError("statistics must name a row when observers are given")
        return self


class RandAugment(Model):
    """RandAugment (Cubuk et al. 2020): operations per image and their strength on a scale of 31."""

    ops: int = Field(default=2, ge=1, le=14)
    magnitude: int = Field(default=9, ge=0, le=30)


class LabelChoices(Model):
    """How images are augmented before the observers label them; the student replays the same."""

    crop_scale: Area = (0.5, 1.0)
    crop_ratio: Range = (0.75, 4 / 3)
    cutmix: bool = True
    randaugment: RandAugment | None = None
    min_accuracy: Fraction | None = Field(
        default=None, description="hold-out accuracy below which an observer is refused; null: twice chance"
    )
    seed: int = Field(default=42, ge=0)


class RelabelRow(LabelChoices):
    """The stored soft labels of one condensed set."""

    dataset: str
    images: str
    observers: list[str] = Field(min_length=1)
    flip: bool
    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)


def twice_chance(classes: int) -> float:
    """The accuracy every observer must reach unless its row says otherwise: twice chance, or with few classes
    a quarter of the way from chance to certainty."""
    return min(2 / classes, 0.25 + 0.75 / classes)


class Loss(Model):
    """``mse_ce``: squared error of logits plus weighted cross-entropy with the hard label; ``kl``: distillation."""

    name: Literal["mse_ce", "kl"] = "mse_ce"
    ce_weight: float = Field(default=0.025, ge=0)
    temperature: Positive = 20.0


class StudentChoices(Model):
    """How a student is trained and judged."""

    epochs: int = Field(ge=1)
    batch: int = Field(ge=2)
    loss: Loss = Loss()
    optimiser: Optimiser
    schedule: Schedule
    ema: Fraction | None = Field(default=0.99, description="decay of the averaged weights that are judged; null: none")
    validations: int = Field(default=10, ge=1, description="how often the test set is looked at; the last epoch always")


class EvaluateRow(StudentChoices):
    """One student network on one condensed set under one protocol, for every seed."""

    dataset: str
    recipe: str
    ipc: int = Field(ge=1)
    student: str
    protocol: str
    regime: Literal["soft", "fixed", "hard"]
    images: str
    labels: str
    seeds: Seeds


class TablesRow(Model):
    """The tables of one study."""

    evaluate: list[str]


class Plan(Model):
    """``params.yaml``: a study spelled out run by run."""

    study: str
    machine: Machine = Machine()
    datasets: dict[str, Dataset]
    pretrain: dict[str, PretrainRow] = {}
    statistics: dict[str, StatisticsRow] = {}
    synthesize: dict[str, SynthesizeRow] = {}
    relabel: dict[str, RelabelRow] = {}
    evaluate: dict[str, EvaluateRow] = {}
    tables: dict[str, TablesRow] = {}

    def row(self, stage: str, key: str) -> Any:
        """The row of one run.

        Raises:
            EdcError: the plan has no such run.
        """
        rows = getattr(self, stage)
        if key not in rows:
            raise unknown_name(f"{stage} run", key, rows, f"plan {self.study!r}")
        return rows[key]

    def resolved(self, stage: str, key: str) -> dict[str, Any]:
        """Every value one run depends on, as its manifest records them."""
        row = self.row(stage, key)
        values = {stage: row.model_dump(mode="json")}
        if hasattr(row, "dataset"):
            values["machine"] = self.machine.model_dump(mode="json")
            values["dataset"] = self.datasets[row.dataset].model_dump(mode="json")
        return values


def describe(error: ValidationError, model: type[BaseModel], where: str) -> EdcError:
    """The first problem of a validation as one line: file, key, value, what was expected."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location) or "(top level)"
    if first["type"] == "extra_forbidden":
        return unknown_name("key", key, [".".join([*location[:-1], n]) for n in _siblings(model, location)], where)
    if first["type"] == "missing":
        return EdcError(f"{where}: missing key {key!r}")
    expected = first["msg"].removeprefix("Value error, ")
    expected = expected[0].lower() + expected[1:]
    if first["type"] == "value_error":
        return EdcError(f"{where}: {key}: {expected}")
    return EdcError(f"{where}: {key} = {first['input']!r}: {expected}")


def _siblings(model: type[BaseModel], location: list[str]) -> list[str]:
    """Field names known where an unknown key was met, following the location through nested models."""
    current: Any = model
    for part in location[:-1]:
        if isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = current.model_fields[part].annotation
        else:
            arguments = getattr(current, "__args__", ())
            current = arguments[-1] if arguments else current
        options = [a for a in getattr(current, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
        if options and not str(current).startswith("dict"):
            current = options[0]
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def validate(model: type[BaseModel], values: object, where: str) -> Any:
    """Check values against a model; a problem becomes one line that starts with ``where``."""
    if not isinstance(values, dict):
        raise EdcError(f"{where}: expected a mapping of keys to values, found {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise describe(error, model, where) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a dictionary.

    Raises:
        EdcError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EdcError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EdcError(f"{path}: cannot be read ({error})") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise EdcError(f"{path}:{line} is not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(values, dict):
        raise EdcError(f"{path}: expected a mapping of keys to values")
    return values


def load_plan(path: Path = Path("params.yaml")) -> Plan:
    """Read and check the active plan.

    Raises:
        EdcError: the file is missing (``edc plan STUDY`` writes it) or holds a value that is not allowed.
    """
    if not path.exists():
        raise EdcError(f"{path}: no plan here; write one with `edc plan STUDY`")
    plan: Plan = validate(Plan, read_yaml(path), str(path))
    check_references(plan, str(path))
    return plan


def check_references(plan: Plan, where: str) -> None:
    """Every name of an upstream row, dataset or network must exist, before anything starts."""
    from edc.data import READERS
    from edc.nets import check_name

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
            for observer in getattr(row, "observers", []):
                need("pretrain", observer, here)
            if stage == "synthesize" and row.statistics is not None:
                need("statistics", row.statistics, here)
                for observer in row.observers:
                    if observer not in plan.statistics[row.statistics].observers:
                        raise EdcError(
                            f"{where}: {here}.observers: {row.statistics!r} has no statistics of {observer!r}"
                        )
            if stage in ("relabel", "evaluate"):
                need("synthesize", row.images, here)
            if stage == "evaluate":
                need("relabel", row.labels, here)
                labels, images = plan.relabel[row.labels], plan.synthesize[row.images]
                for name in ("dataset", "recipe", "ipc"):
                    mine, theirs = getattr(row, name), getattr(images, name)
                    if mine != theirs:
                        raise EdcError(f"{where}: {here}.{name} = {mine!r}: the images {row.images!r} have {theirs!r}")
                if labels.images != row.images:
                    raise EdcError(f"{where}: {here}.labels = {row.labels!r}: those are labels of {labels.images!r}")
                if labels.epochs < row.epochs:
                    raise EdcError(
                        f"{where}: {here}.epochs = {row.epochs}: {row.labels!r} has labels for {labels.epochs} epochs"
                    )
            for network in filter(None, (getattr(row, "network", None), getattr(row, "student", None))):
                try:
                    check_name(network)
                except EdcError as error:
                    raise EdcError(f"{where}: {here}: {error}") from None
    for key, row in plan.tables.items():
        for name in row.evaluate:
            need("evaluate", name, f"tables.{key}")
