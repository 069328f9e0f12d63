"""How a recipe's pixels are optimised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edc.config.validation import Betas, Fraction, Model, Positive


class Blend(Model):
    """FADRM's residual connection: between equal parts of the iterations the images are mixed with their start."""

    share: Fraction = Field(default=0.5, description="of the images as they are; the rest is the start")
    times: int = Field(default=3, ge=1, description="one less than there are parts")


class Perturb(Model):
    """DWA: before a group is optimised, every observer's weights go up its cross-entropy on the group's start."""

    steps: int = Field(ge=1)
    radius: Positive = Field(description="length of all steps together, in the space of all weights")


class Optimise(Model):
    """Adam on the pixels, one group of images after the other."""

    iterations: int = Field(ge=0)
    lr: Positive = 0.05
    betas: Betas = (0.5, 0.9)
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="of the learning rate, cosine to 0")
    clamp: bool = Field(default=True, description="to real pixels' range after every step; else only when stored")
    group: int = Field(default=0, ge=0, description="images matched together; 0: all of a round")
    rounds: int = Field(
        default=1, ge=0, description="the set is made in so many rounds of all classes; 0: one image a class each"
    )
    blend: Blend | None = None
    sizes: list[Annotated[int, Field(ge=4)]] | None = Field(
        default=None,
        min_length=1,
        description="side of the images in each of equal parts of the iterations, the blend's where there is one; "
        "null: image_size throughout. The last must be image_size",
    )
    stagger: int = Field(
        default=1,
        ge=1,
        description="DELT: a class's images of a group begin in so many equal shares, one after the other",
    )

    @property
    def parts(self) -> int:
        """Equal parts of the iterations, in each of which Adam begins anew."""
        return self.blend.times + 1 if self.blend is not None else len(self.sizes or [0])

    @property
    def work(self) -> float:
        """Pixels of an iteration, on average, as a share of those of all images in their final size."""
        sizes = self.sizes or [1]
        areas = sum(size**2 for size in sizes) / (len(sizes) * sizes[-1] ** 2)
        return areas * (1 + 1 / self.stagger) / 2

    @model_validator(mode="after")
    def _parts(self) -> Optimise:
        if self.sizes is not None and len(self.sizes) != self.parts:
            raise ValueError(f"sizes = {self.sizes}: expected {self.parts}, one more than blend.times")
        if 0 < self.iterations < (most := max(self.parts, self.stagger)):
            raise ValueError(f"iterations = {self.iterations}: expected at least {most}, one for each part or share")
        return self
