"""Parts of a synthesis run: other sizes, blends with the start (FADRM), images that begin later than others (DELT)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from edc.config.optimise import Optimise


def part_of(iteration: int, parts: int, iterations: int) -> int:
    """The equal part, or round, that an iteration belongs to, all counted from 0."""
    return iteration * parts // iterations


def begins_part(iteration: int, settings: Optimise) -> bool:
    """Whether an iteration is the first of another part than the first."""
    parts, iterations = settings.parts, settings.iterations
    return iteration > 0 and part_of(iteration, parts, iterations) > part_of(iteration - 1, parts, iterations)


def resized(images: Tensor, settings: Optimise, part: int) -> Tensor:
    """Images (B, C, S, S) in the size of a part, bilinearly."""
    size = settings.sizes[part] if settings.sizes is not None else images.shape[-1]
    if size == images.shape[-1]:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def next_part(images: Tensor, start: Tensor, settings: Optimise, part: int) -> Tensor:
    """What a part begins with: the images so far, resized, and share * images + (1 - share) * start (FADRM).

    Images and start are normalised, (B, C, S, S), each in a size of its own; the result is a copy.
    """
    images, start = resized(images, settings, part), resized(start, settings, part)
    share = settings.blend.share if settings.blend is not None else 1.0
    return share * images + (1 - share) * start


def first_rounds(labels: Tensor, rounds: int) -> Tensor:
    """The round, counted from 0, in which each image of a group begins, by their classes (B,): int64 (B,).

    The images of a class are cut, in their order, into as many equal shares as there are rounds; the first shares are
    one larger where the number does not divide (DELT).
    """
    result = labels.new_zeros(labels.shape)
    for c in labels.unique():
        for i, share in enumerate((labels == c).nonzero()[:, 0].tensor_split(rounds)):
            result[share] = i
    return result
