"""What stage analysis measures, EDC's Figure 2 or the quality of a condensed set, and how large the parts are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edc.config.validation import Fraction, Model, Positive


class MixtureSizes(Model):
    """Figure 2(a): points in the plane, matched as a whole and class by class."""

    classes: int = Field(default=4, ge=2, le=10, description="Gaussians of the mixture")
    points: int = Field(default=150, ge=2, description="original points of a class")
    condensed: int = Field(default=6, ge=2, description="condensed points of a class")
    steps: int = Field(default=400, ge=1, description="of Adam, cosine learning rate")
    lr: Positive = 0.2
    seed: int = Field(default=0, ge=0)


class LandscapeSizes(Model):
    """Figure 2(b): losses along random directions; distances are in lengths of the weights, filter by filter."""

    extent: Positive = Field(default=1.0, description="how far the curves go to both sides")
    points: int = Field(default=17, ge=3, description="points of a curve")
    radius: Positive = Field(default=0.5, description="distance at which the rise of the loss is the sharpness")
    directions: int = Field(default=3, ge=1, description="per seed; both students go along the same")
    images: int = Field(default=1000, ge=1, description="held-out images the loss is taken over, at most")


class HessianSizes(Model):
    """Figure 2(c), top: curvature of the synthesis loss around its iterates."""

    draws: int = Field(
        default=3, ge=1, description="starts of the synthesis, each with other images; the first is the recipe's own"
    )
    points: int = Field(default=5, ge=2, description="iterates, evenly spread, the first and the last among them")
    probes: int = Field(default=4, ge=2, description="random vectors of Hutchinson's estimate")
    step: Positive = Field(
        default=0.05, description="of the differences, in normalised pixels; a learning rate is what Adam moves one by"
    )


class GradientSizes(Model):
    """Figure 2(c), bottom: gradients of batches beside the gradient of all images."""

    moments: list[Fraction] = Field(default=[0.0, 0.1, 0.5, 1.0], min_length=1, description="shares of the training")
    batches: list[Annotated[int, Field(ge=1)]] = Field(default=[5, 10, 25, 50], min_length=1)
    draws: int = Field(default=10, ge=2, description="random batches of each size")
    images: int = Field(default=1000, ge=1, description="real images, at most")


class QualitySizes(Model):
    """Quality of a set: its images among the real ones of their class, in features of the labels' first teacher."""

    neighbours: int = Field(default=5, ge=1, description="k of density and coverage")
    images: int = Field(default=500, ge=2, description="real training images of a class, at most: a seeded sample")
    seed: int = Field(default=0, ge=0)


class AnalysisChoices(Model):
    """What is measured, and how large each analysis is."""

    kind: Literal["figure2", "quality"] = Field(
        default="figure2",
        description="Figure 2 of EDC, or cosines within classes, density, coverage, nearest real image",
    )
    quality: QualitySizes = QualitySizes()
    mixture: MixtureSizes = MixtureSizes()
    landscape: LandscapeSizes = LandscapeSizes()
    hessian: HessianSizes = HessianSizes()
    gradients: GradientSizes = GradientSizes()
