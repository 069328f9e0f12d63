"""Students in training: resumption, averaged weights, independence; side by side, on a GPU from a recorded graph."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.rows import dataset, student_row
from support.rows import student_row as row
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from edc.condense.layer_statistics import StatisticsCollector
from edc.config.rows import EvaluateRow
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.images import ImageSet
from edc.data.replay import batches_of
from edc.nets import build
from edc.pipeline.devices import same_every_time
from edc.training.cuda_graphs import RecordedFunction
from edc.training.evaluation import accuracy, percentages
from edc.training.schedules import multiplier
from edc.training.students import Student, correct
from edc.training.trainer_group import TrainerGroup, draws_random_numbers

CPU = torch.device("cpu")
NORMALISER = Normaliser((0.5,) * 3, (0.25,) * 3)


Batch = tuple[Tensor, Tensor | None, Tensor]


def epoch_of(student: Student, epoch: int, batches: Sequence[Batch]) -> tuple[float, float]:
    """One epoch: mean loss and rate."""
    student.begin_epoch(epoch)
    for x, targets, labels in batches:
        student.step(x, targets, labels)
    return student.end_epoch(), student.rate


def batches(epoch: int, size: int = 8, soft: bool = True) -> list[Batch]:
    draws = torch.Generator().manual_seed(epoch)
    result = []
    for n in (4, 2):
        targets = torch.randn(n, 3, generator=draws)
        images, labels = torch.randn(n, 3, size, size, generator=draws), torch.arange(n) % 3
        result.append((images, targets if soft else None, labels))
    return result


def train(students: list[Student], epochs: range, size: int = 8) -> None:
    """Epoch by epoch, all students side by side, as the stage does."""
    for epoch in epochs:
        for student in students:
            loss, rate = epoch_of(student, epoch, batches(epoch, size))
            student.history.append([epoch, rate, loss, None])


def feed(images: Tensor, labels: Tensor) -> Feed:
    return Feed(ImageSet(images, labels, tuple("abc")), dataset(image_size=images.shape[-1]), NORMALISER, CPU)


def everything(student: Student) -> list[Tensor]:
    return [*student.model.state_dict().values(), *(student.average.shadow if student.average else [])]


def assert_same(one: Student, other: Student) -> None:
    assert one.history == other.history
    for a, b in zip(everything(one), everything(other), strict=True):
        assert torch.equal(a, b)


# The last one has dropout, which draws from torch's global generator.
NETWORKS = [("convnet_w32", 8), ("wrn_16_2", 8), ("torchvision:mobilenet_v3_small", 16)]


# PyTorch 2.14.1's convolutions on the CPU read past some maps of one pixel in bfloat16, which the last network has.
RUNS = [
    *((*network, ema, torch.float32) for network in NETWORKS for ema in (0.9, None)),
    *((*network, 0.9, torch.bfloat16) for network in NETWORKS[:2]),
]


@pytest.mark.parametrize(("network", "size", "ema", "precision"), RUNS)
def test_interrupted_training_ends_the_same(
    network: str, size: int, ema: float | None, precision: torch.dtype, tmp_path: Path
) -> None:
    settings = row(network, ema=ema)
    whole = Student(1, settings, dataset(image_size=size), CPU, precision)
    train([whole], range(3), size)
    first = Student(1, settings, dataset(image_size=size), CPU, precision)
    train([first], range(1), size)
    torch.save(first.state(), tmp_path / "state.pt")
    torch.manual_seed(99)  # what else the process drew in between
    second = Student(1, settings, dataset(image_size=size), CPU, precision)
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    train([second], range(1, 3), size)
    assert_same(second, whole)


@pytest.mark.parametrize("ema", [0.9, None])
def test_students_are_evaluated_as_each_would_be_alone(ema: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one reading of the images, by the averaged weights, which only judging sees."""
    slow = {"name": "adamw", "lr": 1e-4, "weight_decay": 0.01}  # fast ones give every image the same class
    students = [Student(seed, row(ema=ema, optimiser=slow), dataset(), CPU) for seed in range(3)]
    train(students, range(2))
    before = [[tensor.clone() for tensor in everything(student)] for student in students]
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (90, 3, 8, 8), generator=draws, dtype=torch.uint8)
    with students[0].averaged_weights(), torch.no_grad():  # by construction 100 %
        test = feed(pixels, students[0].model.eval()(NORMALISER.encode(pixels)).argmax(1))
    readings, read = [], test.images.read
    monkeypatch.setattr(ImageSet, "read", lambda self, *asked: readings.append(asked) or read(*asked))
    monkeypatch.setattr("edc.training.evaluation.images_at_once", lambda _: 40)
    result = percentages(correct(students, test))
    assert len(readings) == 3
    for student, percent, kept in zip(students, result, before, strict=True):
        with student.averaged_weights():
            assert accuracy(student.model, test) == percent
        assert all(torch.equal(a, b) for a, b in zip(everything(student), kept, strict=True))
    assert result[0] == 100 > min(result)


def test_adaptive_schedule_survives_an_interruption(tmp_path: Path) -> None:
    """The rate depends on earlier losses."""
    settings = row(schedule={"name": "alrs"}, optimiser={"name": "sgd", "lr": 1e-6, "weight_decay": 0.0})
    whole, second = (Student(0, settings, dataset(), CPU) for _ in range(2))
    for epoch in range(4):
        loss, rate = epoch_of(whole, epoch, batches(0))
        whole.history.append([epoch, rate, loss, None])
        if epoch == 2:
            torch.save(whole.state(), tmp_path / "state.pt")
    assert [h[1] for h in whole.history] == pytest.approx([1e-6, 1e-6, 0.9975e-6, 0.9975**2 * 1e-6])
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    loss, rate = epoch_of(second, 3, batches(0))
    second.history.append([3, rate, loss, None])
    assert_same(second, whole)


@pytest.mark.parametrize(("network", "size"), NETWORKS)
def test_seeds_are_independent(network: str, size: int) -> None:
    settings = row(network)
    zero, one = (Student(seed, settings, dataset(image_size=size), CPU) for seed in (0, 1))
    alone = Student(1, settings, dataset(image_size=size), CPU)
    train([zero, one], range(2), size)
    train([alone], range(2), size)
    assert_same(one, alone)
    assert any(not torch.equal(a, b) for a, b in zip(everything(one), everything(zero), strict=True))


def test_rate_follows_the_schedule() -> None:
    settings = row(epochs=4)
    student = Student(0, settings, dataset(), CPU)
    train([student], range(4))
    expected = [0.01 * multiplier(settings.schedule, epoch, 4) for epoch in range(4)]
    assert [h[1] for h in student.history] == pytest.approx(expected, abs=1e-12)
    assert [group["lr"] for group in student.optimiser.param_groups] == pytest.approx([expected[-1]] * 2)


def test_loss_is_the_mean_over_images() -> None:
    student = Student(0, row(optimiser={"name": "sgd", "lr": 1e-12}), dataset(), CPU)
    model = student.model.train()
    with torch.no_grad():
        terms = [len(x) * (F.mse_loss(model(x), t) + 0.025 * F.cross_entropy(model(x), y)) for x, t, y in batches(0)]
        hard = [len(x) * F.cross_entropy(model(x), y) for x, _, y in batches(0)]
    loss, _ = epoch_of(student, 0, batches(0))
    assert loss == pytest.approx(float(sum(terms)) / 6, rel=1e-5)
    loss, _ = epoch_of(student, 0, batches(0, soft=False))
    assert loss == pytest.approx(float(sum(hard)) / 6, rel=1e-5)


@pytest.mark.parametrize("soft", [True, False])
def test_a_step_in_parts(soft: bool) -> None:
    """The gradient of the mean over the batch, each part normalised alone: by plain autograd; one step of SGD."""
    settings = row("wrn_16_2", parts=2, ema=None, optimiser={"name": "sgd", "lr": 0.1, "momentum": 0.0})
    student, draws = Student(0, settings, dataset(), CPU), torch.Generator().manual_seed(0)
    x, targets = torch.randn(5, 3, 8, 8, generator=draws), torch.randn(5, 3, generator=draws)
    labels = torch.arange(5) % 3
    plain = copy.deepcopy(student.model).train()
    rows = [plain(part) for part in x.split([3, 2])]
    error = (torch.cat(rows) - targets).square().mean() + 0.025 * F.cross_entropy(torch.cat(rows), labels)
    loss = error if soft else F.cross_entropy(torch.cat(rows), labels)
    loss.backward()
    mean, rate = epoch_of(student, 0, [(x, targets if soft else None, labels)])
    assert mean == pytest.approx(float(loss.detach()), rel=1e-5)
    for new, old in zip(student.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old.detach() - rate * old.grad, rtol=1e-4, atol=1e-6)
    for new, old in zip(student.model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(new, old)


def test_average_follows_every_step() -> None:
    student = Student(0, row(ema=0.9), dataset(), CPU)
    expected = [p.detach().clone() for p in student.model.parameters()]
    for epoch in range(2):
        for batch in batches(epoch):
            epoch_of(student, epoch, [batch])
            for shadow, live in zip(expected, student.model.parameters(), strict=True):
                shadow.mul_(0.9).add_(live.detach(), alpha=0.1)
    for shadow, kept in zip(expected, student.average.shadow, strict=True):
        torch.testing.assert_close(kept, shadow, rtol=1e-5, atol=1e-7)


def test_a_last_image_left_alone_joins_the_batch_before() -> None:
    """Three images in batches of two leave one, which batch norm on a 1 x 1 map has nothing to compare with."""
    student = Student(0, row("resnet18"), dataset(), CPU)
    x, targets, labels = batches(0)[0]
    cut = batches_of(torch.arange(3), 2)
    assert [part.tolist() for part in cut] == [[0, 1, 2]]
    assert [len(part) for part in batches_of(torch.arange(7), 3)] == [3, 4]
    loss, _ = epoch_of(student, 0, [(x[part], targets[part], labels[part]) for part in cut])
    assert loss > 0


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ADAMW = {"name": "adamw", "lr": 0.01, "weight_decay": 0.01}
DATASET = dataset(image_size=16)
SGD = {"name": "sgd", "lr": 0.001, "momentum": 0.9, "weight_decay": 0.001}


def same_batches(device: torch.device, soft: bool) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Of two shapes, always the same."""
    draw = torch.Generator().manual_seed(0)
    for size in (4, 4, 3):
        x, targets = torch.randn(size, 3, 16, 16, generator=draw), torch.randn(size, 3, generator=draw)
        labels = torch.randint(0, 3, (size,), generator=draw)
        yield x.to(device), targets.to(device) if soft else None, labels.to(device)


def side_by_side(settings: EvaluateRow, device: torch.device, together: bool, stop: int | None = None) -> list[Student]:
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
        for batch in same_batches(device, settings.regime == "soft"):
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
    same(side_by_side(settings, cpu, together=True), side_by_side(settings, cpu, together=False))


@GPU
@pytest.mark.parametrize("optimiser", [ADAMW, SGD], ids=["adamw", "sgd"])
@pytest.mark.parametrize("regime", ["soft", "hard"])
@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2_half"])
def test_a_recorded_step_is_the_step(network: str, regime: str, optimiser: dict[str, Any]) -> None:
    same_every_time()
    gpu = torch.device("cuda")
    settings = student_row(network, epochs=3, regime=regime, optimiser=optimiser, ema=0.9 if regime == "soft" else None)
    settings = settings.model_copy(update={"parts": 2 if regime == "hard" else 1})
    # Its algorithms may round differently, and Adam divides by small numbers: wrong steps are off by far more.
    same(side_by_side(settings, gpu, together=True), side_by_side(settings, gpu, together=False), 5e-3)


@GPU
@pytest.mark.parametrize("stop", [None, 2])
def test_recorded_steps_repeat_to_the_last_bit(stop: int | None) -> None:
    same_every_time()
    gpu = torch.device("cuda")
    same(
        side_by_side(student_row("resnet18", epochs=3), gpu, True),
        side_by_side(student_row("resnet18", epochs=3), gpu, True, stop),
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
