"""One measurement: what is asked for, and random images and networks to take it on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edc.bench.timing import Work
from edc.config.expand import Builder
from edc.data.augment import Normaliser
from edc.data.images import ImageSet
from edc.nets import build
from edc.nets.frozen import frozen
from edc.nets.placing import placed
from edc.config.rows import Dataset, Plan
from edc.config.files import DatasetFile, StudyFile, read

ALL = "all"
"""Stands for every observer of a dataset."""


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        stage: whose code.
        dataset: whose images, observers and values: a file below workflow/datasets.
        network: observer or student; `ALL`: all of the dataset's observers on one decoding of the data, as the
            statistics pass takes them.
        images: of a batch or a group.
        seeds: of a student.
    """

    stage: str
    dataset: str
    network: str
    images: int
    seeds: int = 1


@dataclass(frozen=True)
class Pieces:
    """What is timed.

    Attributes:
        stage: the stage's own code.
        bare: makes ready the network's passes alone, as it was built; called once the stage's memory is known.
        reference: makes ready the same as the stage, layer by layer or student by student; None where there is none.
        units: how many of `unit` one call does.
        unit: what a time is given for.
        passes: forward passes of one image in a call of `bare`, a backward pass counted as one or two.
        floor: bytes of weights, activations and data.
    """

    stage: Work
    bare: Callable[[], Work]
    reference: Callable[[], Work] | None
    units: int
    unit: str
    passes: int
    floor: int


class Bench:
    """Everything the pieces share.

    Args:
        case: what is measured.
        device: where.
        recipe: whose synthesis.
        precision: of the stage's passes; the bare ones have float32.
    """

    def __init__(self, case: Case, device: torch.device, recipe: str, precision: torch.dtype = torch.float32) -> None:
        self.case, self.device, self.precision = case, device, precision
        study = StudyFile.model_validate(
            {"description": "bench", "datasets": [case.dataset], "recipes": [recipe], "protocols": ["edc"], "ipc": [10]}
            | {"students": ["convnet_d1" if case.network == ALL else case.network], "seeds": list(range(case.seeds))}
        )
        self.plan: Plan = Builder("bench", study).build()
        file: DatasetFile = read("datasets", case.dataset)
        # The networks of the case, by name.
        self.names = list(file.observers) if case.network == ALL else [case.network]
        self.dataset: Dataset = self.plan.datasets[case.dataset]
        self.shape = (self.dataset.channels, self.dataset.image_size, self.dataset.image_size)
        self.normaliser = Normaliser(self.dataset.mean, self.dataset.std, device)
        self.patch = file.statistics.patch

    def network(self, name: str | None = None, bare: bool = False) -> nn.Module:
        """With random weights, in eval mode, frozen: as the stages have their observers, or, bare, as it was built."""
        dataset = self.dataset
        size, channels = dataset.image_size, dataset.channels
        model = build(name or self.case.network, classes=dataset.classes, image_size=size, channels=channels, seed=0)
        if bare:
            return model.eval().requires_grad_(False).to(self.device)
        return placed(frozen(model), self.device, self.precision)

    def pixels(self, n: int) -> Tensor:
        """Random pictures, uint8 (n, C, S, S)."""
        return torch.randint(0, 256, (n, *self.shape), dtype=torch.uint8).to(self.device)

    def labels(self, n: int) -> Tensor:
        """Classes in turn, (n,)."""
        return (torch.arange(n) % self.dataset.classes).to(self.device)

    def image_set(self, n: int) -> ImageSet:
        """Random pictures as a dataset."""
        return ImageSet(self.pixels(n), self.labels(n), tuple(f"c{i}" for i in range(self.dataset.classes)))

    def weights(self, model: nn.Module) -> int:
        """Bytes of a network."""
        return sum(t.numel() * t.element_size() for t in model.state_dict().values())
