"""The choices of the design space. Methods stand in registries, with functions that are imported when first used."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from edc.config.optimise import Optimise, Perturb
from edc.config.phases import HardLabels, Phases, Temperatures, phase_regimes
from edc.config.validation import Area, Betas, Fraction, Model, OneOf, Positive, Range, Shifts

INITIALISE: dict[str, str] = {
    "real": "edc.condense.initialise:real_images",
    "noise": "edc.condense.initialise:noise",
    "composites": "edc.condense.composites:composites",
    "mosaics": "edc.condense.anchors:mosaics",
    "herding": "edc.condense.coreset:herding",
    "kmeans": "edc.condense.coreset:kmeans",
    "ranked": "edc.condense.ranked:ranked",
    "imported": "edc.exchange.imported:imported",
}
"""Where pixels start: function of :class:`edc.condense.initialise.InitialisationInputs`."""

SCORED = ("composites", "mosaics", "herding", "kmeans", "ranked")
"""Those of them that use observers, for scores of crops or for features."""

REGULARISE: dict[str, str] = {
    "none": "edc.condense.regularise:nothing",
    "logits": "edc.condense.regularise:logit_flatness",
    "statistics": "edc.condense.regularise:statistic_flatness",
    "sam": "edc.condense.regularise:sharpness",
    "densification": "edc.condense.densify:densification",
}
"""The third term of the synthesis loss: function of :class:`edc.condense.regularise.RegulariserInputs`."""

CURRICULUM: dict[str, str] = {
    "none": "edc.training.schedules:no_curriculum",
    "step": "edc.training.schedules:step_curriculum",
    "linear": "edc.training.schedules:linear_curriculum",
    "cosine": "edc.training.schedules:cosine_curriculum",
}
"""How the smallest crop shrinks during synthesis: function of the share of the way to the milestone."""

SCHEDULE: dict[str, str] = {
    "constant": "edc.training.schedules:constant",
    "smoothing": "edc.training.schedules:smoothing_of",
    "ssrs": "edc.training.schedules:ssrs_of",
    "multistep": "edc.training.schedules:multistep_of",
    "linear_zeta": "edc.training.schedules:linear_zeta_of",
    "alrs": "edc.training.schedules:alrs_of",
}
"""The learning rate's factor per epoch: function of :class:`edc.training.schedules.Moment`."""

LOSS: dict[str, str] = {
    "mse_ce": "edc.training.losses:mse_ce",
    "kl": "edc.training.losses:kl",
    "gift": "edc.training.losses:gift",
}
"""What a student minimises: function of its logits, the soft labels, the classes and :class:`Loss`."""

LABELS: dict[str, str] = {"observers": "edc.stages.relabel:label", "imported": "edc.exchange.imported:adopt_labels"}
"""Where labels come from: function of the job."""

ENSEMBLE: dict[str, str] = {"mean": "edc.training.ensembles:plain_mean", "norm": "edc.training.ensembles:norm_mean"}
"""How the logits of several observers become one label."""


def implementation(registry: dict[str, str], name: str) -> Any:
    """The function behind a name of a registry."""
    return resolve_name(registry[name])


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
    validations: int = Field(default=10, ge=1, description="how often it is evaluated; after the last epoch always")

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
