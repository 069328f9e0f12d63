"""Small observers, images of three classes and one run of the synthesis loop."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from edc.condense.engine import Progress, synthesize
from edc.condense.initialise import InitialisationInputs, groups_of
from edc.condense.layer_statistics import StatisticsCollector
from edc.condense.observer import Observer
from edc.config.rows import SynthesizeRow
from edc.data.augment import Normaliser
from edc.data.images import ImageSet
from edc.nets.placing import placed
from support.rows import dataset

SHAPE = (3, 8, 8)
CLASSES = 3
NORMALISER = Normaliser((0.5, 0.4, 0.3), (0.25, 0.2, 0.3))


def network(seed: int, bend: type[nn.Module] = nn.ReLU) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            bend(),
            nn.Conv2d(4, 5, 3, padding=1, stride=2),
            nn.BatchNorm2d(5),
            bend(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, CLASSES),
        )
        model(torch.randn(16, *SHAPE))
        model[-1].weight.data *= 8  # answers that depend on the image
    return model.eval().requires_grad_(False)


def make_observers(
    settings: SynthesizeRow, precision: torch.dtype = torch.float32, device: str = "cpu"
) -> list[Observer]:
    result = []
    for i, name in enumerate(settings.observers):
        model = placed(network(i), torch.device(device), precision)
        size = StatisticsCollector(model, 4, SHAPE).size
        draws = torch.Generator().manual_seed(10 + i)
        targets = {
            "global": torch.rand(size, generator=draws).to(device),
            "classes": torch.rand(CLASSES, size, generator=draws).to(device),
        }
        result.append(Observer.make(name, model, settings, 4, SHAPE, targets))
    return result


def start(seed: int = 0, ipc: int = 2) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (CLASSES * ipc, *SHAPE), generator=draws, dtype=torch.uint8)
    return NORMALISER.encode(pixels), torch.arange(CLASSES).repeat_interleave(ipc)


def nothing(_: Progress) -> None:
    pass


def made(
    settings: SynthesizeRow,
    group: int = 0,
    images: Tensor | None = None,
    state: Progress | None = None,
    after: Callable[[Progress], None] = nothing,
    observers: list[Observer] | None = None,
    at_once: int = 1,
) -> tuple[Tensor, Progress]:
    initial, labels = start()
    images = initial if images is None else images
    groups, state = groups_of(CLASSES, 2, group, 1), state or Progress()
    observers = observers or make_observers(settings)
    return synthesize(images, labels, groups, observers, settings, NORMALISER, state, after, at_once), state


def pictures(per_class: tuple[int, ...], size: int = 8) -> ImageSet:
    """So many noise images of each of three classes, in random order."""
    labels = torch.arange(3).repeat_interleave(torch.tensor(per_class))
    draws = torch.Generator().manual_seed(0)
    labels = labels[torch.randperm(len(labels), generator=draws)]
    images = torch.randint(0, 256, (len(labels), 3, size, size), generator=draws, dtype=torch.uint8)
    return ImageSet(images, labels, ("a", "b", "c"))


def inputs(
    train: ImageSet, row: SynthesizeRow, scorers: Sequence[nn.Module] = (), flip: bool = True
) -> InitialisationInputs:
    """What images are initialised from, on the CPU."""
    values = dataset(image_size=train.shape[-1], flip=flip)
    normaliser = Normaliser(values.mean, values.std)
    return InitialisationInputs(train, row, values, normaliser, torch.device("cpu"), lambda: list(scorers))
