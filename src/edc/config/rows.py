"""``params.yaml``: one dictionary per stage and one entry, a row, per run. Rows name the rows they build on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from edc.config.analysis import AnalysisChoices
from edc.config.choices import PretrainChoices, StatisticsChoices, SynthesisChoices
from edc.config.protocol import LabelChoices, StudentChoices
from edc.config.registry import SCORED
from edc.config.validation import Area, Fraction, Model, Positive, Seeds
from edc.errors import unknown_name


class Machine(Model):
    """Where runs compute. No part of a run's identity, although threads change the last bits of a sum."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=2, ge=1, le=256, description="CPU threads of one run")
    memory: float | None = Field(
        default=None,
        gt=0,
        description="GB a GPU's synthesis may plan with; null: half of what the GPU has for each run",
    )


class Dataset(Model):
    """The original labelled images and the facts every stage needs about them."""

    name: str
    family: str = Field(description="which per-data-set values of recipes and protocols apply")
    kind: str = Field(description="digits, parquet, folder, tiny_imagenet or torchvision")
    root: str | None = Field(
        default=None, description="relative path, or null: from `edc plan --data` or EDC_DATA_<NAME>"
    )
    source: str | None = Field(default=None, description="torchvision's class name, for kind torchvision")
    image_size: int = Field(ge=4, le=1024, description="side in pixels")
    channels: Literal[1, 3] = 3
    classes: int = Field(ge=2, le=100_000)
    class_names: list[str] | None = Field(
        default=None, description="class folders in label order, others are left out; null: all, sorted by name"
    )
    streamed: bool = Field(default=False, description="decode in every epoch instead of holding all in memory")
    mean: list[float]
    std: list[Positive]
    pad: int = Field(default=4, ge=0, description="random-crop padding for real images, pixels")
    crop_scale: Area | None = Field(
        default=None, description="real images: crop a random share of the area and resize, instead of padding"
    )
    resize: int | None = Field(
        default=None, ge=4, description="shorter side, pixels, before the centre crop; null: image_size"
    )
    flip: bool = Field(default=True, description="whether a mirrored image keeps its class")
    val_fraction: float = Field(default=0.1, ge=0, le=0.5, description="share of the training images never trained on")
    split_seed: int = Field(default=0, ge=0)
    train_per_class: int | None = Field(default=None, ge=1, description="keep at most so many training images a class")
    test_per_class: int | None = Field(default=None, ge=1)
    image_column: str = "img"
    label_column: str = "label"
    test_split: Literal["test", "validation"] | None = Field(
        default=None, description="parquet: which files students are tested on; null: test, else validation"
    )
    files: str | None = Field(default=None, description="list, parquet: CSV file with the columns path, label, split")
    unreadable_limit: int = Field(default=0, ge=0, description="unreadable images tolerated before the run stops")

    @model_validator(mode="after")
    def _channels(self) -> Dataset:
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(
                f"class_names has {len(self.class_names)} names; expected {self.classes}, the value of classes"
            )
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(f"resize = {self.resize}: expected at least image_size, {self.image_size}")
        if max(0.0, *self.mean, *self.std) > 1 or min(self.mean, default=0.0) < 0:
            raise ValueError(
                f"mean = {self.mean}, std = {self.std}: expected values of pixels from 0 to 1; divide by 255 what is "
                "measured on pixels from 0 to 255"
            )
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need {self.channels} values, one per channel")
        return self


Precision = Literal["float32", "bfloat16"]
PRECISION = "of the networks' passes; weights, statistics, losses and the analysis's gradients are always float32"


class Row(Model):
    """What every run has."""

    dataset: str
    precision: Precision = Field(default="float32", description=PRECISION)


class PretrainRow(PretrainChoices, Row):
    """One observer trained on the dataset."""

    network: str


class StatisticsRow(StatisticsChoices, Row):
    """One pass over the dataset for a group of observers."""

    observers: list[str] = Field(min_length=1)


class SynthesizeRow(SynthesisChoices, Row):
    """One condensed set. ``recipe`` is the first that names it; others with the same values share it."""

    recipe: str
    ipc: int = Field(ge=1)
    seed: int = Field(ge=0)
    statistics: str | None = Field(default=None, description="needed where convolutions or classes are matched")
    observers: list[str] = Field(default=[], description="matched, in visiting order")
    scorers: list[str] = Field(default=[], description="score crops or give features for the initial images")

    @model_validator(mode="after")
    def _needs(self) -> SynthesizeRow:
        if self.optimise.iterations and not self.observers:
            raise ValueError("observers must not be empty when optimise.iterations > 0")
        if self.optimise.iterations and self.match.needs_statistics and self.statistics is None:
            raise ValueError("statistics must name a row when match.layers has conv or match.target is class or both")
        cells = self.match.target != "none" and "conv" in self.match.layers
        if cells and len(set(self.optimise.sizes or [])) > 1:
            raise ValueError(
                f"optimise.sizes = {self.optimise.sizes}: expected match.layers ['bn'], for the statistics of "
                "convolutions' cells are those of one size"
            )
        if self.initialise.method in SCORED and not self.scorers:
            raise ValueError(f"scorers must not be empty when initialise.method is {self.initialise.method!r}")
        return self


class RelabelRow(LabelChoices, Row):
    """The stored soft labels of one condensed set."""

    images: str
    observers: list[str] = Field(min_length=1)
    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)


def twice_chance(classes: int) -> float:
    """The accuracy every observer must reach unless its row has another: twice chance, or with few classes
    a quarter of the way from chance to certainty."""
    return min(2 / classes, 0.25 + 0.75 / classes)


class StudentRow(StudentChoices, Row):
    """One student network on one condensed set under one protocol, for every seed."""

    recipe: str
    ipc: int = Field(ge=0, description="images per class; 0: the whole training set")
    student: str
    protocol: str
    regime: Literal["soft", "static", "hard"]
    images: str | None = Field(default=None, description="a synthesize row; null: train on the dataset itself")
    labels: str | None = Field(default=None, description="a relabel row")
    seeds: Seeds

    @model_validator(mode="after")
    def _upstream(self) -> StudentRow:
        if (self.images is None) != (self.ipc == 0) or (self.images is None) != (self.labels is None):
            raise ValueError("expected images and labels, or null for both and ipc 0")
        if self.images is None and self.regime != "hard":
            raise ValueError(f"regime = {self.regime!r}: the dataset itself has hard labels only")
        if self.phases and self.regime != "soft":
            raise ValueError(
                f"phases: expected none beside regime = {self.regime!r}; use soft, whose labels are stored"
            )
        return self


Split = Literal["test", "val"]
"""Splits of a dataset that students are evaluated on."""
SPLIT = "the images students are evaluated on; val: held-out training images, for choosing settings"


class ChosenRow(StudentRow):
    """A row whose settings may be chosen: by variants, and on held-out training images."""

    variant: str = Field(default="", description="what a study changed of the recipe or protocol, if anything")
    split: Split = Field(default="test", description=SPLIT)


class EvaluateRow(ChosenRow):
    """A student evaluated on the whole test set, or on held-out training images."""

    changed: bool = Field(
        default=False, description="the study lays values of its own over the recipe's or the protocol's file"
    )


class ContinualRow(StudentRow):
    """Class-incremental learning: in each step a fresh student learns from the condensed images of all classes so far.

    The memory is labelled in every step, with the choices and observers of ``labels``: no image of a class that is
    still to come may be mixed in.
    """

    steps: int = Field(ge=2, description="of equal size, give or take one class")
    orders: Seeds = Field(description="of the classes: 0 is the label order, others are seeds of a permutation")


KEEP = "share of each layer's channels, those of its largest scales, that stays at every ratio"


class SlimmingRow(ChosenRow):
    """Network slimming (Liu et al. 2017) of a new or a pretrained network, on a condensed set alone."""

    sparsity: float = Field(ge=0, description="weight of the L1 norm of BN scales")
    ratios: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        min_length=1, description="shares of all channels that are removed"
    )
    keep: Fraction = Field(default=0.0, description=KEEP)
    finetune: int = Field(ge=0, description="epochs after pruning, with the same stored labels from the first on")
    min_accuracy: Fraction | None = Field(
        default=None, description="that the unpruned network must reach; null: twice guessing"
    )
    pretrained: list[str] | None = Field(
        default=None, description="a pretrain row for each seed, whose weights it starts with; null: random weights"
    )

    @model_validator(mode="after")
    def _starts(self) -> SlimmingRow:
        if self.pretrained is not None and len(self.pretrained) != len(self.seeds):
            raise ValueError(f"pretrained: expected a pretrain row for each of the {len(self.seeds)} seeds")
        return self


class AnalysisRow(StudentRow, AnalysisChoices):
    """One condensed set: its quality, or with one student EDC's Figure 2 (flatness, smoothing, small batches)."""

    @model_validator(mode="after")
    def _comparable(self) -> AnalysisRow:
        if self.images is None:
            raise ValueError(f"recipe {self.recipe!r} has no condensed images to analyse")
        if self.kind == "figure2" and self.schedule.name == "smoothing" and self.schedule.zeta == 1:
            raise ValueError("schedule: expected another than the cosine to 0 it is compared with (zeta 1)")
        if self.loss.temperatures is not None or self.loss.student_temperature == "calibrated":
            raise ValueError("loss: expected the same temperatures in all epochs; they are compared with one another")
        return self


class StudyRuns(Model):
    """The runs of one study, by the stages nothing builds on: their keys."""

    evaluate: list[str] = []
    continual: list[str] = []
    slimming: list[str] = []
    analysis: list[str] = []


class Plan(Model):
    """``params.yaml``: studies spelled out run by run."""

    studies: dict[str, StudyRuns]
    machine: Machine = Machine()
    datasets: dict[str, Dataset]
    pretrain: dict[str, PretrainRow] = {}
    statistics: dict[str, StatisticsRow] = {}
    synthesize: dict[str, SynthesizeRow] = {}
    relabel: dict[str, RelabelRow] = {}
    evaluate: dict[str, EvaluateRow] = {}
    continual: dict[str, ContinualRow] = {}
    slimming: dict[str, SlimmingRow] = {}
    analysis: dict[str, AnalysisRow] = {}

    def row(self, stage: str, key: str) -> Any:
        """The row of one run; an EdcError if the plan has none."""
        rows = getattr(self, stage)
        if key not in rows:
            raise unknown_name(f"{stage} run", key, rows, "params.yaml")
        return rows[key]

    def upstream(self, stage: str, key: str) -> list[tuple[str, str]]:
        """The runs whose files one run reads, as (stage, key), in a fixed order."""
        row = self.row(stage, key)
        if isinstance(row, SynthesizeRow):
            statistics = [("statistics", row.statistics)] if row.statistics is not None else []
            return [*_observers(row.observers, row.scorers), *statistics]
        if isinstance(row, RelabelRow):
            # Labels that came with an imported set need no teacher.
            teachers = [] if row.source == "imported" else row.observers
            return [("synthesize", row.images), *_observers(teachers)]
        if not isinstance(row, StudentRow):
            return _observers(getattr(row, "observers", []))
        start = _observers(row.pretrained or []) if isinstance(row, SlimmingRow) else []
        if row.images is None or row.labels is None:
            return start
        images = ("synthesize", row.images)
        if isinstance(row, AnalysisRow) and row.kind == "quality":
            return [images, *_observers(self.relabel[row.labels].observers[:1])]
        if isinstance(row, ContinualRow):  # which labels the images of each step itself
            return [images, *_observers(self.relabel[row.labels].observers)]
        # The analysis makes the images once more, iteration by iteration.
        again = self.upstream(*images) if isinstance(row, AnalysisRow) else []
        return [images, ("relabel", row.labels), *again, *start]

    def same(self, stage: str, key: str, recorded: Any) -> bool:
        """Whether a manifest's values are those of a run: options that are newer than it have their defaults."""
        values = self.resolved(stage, key)
        if recorded == values or not isinstance(recorded, dict) or recorded.keys() != values.keys():
            return bool(recorded == values)
        models: dict[str, type[Model]] = {"relabel": RelabelRow, "dataset": Dataset, stage: type(self.row(stage, key))}
        try:
            filled = {name: models[name].model_validate(part) for name, part in recorded.items()}
        except ValidationError:
            return False
        return {name: part.model_dump(mode="json") for name, part in filled.items()} == values

    def resolved(self, stage: str, key: str) -> dict[str, Any]:
        """Every value one run depends on, as its manifest records them."""
        row = self.row(stage, key)
        values = {stage: row.model_dump(mode="json"), "dataset": self.datasets[row.dataset].model_dump(mode="json")}
        if isinstance(row, ContinualRow) and row.labels is not None:
            values["relabel"] = self.relabel[row.labels].model_dump(mode="json")
        return values


def _observers(*groups: list[str]) -> list[tuple[str, str]]:
    return [("pretrain", key) for key in dict.fromkeys(key for group in groups for key in group)]


def free_key(key: str, rows: Mapping[str, Any]) -> str:
    """A key no other row has: with a number appended where it is taken."""
    candidates = itertools.chain([key], (f"{key}-{number}" for number in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in rows)
