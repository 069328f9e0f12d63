"""The choices of a recipe, how images are made, and those of observers: what is in workflow/recipes and datasets."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from edc.config.optimise import Optimise, Perturb
from edc.config.registry import CURRICULUM, INITIALISE, REGULARISE, SCHEDULE
from edc.config.validation import Area, Betas, Fraction, Model, OneOf, Positive, Range, Shifts


class Optimiser(Model):
    """Weight decay falls on convolution and linear weights only, unless ``decay_all`` is set."""

    name: Literal["adamw", "sgd"]
    lr: Positive
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: Fraction = 0.9
    betas: Betas = (0.9, 0.999)
    decay_all: bool = Field(default=False, description="weight decay on biases and norm parameters, too")


class Schedule(Model):
    """The learning rate's factor per epoch: EDC appendix, Eq. 33 for SSRS."""

    name: Annotated[str, OneOf(SCHEDULE)]
    zeta: float = Field(default=1.0, ge=1, description="flattens the cosine: 1 ends at 0, 2 at one half")
    milestones: list[Fraction] = Field(default=[0.8, 0.9, 0.95], description="multistep: shares of the epochs")
    factor: Fraction = Field(default=0.5, description="multistep: applied at each milestone")
    warmup: int = Field(default=0, ge=0, description="epochs of a linear rise from 1 %, before the schedule begins")


class PretrainChoices(Model):
    """How a dataset's observers are trained."""

    weights: str | None = Field(default=None, description="null, 'default' (published weights) or a local file")
    epochs: int = Field(ge=0, description="0 keeps the loaded weights as they are")
    batch: int = Field(ge=2)
    optimiser: Optimiser
    schedule: Schedule
    seed: int = Field(default=0, ge=0)


class StatisticsChoices(Model):
    """How the statistics pass over a dataset is made."""

    patch: int = Field(ge=1, description="side of the cells of the patch statistics, pixels of the feature map")
    batch: int = Field(ge=2)
    class_variance: Literal["within", "mixture"] = Field(
        default="within", description="class target: mean within-image variance, or that plus the variance of means"
    )
    seed: int = Field(default=0, ge=0)


class Initialise(Model):
    """Where the pixels start."""

    method: Annotated[str, OneOf(INITIALISE)] = "real"
    draw: Literal["independent", "softmin", "distinct"] = Field(
        default="independent", description="from real images or a pool: repeats may occur, are avoided, are excluded"
    )
    candidates: int = Field(
        default=300, ge=1, description="composites, mosaics: training images of a class scored; mosaics: the first"
    )
    crops: int = Field(default=5, ge=1, description="composites: crops of each of them, the best of which counts")
    crop_scale: Area = Field(default=(0.08, 1.0), description="composites: share of the image a crop takes")
    factor: int = Field(default=1, ge=1, le=8, description="composites, mosaics: crops or images a side of the tiling")
    pool: int | None = Field(
        default=None, ge=1, description="composites: make so many a class and draw from them; null: the best as ranked"
    )
    score: Literal["loss", "el2n", "entropy", "margin"] = Field(
        default="loss", description="ranked: by the observers' mean probabilities of the image"
    )
    rank: Literal["lowest", "highest", "median", "stratified"] = Field(
        default="lowest", description="ranked: which images by their score; lowest loss: the easiest"
    )
    source: str | None = Field(default=None, description="imported: name of a set that `edc import` brought in")


class Match(Model):
    """Statistics matching: which layers, against which target.

    SRe2L matches BN layers globally, where the target is their own running statistics; G-VBSM convolutions with patches
    as well; EDC both kinds against both targets; LPLD BN layers against the class's. CIM matches no statistics, but the
    features of single real images. Target ``none`` leaves the images as initialised.
    """

    layers: list[Literal["bn", "conv"]] = Field(default=["bn", "conv"], min_length=1)
    target: Literal["none", "global", "class", "both", "anchors"] = Field(
        default="both",
        description="statistics of the whole dataset, of the images' classes, or both, weighted by alpha; anchors: "
        "features of the real image in each cell of a mosaic",
    )
    weight: float = Field(default=0.01, ge=0, description="of the matching loss beside cross-entropy")
    cross_entropy: float = Field(default=1.0, ge=0, description="weight of the cross-entropy")
    layer: str = Field(
        default="penultimate", description="anchors: features are the input of this module; penultimate: the classifier"
    )
    alpha: Fraction = Field(
        default=0.5, description="both: share of the global target; 1 - alpha falls on the class target"
    )
    first_hook: float = Field(default=10.0, ge=0, description="weight of the first hook, whose input is the image")
    ema: Fraction = Field(default=0.8, description="rho: how much of the running statistic survives a visit")
    ema_init: Literal["first", "zero"] = Field(default="first", description="running statistic before the first visit")
    carry: bool = Field(default=False, description="keep the running statistic from one group of images to the next")
    swap_class_patch: bool = Field(
        default=False, description="exchange cell means and variances of the class target, as EDC's published code does"
    )
    drop: Fraction = Field(default=0.0, description="probability to skip a convolution's hook in a visit")
    variance: float = Field(default=1.0, ge=0, description="weight of variances beside means (DWA)")

    @property
    def classwise(self) -> bool:
        """Whether a target of the images' classes is matched."""
        return self.target in ("class", "both")

    @property
    def global_share(self) -> float:
        """Weight of the global target; the rest is the class target's."""
        return {"class": 0.0, "both": self.alpha}.get(self.target, 1.0)

    @property
    def needs_statistics(self) -> bool:
        """Whether a pass over the dataset is needed: BN layers alone bring a global target along."""
        return self.classwise or (self.target == "global" and "conv" in self.layers)


class Regularise(Model):
    """The third term of the synthesis loss."""

    method: Annotated[str, OneOf(REGULARISE)] = "none"
    weight: float = Field(default=0.25, ge=0)
    beta: Fraction = Field(default=0.99, description="flatness: decay of the averaged images")
    tau: Positive = Field(default=4.0, description="temperature of logits or eigenvalues")
    reduction: Literal["element_mean", "batch_mean"] = "batch_mean"
    radius: Positive = Field(default=0.05, description="sam: how far to step, in normalised pixel space (L2)")
    normalise: bool = Field(default=False, description="densification: divide the Gram matrix by the number of pixels")


class Curriculum(Model):
    """CDA's curriculum: the smallest crop falls from the whole image to ``crop_scale[0]`` until the milestone."""

    name: Annotated[str, OneOf(CURRICULUM)] = "none"
    milestone: Fraction = Field(default=1.0, description="share of the iterations after which it is over")


class SynthesisAugment(Model):
    """One crop, one flip and one roll per iteration, shared by the group."""

    pad: int = Field(default=0, ge=0, description="zero-pad by so many pixels and cut out at random, before the crop")
    crop_scale: Area = (0.5, 1.0)
    crop_ratio: Range = (0.75, 4 / 3)
    curriculum: Curriculum = Curriculum()
    flip: bool = True
    roll: Shifts = Field(default=(0, 0), description="circular shift along both axes, smallest and largest, pixels")
    cutout: Fraction = Field(default=0.0, description="side of a square of the mean pixel, share of the image's side")


class SynthesisChoices(Model):
    """The choices of a recipe that make its images."""

    initialise: Initialise = Initialise()
    match: Match = Match()
    regularise: Regularise = Regularise()
    perturb: Perturb | None = None
    augment: SynthesisAugment = SynthesisAugment()
    optimise: Optimise
    jpeg: int | None = Field(
        default=None, ge=1, le=100, description="quality of a JPEG round trip (4:2:0) before storing; null: lossless"
    )

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if self.initialise.method == "mosaics" and self.initialise.pool is not None:
            raise ValueError(f"initialise.pool = {self.initialise.pool}: expected null where method is 'mosaics'")
        if self.match.target == "anchors" and (self.initialise.method, self.regularise.method) != ("mosaics", "none"):
            raise ValueError(
                "match.target = 'anchors': expected initialise.method = 'mosaics' and regularise.method = 'none', "
                f"found {self.initialise.method!r} and {self.regularise.method!r}"
            )
        if self.match.target == "anchors" and (self.optimise.stagger > 1 or self.optimise.sizes is not None):
            raise ValueError("match.target = 'anchors': expected optimise.stagger = 1 and no optimise.sizes")
        return self
