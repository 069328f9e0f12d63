"""The choices of a protocol: how images are labelled and a student is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edc.config.choices import Optimiser, Schedule
from edc.config.phases import HardLabels, Phases, Temperatures, phase_regimes
from edc.config.registry import ENSEMBLE, LABELS, LOSS
from edc.config.validation import Area, Fraction, Model, OneOf, Positive, Range


class RandAugment(Model):
    """RandAugment (Cubuk et al. 2020): operations per image and their strength on a scale of 31."""

    ops: int = Field(default=2, ge=1, le=14)
    magnitude: int = Field(default=9, ge=0, le=30)


class LabelChoices(Model):
    """How images are augmented before the observers label them; the student replays the same."""

    pad: int = Field(default=0, ge=0, description="zero-pad by so many pixels and cut out at random, before the crop")
    crop_scale: Area = (0.5, 1.0)
    crop_ratio: Range = (0.75, 4 / 3)
    flip: bool = Field(default=True, description="mirror half of the views, where a mirrored image keeps its class")
    mix: Literal["none", "cutmix", "mixup"] = "cutmix"
    mixup_alpha: Positive = Field(default=0.8, description="mixup: of the Beta distribution the share is drawn from")
    shuffle: int = Field(default=1, ge=1, le=8, description="RDED: permute the strips of an n by n tiling")
    tiles: int = Field(
        default=1, ge=1, le=8, description="n: crop from the whole image once in n^2, else from one cell of its n by n"
    )
    randaugment: RandAugment | None = None
    dsa: bool = Field(default=False, description="colours, a shift, stretch or turn, and cutout of DSA, after the crop")
    source: Annotated[str, OneOf(LABELS)] = Field(
        default="observers", description="imported: the labels that came with an imported set"
    )
    ensemble: Annotated[str, OneOf(ENSEMBLE)] = "mean"
    batch_norm: Literal["running", "batch"] = Field(
        default="running",
        description="what the observers normalise views with: their own statistics, or those of the part of the batch "
        "they see; static labels are always made with their own",
    )
    parts: int = Field(default=1, ge=1, description="batch_norm batch: a batch is labelled in so many parts")
    min_accuracy: Fraction | None = Field(
        default=None, description="hold-out accuracy below which an observer is refused; null: twice chance"
    )
    views: int | None = Field(
        default=None, ge=1, description="label epochs that are stored; null: as many as the student trains"
    )
    top_k: int | None = Field(default=None, ge=1, description="largest logits of a view that are stored; null: all")
    bits: Literal[16, 8, 4] = Field(
        default=16, description="of a stored logit; 8 and 4: with a scale and an offset for each view"
    )
    seed: int = Field(default=42, ge=0)
    replay: Literal["seed", "stored"] = Field(
        default="seed", description="stored: crops, flips and mixes as they came with an imported set (FKD), not drawn"
    )

    @model_validator(mode="after")
    def _stored(self) -> LabelChoices:
        if self.replay == "stored" and self.source != "imported":
            raise ValueError("replay = 'stored': only imported labels have stored views; expected source: imported")
        return self


class Loss(Model):
    """``mse_ce``: squared error of logits plus weighted cross-entropy; ``kl``: distillation; ``gift``: cosine."""

    name: Annotated[str, OneOf(LOSS)] = "mse_ce"
    ce_weight: float = Field(default=0.025, ge=0, description="of the hard label")
    temperature: Positive = 20.0
    squared: bool = Field(default=False, description="kl: times the temperature squared")
    smoothing: Fraction = Field(default=0.1, description="gift: of the hard label")
    temperatures: Temperatures | None = Field(
        default=None, description="kl: how the teachers' falls over the epochs, from temperature on; null: it does not"
    )
    student_temperature: Positive | Literal["calibrated"] | None = Field(
        default=None,
        description="kl: of the student's softmax; null: the teachers'; calibrated: 1 at first, after an epoch that of "
        "0.01, 0.02 ... 1 with the least divergence on its last batch (LPQLD)",
    )
    hard: HardLabels | None = Field(
        default=None, description="targets where labels are hard; null: the classes, images are not mixed"
    )

    @model_validator(mode="after")
    def _tempered(self) -> Loss:
        for key in ("temperatures", "student_temperature"):
            if self.name != "kl" and (value := getattr(self, key)) is not None:
                raise ValueError(f"{key} = {value!r}: expected null beside name = {self.name!r}; only kl has a softmax")
        return self


class StudentChoices(Model):
    """How a student is trained and evaluated."""

    epochs: int = Field(ge=1)
    batch: int = Field(ge=2)
    parts: int = Field(
        default=1, ge=1, description="of a batch, which pass the network one by one, each normalised alone; one step"
    )
    loss: Loss = Loss()
    optimiser: Optimiser
    schedule: Schedule
    ema: Fraction | None = Field(
        default=0.99, description="decay of the averaged weights that are evaluated; null: none"
    )
    reuse: Literal["cycle", "shuffle", "pool", "pool_once"] = Field(
        default="cycle",
        description="with fewer stored label epochs than epochs: in order again and again; in another order in every "
        "round; LPLD's batches drawn from all stored ones in every epoch; HALD's, none again before all were used",
    )
    phases: Phases = Field(
        default=[],
        description="one after the other, each with a regime (soft, hard) and a share of the epochs; none: the "
        "protocol's regime throughout",
    )
    validations: int = Field(
        default=10,
        ge=1,
        description="how often it is evaluated, after the last epoch always; 1: whether it still improves is not known",
    )

    def regimes(self, regime: str) -> list[str]:
        """The label regime of every epoch, of the phases where there are any."""
        return phase_regimes(self.phases, self.epochs) if self.phases else [regime] * self.epochs

    @property
    def label_epochs(self) -> int:
        """For how many epochs a student needs soft labels: those of its soft phases, otherwise all."""
        return max(1, self.regimes("soft").count("soft"))

    @model_validator(mode="after")
    def _warmup(self) -> StudentChoices:
        if self.schedule.warmup >= self.epochs:
            raise ValueError(f"schedule.warmup = {self.schedule.warmup}: expected fewer than the {self.epochs} epochs")
        return self
