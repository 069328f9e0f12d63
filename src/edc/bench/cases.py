"""One measurement: a case, its random images and networks, and the work that is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edc.condense.budget import activation_bytes
from edc.config.expand import Builder
from edc.config.files import DatasetFile, StudyFile, read
from edc.config.rows import Dataset, Plan
from edc.data.augment import Normaliser
from edc.data.images import ImageSet
from edc.nets.frozen import frozen
from edc.nets.placing import placed
from edc.training.trainer import build_for

ALL = "all"
"""In place of a network: every observer of the dataset."""

Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """What is measured: a stage's code on a network and a dataset of workflow/datasets.

    `network` may be `ALL`, which measures all observers on the same batches, as in the statistics pass; `images` are
    those of a batch or a group; `seeds` of a student.
    """

    stage: str
    dataset: str
    network: str
    images: int
    seeds: int = 1


@dataclass(frozen=True)
class Workload:
    """What is timed: the stage's own code, and what is prepared to stand beside it.

    Attributes:
        bare: prepares the passes of the network as it was built, and nothing else.
        units: how many of `unit` one call does; times are given for one.
        floor: bytes of weights, activations and data.
        reference: prepares the same as the stage, layer by layer or student by student; None where there is none.
    """

    stage: Work
    bare: Callable[[], Work]
    units: int
    unit: str
    floor: int
    reference: Callable[[], Work] | None = None


class BenchInputs:
    """Rows, networks and random images of a case; the stage's passes have the precision, bare ones float32."""

    def __init__(self, case: Case, device: torch.device, recipe: str, precision: torch.dtype = torch.float32) -> None:
        self.case, self.device, self.precision = case, device, precision
        study = StudyFile.model_validate(
            {"description": "bench", "datasets": [case.dataset], "recipes": [recipe], "protocols": ["edc"], "ipc": [10]}
            | {"students": ["convnet_d1" if case.network == ALL else case.network], "seeds": list(range(case.seeds))}
        )
        self.plan: Plan = Builder("bench", study).build()
        file: DatasetFile = read("datasets", case.dataset)
        self.names = list(file.observers) if case.network == ALL else [case.network]
        self.dataset: Dataset = self.plan.datasets[case.dataset]
        self.shape = (self.dataset.channels, self.dataset.image_size, self.dataset.image_size)
        self.normaliser = Normaliser(self.dataset.mean, self.dataset.std, device)
        self.patch = file.statistics.patch

    def built(self, name: str | None = None) -> nn.Module:
        """A network with random weights as it was built, in eval mode, without gradients of its weights."""
        model = build_for(self.dataset, name or self.case.network)
        return model.eval().requires_grad_(False).to(self.device)

    def observer(self, name: str | None = None) -> nn.Module:
        """The same network as stages prepare observers."""
        return placed(frozen(self.built(name)), self.device, self.precision)

    def trained(self) -> nn.Module:
        return self.built().train().requires_grad_(True)

    def pixels(self, n: int) -> Tensor:
        """Random images, uint8 (n, C, S, S)."""
        return torch.randint(0, 256, (n, *self.shape), dtype=torch.uint8).to(self.device)

    def encoded(self, n: int) -> Tensor:
        """Random images, normalised."""
        return self.normaliser.encode(self.pixels(n))

    def labels(self, n: int) -> Tensor:
        """Classes in turn, (n,)."""
        return (torch.arange(n) % self.dataset.classes).to(self.device)

    def image_set(self, n: int) -> ImageSet:
        """Random images as a dataset."""
        return ImageSet(self.pixels(n), self.labels(n), tuple(f"c{i}" for i in range(self.dataset.classes)))

    def training_bytes(self, images: int) -> int:
        """Bytes a training step keeps for its backward pass."""
        return activation_bytes(self.built().requires_grad_(True), self.shape, images)


def weight_bytes(*models: nn.Module) -> int:
    """Bytes of weights and buffers."""
    return sum(t.numel() * t.element_size() for model in models for t in model.state_dict().values())
