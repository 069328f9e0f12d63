"""Random numbers by name; replayed augmentation: whenever and in whatever batch the views torchvision makes."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import relabel_row
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from edc.data import dsa, randaugment
from edc.data.augment import Normaliser
from edc.data.replay import EpochDraws, Replay
from edc.data.rng import generator

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
N, SIZE = 10, 8


def replay(**choices: Any) -> Replay:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (N, 3, SIZE, SIZE), generator=draws, dtype=torch.uint8)
    return Replay(images, relabel_row(**{"epochs": 9, "seed": 1} | choices), Normaliser(MEAN, STD))


def by_image(made: Replay, epoch: int, batch: int, mix: bool = True) -> Tensor:
    """An epoch's views in the order of the images."""
    result = torch.full((N, 3, SIZE, SIZE), torch.nan)
    for index, x in made.epoch(epoch, batch, mix):
        assert x.shape == (len(index), 3, SIZE, SIZE)
        assert x.dtype == torch.float32
        result[index] = x
    assert not result.isnan().any()
    return result


def assert_equal_draws(one: EpochDraws, other: EpochDraws) -> None:
    for name, value in vars(one).items():
        if name == "operations" and value is not None:
            assert np.array_equal(value.op, other.operations.op)
            assert np.array_equal(value.sign, other.operations.sign)
        elif value is not None:
            assert all(map(torch.equal, value, getattr(other, name))), name


CHOICES = [
    {},
    {"mix": "none"},
    {"mix": "mixup"},
    {"pad": 2, "crop_scale": (1.0, 1.0), "mix": "none"},
    {"shuffle": 2},
    {"randaugment": {"ops": 2, "magnitude": 9}},
    {"crop_scale": (0.08, 1.0), "flip": False},
    {"batch": 10},
    {"shuffle": 2, "pad": 1},
    {"tiles": 2, "crop_scale": (1.0, 1.0), "dsa": True},
    {"tiles": 3, "mix": "none"},
]


@pytest.mark.parametrize("choices", CHOICES)
def test_an_epoch_is_the_same_directly_and_after_others(choices: dict[str, Any]) -> None:
    made = replay(**choices)
    expected = [by_image(made, epoch, 4) for epoch in range(4)]
    for epoch in (3, 1):
        fresh = replay(**choices)
        assert torch.equal(by_image(fresh, epoch, 4), expected[epoch])
        assert_equal_draws(fresh.draws(epoch), made.draws(epoch))
    assert not torch.equal(expected[0], expected[1])
    assert torch.equal(made.images, replay().images)
    assert not torch.equal(by_image(replay(**choices | {"seed": 2}), 0, 4), expected[0])


@pytest.mark.parametrize("choices", CHOICES)
@pytest.mark.parametrize("batch", [1, 3, 5, 7, 10, 64])
def test_batch_of_the_consumer_changes_no_image(choices: dict[str, Any], batch: int) -> None:
    """Not even where the CutMix partner is in another of its batches."""
    made = replay(**choices)
    torch.testing.assert_close(by_image(made, 2, batch), by_image(made, 2, 4), rtol=0, atol=1e-6)


@given(st.integers(0, 50), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_every_image_is_visited_once_in_a_random_order(epoch: int, batch: int) -> None:
    made = replay()
    indices = [index for index, _ in made.epoch(epoch, batch)]
    assert [len(index) for index in indices[:-1]] == [batch] * (len(indices) - 1)
    order = torch.cat(indices)
    assert sorted(order.tolist()) == list(range(N))
    assert torch.equal(order, made.draws(epoch).order)
    assert not torch.equal(order, made.draws(epoch + 1).order)


def expected_views(made: Replay, epoch: int, mix: bool) -> Tensor:
    """Image by image with torchvision, the paste by slices."""
    draws, choices = made.draws(epoch), made.row
    views = []
    for i in range(N):
        pixels = made.images[i : i + 1]
        if choices.randaugment is not None:
            pixels = randaugment.apply(pixels, draws.operations[i : i + 1], choices.randaugment.magnitude)
        if draws.strips is not None:
            columns, rows = (torch.cat(torch.arange(SIZE).tensor_split(2)[::1]).view(2, -1) for _ in range(2))
            columns, rows = columns[draws.strips[0][i]].flatten(), rows[draws.strips[1][i]].flatten()
            pixels = pixels[..., rows, :][..., columns]
        if draws.offsets is not None:
            y, x = draws.offsets[i].tolist()
            pixels = tv.pad(pixels, [choices.pad])[..., y : y + SIZE, x : x + SIZE]
        view = tv.resized_crop(pixels.float() / 255, *draws.boxes[i].tolist(), size=[SIZE, SIZE], antialias=True)
        view = tv.horizontal_flip(view) if draws.flips[i] else view
        view = tv.normalize(view, list(MEAN), list(STD))
        views.append((view if draws.dsa is None else dsa.apply(view, draws.dsa[i : i + 1]))[0])
    result = torch.stack(views)
    if mix and draws.shares is not None:
        share = draws.shares.view(-1, 1, 1, 1)
        return share * result + (1 - share) * result[draws.partners]
    if mix:
        for i in range(N):
            top, left, bottom, right = draws.mix_boxes[i].tolist()
            result[i, :, top:bottom, left:right] = views[int(draws.partners[i])][:, top:bottom, left:right]
    return result


@pytest.mark.parametrize("choices", CHOICES)
def test_views_are_those_of_torchvision(choices: dict[str, Any]) -> None:
    made = replay(**choices)
    for epoch in range(3):
        mixed = by_image(made, epoch, 3)
        torch.testing.assert_close(mixed, expected_views(made, epoch, made.row.mix != "none"), rtol=0, atol=2e-4)
        plain = by_image(made, epoch, 3, mix=False)
        torch.testing.assert_close(plain, expected_views(made, epoch, False), rtol=0, atol=2e-4)


def test_tiles_are_single_cells_but_for_one_time_in_n_squared() -> None:
    drawn = torch.cat([replay(tiles=2, crop_scale=(1.0, 1.0)).draws(epoch).boxes for epoch in range(200)]).tolist()
    cells = [[0, 0, 4, 4], [0, 4, 4, 4], [4, 0, 4, 4], [4, 4, 4, 4]]
    shares = [drawn.count(box) / len(drawn) for box in ([0, 0, 8, 8], *cells)]
    assert sum(shares) == pytest.approx(1)
    assert shares == pytest.approx([1 / 4, *[3 / 16] * 4], abs=0.03)
    inside = torch.cat([replay(tiles=2, crop_scale=(0.5, 1.0)).draws(epoch).boxes for epoch in range(20)])
    split = ((inside[:, :2] < 4) & (inside[:, :2] + inside[:, 2:] > 4)).any(1)  # crops across cells are of wholes
    assert 0.1 < float(split.float().mean()) < 0.4


def test_partners_and_rectangles_belong_to_the_batch_of_the_labels() -> None:
    made = replay()
    pasted = 0
    for epoch in range(20):
        draws = made.draws(epoch)
        for batch in draws.order.split(4):
            assert sorted(draws.partners[batch].tolist()) == sorted(batch.tolist())
            assert len({tuple(box) for box in draws.mix_boxes[batch].tolist()}) == 1  # one rectangle a batch
            top, left, bottom, right = draws.mix_boxes[batch[0]].tolist()
            pasted += (bottom - top) * (right - left) > 0
    assert pasted > 30


def test_without_cutmix_nothing_is_pasted_and_the_rest_is_drawn_alike() -> None:
    """What a choice switches off is still drawn, so that the other draws do not shift."""
    on, off = replay(), replay(mix="none")
    assert (off.draws(3).mix_boxes == 0).all()
    for name in ("order", "boxes", "flips", "partners"):
        assert torch.equal(getattr(on.draws(3), name), getattr(off.draws(3), name))
    assert torch.equal(by_image(on, 3, 4, mix=False), by_image(off, 3, 4))


def test_draws_of_the_first_epoch_are_fixed_for_ever() -> None:
    """Labels in store are useless once the same seed means another augmentation."""
    draws = replay(seed=42).draws(0)
    assert draws.order.tolist() == [5, 8, 7, 2, 9, 4, 1, 6, 0, 3]
    assert draws.boxes[0].tolist() == [0, 1, 8, 6]
    assert draws.flips.int().tolist() == [0, 0, 0, 1, 0, 1, 1, 0, 0, 0]
    assert draws.partners.tolist() == [0, 1, 5, 3, 4, 7, 9, 2, 8, 6]
    assert draws.mix_boxes[5].tolist() == [0, 6, 1, 8]


def test_nothing_is_made_beyond_the_last_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = replay(epochs=9), []
    monkeypatch.setattr(made, "draws", lambda epoch: seen.append(epoch) or Replay.draws(made, epoch))
    list(made.epoch(7, 4))
    assert max(seen) == 8
    list(made.epoch(8, 4))
    assert len(seen) == len(set(seen))


PINNED = [323, 359, 675, 376, 673, 999]
STREAM = st.lists(st.one_of(st.integers(-5, 5), st.text("ab1", max_size=3)), max_size=3)


@given(st.integers(0, 2**40), STREAM)
@settings(max_examples=50, deadline=None)
def test_the_same_name_gives_the_same_numbers(seed: int, stream: list[str | int]) -> None:
    one, two = generator(seed, *stream), generator(seed, *stream)
    generator(seed + 1, *stream).random(100)  # what others draw in between
    assert np.array_equal(one.random(5), two.random(5))


@given(st.tuples(st.integers(0, 9), STREAM), st.tuples(st.integers(0, 9), STREAM))
@settings(max_examples=100, deadline=None)
def test_other_names_give_other_numbers(one: tuple[int, list[str | int]], two: tuple[int, list[str | int]]) -> None:
    same = one == two
    draws = [generator(seed, *stream).integers(2**60, size=2).tolist() for seed, stream in (one, two)]
    assert (draws[0] == draws[1]) is same


def test_numbers_are_fixed_for_ever() -> None:
    """Stored labels replay these draws: another algorithm here would silently detach them from their images."""
    assert generator(42, "replay", 0).integers(1000, size=6).tolist() == PINNED
    assert generator(np.int64(42), "replay", 0).integers(1000, size=6).tolist() == PINNED
