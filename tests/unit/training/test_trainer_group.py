"""Students side by side: as one after the other, on a GPU from a recorded graph."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.rows import dataset, student_row
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from edc.condense.layer_statistics import StatisticsCollector
from edc.config.rows import EvaluateRow
from edc.nets import build
from edc.pipeline.devices import same_every_time
from edc.training.cuda_graphs import RecordedFunction
from edc.training.students import Student
from edc.training.trainer_group import TrainerGroup, draws_random_numbers

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ADAMW = {"name": "adamw", "lr": 0.01, "weight_decay": 0.01}
DATASET = dataset(image_size=16)
SGD = {"name": "sgd", "lr": 0.001, "momentum": 0.9, "weight_decay": 0.001}


def batches(device: torch.device, soft: bool) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Of two shapes, always the same."""
    draw = torch.Generator().manual_seed(0)
    for size in (4, 4, 3):
        x, targets = torch.randn(size, 3, 16, 16, generator=draw), torch.randn(size, 3, generator=draw)
        labels = torch.randint(0, 3, (size,), generator=draw)
        yield x.to(device), targets.to(device) if soft else None, labels.to(device)


def trained(settings: EvaluateRow, device: torch.device, together: bool, stop: int | None = None) -> list[Student]:
    """Two students after three epochs; with ``stop`` taken up from a checkpoint after so many."""
    students = [Student(seed, settings, DATASET, device) for seed in settings.seeds]
    group = TrainerGroup(students)
    for epoch in range(settings.epochs):
        if epoch == stop:
            states = [student.state() for student in students]
            students = [Student(seed, settings, DATASET, device) for seed in settings.seeds]
            for student, state in zip(students, states, strict=True):
                student.load_state(state)
            group = TrainerGroup(students)
        for student in students:
            student.begin_epoch(epoch)
        for batch in batches(device, settings.regime == "soft"):
            if together:
                group.step(*batch)
            else:
                for student in students:
                    student.step(*batch)
        for student in students:
            student.history.append([epoch, student.rate, student.end_epoch(), None])
    return students


def same(one: list[Student], other: list[Student], tolerance: float = 0.0) -> None:
    for a, b in zip(one, other, strict=True):
        for left, right in zip(a.tensors(), b.tensors(), strict=True):
            torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)
        for left, right in zip(a.history, b.history, strict=True):
            assert left[2] == pytest.approx(right[2], rel=max(tolerance, 1e-12))


def test_on_the_cpu_a_cohort_steps_one_after_the_other() -> None:
    settings = student_row("convnet_w32", epochs=3)
    cpu = torch.device("cpu")
    same(trained(settings, cpu, together=True), trained(settings, cpu, together=False))


@GPU
@pytest.mark.parametrize("optimiser", [ADAMW, SGD], ids=["adamw", "sgd"])
@pytest.mark.parametrize("regime", ["soft", "hard"])
@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2_half"])
def test_a_recorded_step_is_the_step(network: str, regime: str, optimiser: dict[str, Any]) -> None:
    same_every_time()
    gpu = torch.device("cuda")
    settings = student_row(network, epochs=3, regime=regime, optimiser=optimiser, ema=0.9 if regime == "soft" else None)
    # Its algorithms may round differently, and Adam divides by small numbers: wrong steps are off by far more.
    same(trained(settings, gpu, together=True), trained(settings, gpu, together=False), 5e-3)


@GPU
@pytest.mark.parametrize("stop", [None, 2])
def test_recorded_steps_repeat_to_the_last_bit(stop: int | None) -> None:
    same_every_time()
    gpu = torch.device("cuda")
    same(
        trained(student_row("resnet18", epochs=3), gpu, True),
        trained(student_row("resnet18", epochs=3), gpu, True, stop),
    )


@GPU
@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2_half", "convnet_w32"])
def test_recorded_moments_are_the_moments(network: str) -> None:
    same_every_time()
    gpu = torch.device("cuda")
    model = build(network, classes=10, image_size=32, channels=3, seed=0).to(gpu).eval().requires_grad_(False)
    collector = StatisticsCollector(model, 4, (3, 32, 32))
    recorded = RecordedFunction(collector.moments)
    for images in (64, 64, 8):
        x = torch.randn(images, 3, 32, 32, device=gpu)
        for result, expected in zip(recorded(x), collector.moments(x), strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_off_a_gpu_a_function_is_called() -> None:
    x = torch.ones(2)
    assert [float(result.sum()) for result in RecordedFunction(lambda x: (x + 1, x + 2))(x)] == [4, 6]


@pytest.mark.parametrize(
    ("layer", "random"),
    [
        (nn.Dropout(0.1), True),
        (nn.Dropout2d(0.1), True),
        (StochasticDepth(0.2, "row"), True),
        (nn.Conv2d(3, 4, 3), False),
        (nn.BatchNorm2d(3), False),
    ],
)
def test_layers_that_draw_are_known(layer: nn.Module, random: bool) -> None:
    assert draws_random_numbers(layer) == random
