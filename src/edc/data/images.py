"""Labelled images: the interface of all sets, and images held in memory."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from edc.data.crops import CropDraws, crop_and_resize
from edc.data.source import class_hash

Indices: TypeAlias = Tensor | Sequence[int]


class Images(ABC):
    """N labelled images and their class names.

    Attributes:
        labels: int64 (N,), positions in `classes`.
        classes: the K class names in label order.
    """

    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """sha256 of images, labels and class names."""

    @abstractmethod
    def read(self, indices: Indices, crops: CropDraws | None = None, size: int | None = None) -> Tensor:
        """Images at n indices, cropped and resized (bilinear, antialiased) if asked to: uint8 (n, C, size, size)."""

    @abstractmethod
    def select(self, indices: Indices) -> Images:
        """The images and labels at `indices` (n,), in that order, with the same classes."""

    @cached_property
    def class_hash(self) -> str:
        """Hash of the ordered class names; only sets with the same one may be used together."""
        return class_hash(self.classes)

    def by_class(self, c: int) -> Tensor:
        """Indices of the images of class `c`, int64, ascending."""
        order, ends = self._members
        return order[ends[c - 1] if c else 0 : ends[c]]

    @cached_property
    def _members(self) -> tuple[Tensor, list[int]]:
        """All indices class after class, and the end of each class: one sort instead of a search per class."""
        counts = torch.bincount(self.labels, minlength=len(self.classes))
        return self.labels.argsort(stable=True), counts.cumsum(0).tolist()


@dataclass(frozen=True, eq=False)
class ImageSet(Images):
    """Images held in memory: uint8 (N, C, H, W), values 0 to 255."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(json.dumps([list(self.images.shape), self.classes]).encode())
        digest.update(np.ascontiguousarray(self.images.cpu().numpy()).data)
        digest.update(self.labels.cpu().numpy().astype("<i8").data)
        return digest.hexdigest()

    def read(self, indices: Indices, crops: CropDraws | None = None, size: int | None = None) -> Tensor:
        device, (_, height, width) = self.images.device, self.shape
        images = self.images[torch.as_tensor(indices, dtype=torch.int64, device=device)]
        if crops is None and size in (None, height):
            return images
        if crops is None:
            boxes = torch.tensor([[0, 0, height, width]], device=device).expand(len(images), -1)
        else:
            boxes = torch.from_numpy(crops.boxes(height, width)).to(device)
        return crop_and_resize(images, boxes, size or height)

    def select(self, indices: Indices) -> ImageSet:
        chosen = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        return ImageSet(self.read(chosen), self.labels[chosen], self.classes)

    def to(self, device: torch.device | str) -> ImageSet:
        """The same images on a device."""
        return ImageSet(self.images.to(device), self.labels.to(device), self.classes)
