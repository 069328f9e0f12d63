"""What changes over a student's epochs: temperatures, and phases of soft and hard labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from support.rows import dataset, relabel_row, student_row
from torch import Tensor

from edc.config.phases import HardLabels
from edc.config.protocol import Loss
from edc.config.rows import EvaluateRow
from edc.data.augment import Normaliser
from edc.data.replay import Replay
from edc.training.losses import calibrated, kl, temperatures
from edc.training.sources import Condensed, smoothed
from edc.training.students import Student, train_epoch
from edc.training.trainer_group import TrainerGroup

CPU = torch.device("cpu")
DKR: dict[str, Any] = {"name": "kl", "temperature": 20.0, "temperatures": {}}
LPQLD = DKR | {"temperatures": {"every": 1}, "student_temperature": "calibrated"}
HALD = [{"regime": "soft", "share": 0.25}, {"regime": "hard", "share": 0.5}, {"regime": "soft", "share": 0.25}]


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_temperature_of_the_day() -> None:
    """Golden case 1."""
    loss = Loss.model_validate(DKR)
    epochs = (0, 29, 30, 60, 120, 180, 209, 210, 299)
    expected = [20, 20, 14, 9.8, 4.802, 2.35298, 2.35298, 2, 2]
    assert [temperatures(loss, e)[0] for e in epochs] == pytest.approx(expected, abs=1e-9)
    assert [temperatures(loss, e)[1] for e in epochs] == pytest.approx(expected, abs=1e-9)
    assert temperatures(Loss.model_validate(DKR | {"student_temperature": 0.3}), 30) == pytest.approx((14, 0.3))
    assert temperatures(Loss.model_validate(LPQLD))[1] == 1
    with pytest.raises(ValidationError, match="only kl has a softmax"):
        Loss(name="mse_ce", student_temperature=0.5)


@pytest.mark.parametrize("squared", [False, True])
def test_divergence_at_two_temperatures(squared: bool) -> None:
    z, t, labels = draws(5, 4).double(), draws(5, 4, seed=1).double(), torch.zeros(5, dtype=torch.int64)
    p, q = (t / 14).softmax(1).numpy(), (z / 0.3).softmax(1).numpy()
    expected = (p * np.log(p / q)).sum(1).mean() * (14**2 if squared else 1)
    changing = kl(z, t, labels, Loss(name="kl", squared=squared), torch.tensor([14, 0.3], dtype=torch.float64))
    fixed = kl(z, t, labels, Loss(name="kl", temperature=14.0, student_temperature=0.3, squared=squared))
    assert [float(changing), float(fixed)] == pytest.approx([expected, expected])


def test_calibration_finds_the_best_of_the_grid() -> None:
    """And the temperature by which the logits of the target were multiplied, where there is one."""
    z, t = draws(6, 5), 3 * draws(6, 5, seed=1)
    p, grid = (t / 2).softmax(1).double().numpy(), [i / 100 for i in range(1, 101)]
    q = [(z.double() / own).softmax(1).numpy() for own in grid]
    best = grid[int(np.argmin([(p * np.log(p / each)).sum() for each in q]))]
    assert float(calibrated(z, t, torch.tensor(2.0))) == pytest.approx(best)
    assert float(calibrated(0.37 * t / 2, t, torch.tensor(2.0))) == pytest.approx(0.37)


def batches(epoch: int) -> list[tuple[Tensor, Tensor | None, Tensor]]:
    return [(draws(n, 3, 8, 8, seed=epoch), 30 * draws(n, 3, seed=epoch), torch.arange(n) % 3) for n in (4, 5)]


def trained(settings: EvaluateRow, epochs: range, states: list[dict[str, Any]] | None = None) -> list[Student]:
    students = [Student(seed, settings, dataset(), CPU) for seed in settings.seeds]
    for student, state in zip(students, states or [], strict=False):
        student.load_state(state)
    group = TrainerGroup(students)
    for epoch in epochs:
        train_epoch(students, epoch, batches(epoch), group, lambda loss, _: loss)
    return students


@pytest.mark.parametrize("parts", [1, 2])
def test_a_student_calibrates_its_own_temperature(parts: int, tmp_path: Path) -> None:
    """On the logits of the last step, before its update, for the next epoch; an interruption changes nothing."""
    settings = student_row("wrn_16_2", loss=LPQLD, ema=None, epochs=3, parts=parts)
    logits: list[Tensor] = []
    student = Student(0, settings, dataset(), CPU)
    student.model.register_forward_hook(lambda module, inputs, z: logits.append(z.detach()))
    train_epoch([student], 0, batches(0), TrainerGroup([student]), lambda loss, _: loss)
    assert student.temperatures is not None
    expected = calibrated(torch.cat(logits[-parts:]), batches(0)[-1][1], torch.tensor(20.0))
    assert student.temperatures.tolist() == [20, float(expected)]

    whole = trained(settings, range(3))
    assert [s.temperatures[0].item() for s in whole] == pytest.approx([9.8, 9.8])
    assert len({s.temperatures[1].item() for s in whole}) == 2
    torch.save([s.state() for s in trained(settings, range(2))], tmp_path / "state.pt")
    resumed = trained(settings, range(2, 3), torch.load(tmp_path / "state.pt", weights_only=True))
    for one, other in zip(resumed, whole, strict=True):
        assert one.history == other.history
        assert torch.equal(one.temperatures, other.temperatures)
        for name, value in one.model.state_dict().items():
            assert torch.equal(value, other.model.state_dict()[name])


def test_smoothed_classes() -> None:
    """Golden case 6."""
    row = smoothed(torch.tensor([7]), 1000, 0.8)[0]
    assert float(row[7]) == pytest.approx(0.2008)
    assert row[torch.arange(1000) != 7].tolist() == pytest.approx([0.0008] * 999)


@pytest.mark.parametrize(("epochs", "expected"), [(300, (75, 150, 75)), (6, (2, 2, 2)), (1, (0, 1, 0))])
def test_epochs_of_phases(epochs: int, expected: tuple[int, ...]) -> None:
    row = student_row(phases=HALD, epochs=epochs)
    assert row.regimes("soft") == ["soft"] * expected[0] + ["hard"] * expected[1] + ["soft"] * expected[2]
    assert row.label_epochs == max(1, expected[0] + expected[2])
    assert student_row(epochs=epochs).label_epochs == epochs
    with pytest.raises(ValidationError, match="expected a sum of 1"):
        student_row(phases=HALD[:2])
    with pytest.raises(ValidationError, match="expected none beside regime = 'hard'"):
        student_row(phases=HALD, regime="hard")


IMAGES = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])
NORMALISER = Normaliser((0.5,) * 3, (0.25,) * 3)
STORED = np.stack([np.stack([np.full(6, e), np.arange(6), np.zeros(6)], 1) for e in range(3)]).astype(np.float16)


def source(mix: str = "cutmix", hard: HardLabels | None = None, regime: str = "soft", **changes: Any) -> Condensed:
    """Six images with three stored epochs of batches of two; a label holds its epoch and its image."""
    row = relabel_row(epochs=3, batch=2, mix=mix)
    return Condensed(IMAGES, CLASSES, STORED, regime, row, 2, NORMALISER, **changes, hard=hard)  # type: ignore[arg-type]


def stored(given: Condensed, epoch: int) -> list[tuple[int, int]]:
    return [(int(t[0]), int(t[1])) for _, targets, _ in given.epoch(epoch) for t in targets]


def test_soft_phases_go_on_with_the_stored_views_and_hard_ones_have_others() -> None:
    regimes = ["soft", "soft", "hard", "hard", "soft", "soft"]
    given, plain = source(phases=regimes), source()
    for epoch, number in ((0, 0), (1, 1), (4, 2), (5, 0)):
        assert stored(given, epoch) == stored(plain, number)
    for epoch in (2, 3):
        views = Replay(IMAGES, given.replay.row, NORMALISER).epoch(3 + epoch, 2, mix=False)
        for (x, targets, labels), (index, expected) in zip(given.epoch(epoch), views, strict=True):
            assert targets is None
            assert torch.equal(x, expected)
            assert torch.equal(labels, CLASSES[index])


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
def test_hard_labels_are_mixed_as_the_images_are(mix: str) -> None:
    """Images of one value each, so that a view's mean gives the shares; loss by hand."""
    given = source(mix="none", regime="hard", hard=HardLabels(smoothing=0.8, mix=mix))  # type: ignore[arg-type]
    given.of_hard.images = (
        (20 * torch.arange(6, dtype=torch.uint8))[:, None, None, None].expand(6, 3, 8, 8).contiguous()
    )
    replay, seen = given.of_hard, 0
    for epoch in range(4):
        drawn = replay.draws(epoch)
        for (index, _), (x, _, labels) in zip(replay.epoch(epoch, 2), given.epoch(epoch), strict=True):
            value = NORMALISER.decode(x).float().mean((1, 2, 3))
            for i, v, label in zip(index.tolist(), value.tolist(), labels, strict=True):
                other = int(drawn.partners[i])
                share = (v / 20 - other) / (i - other) if i != other else 1.0
                expected = 0.8 / 3 + 0.2 * (
                    share * F.one_hot(CLASSES[i], 3) + (1 - share) * F.one_hot(CLASSES[other], 3)
                )
                torch.testing.assert_close(label, expected, atol=0.02, rtol=0)
                seen += 0.05 < share < 0.95
    assert seen > 3
    z = draws(2, 3)
    loss = Student(0, student_row(), dataset(), CPU).loss(z, None, labels)
    assert float(loss) == pytest.approx(float(-(labels * z.log_softmax(1)).sum(1).mean()))


def test_every_stored_batch_once_before_any_again() -> None:
    given, batches_of_plain = source(reuse="pool_once"), source(mix="none")
    rounds = [[row for e in range(first, first + 3) for row in stored(given, e)] for first in (0, 3)]
    assert [len(set(rows)) for rows in rounds] == [18, 18]
    assert rounds[0] != rounds[1]
    assert any(len({epoch for epoch, _ in stored(given, e)}) > 1 for e in range(3))
    pairs = {tuple(stored(batches_of_plain, e)[i : i + 2]) for e in range(3) for i in (0, 2, 4)}
    assert {tuple(rows[i : i + 2]) for rows in rounds for i in range(0, 18, 2)} == pairs
