"""Where the pixels of a condensed set start, and which images are matched together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import synthesize_row
from support.synthesis import inputs

from edc.condense.initialise import groups_of, pick
from edc.condense.initialise import initial_images as initial_images_of
from edc.data.images import ImageSet
from edc.errors import EdcError


def initial_images(
    train: ImageSet, draw: str = "independent", flip: bool = False, method: str = "real", **changes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    row = synthesize_row(initialise={"draw": draw, "method": method}, **{"ipc": 3} | changes)
    return initial_images_of(inputs(train, row, flip=flip))


def image_set(per_class: tuple[int, ...] = (4, 6, 5)) -> ImageSet:
    """Every image tells its number and its left from its right; classes are interleaved."""
    labels = torch.arange(3).repeat_interleave(torch.tensor(per_class))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    images = torch.arange(len(labels)).view(-1, 1, 1, 1) * 2 + torch.tensor([0, 0, 1, 1])
    return ImageSet(images.expand(-1, 3, 4, 4).to(torch.uint8).contiguous(), labels, tuple("abc"))


def test_avoiding_draws_spread_over_the_candidates() -> None:
    """With thousands of draws no candidate is more than a few ahead, and exponents do not overflow."""
    picks = pick(np.random.default_rng(0), 5, 3000, "softmin")
    counts = np.bincount(picks, minlength=5)
    assert counts.max() - counts.min() < 15
    assert np.bincount(pick(np.random.default_rng(0), 5, 3000, "independent"), minlength=5).std() > counts.std()


@pytest.mark.parametrize("draw", ["independent", "softmin", "distinct"])
def test_draws_are_candidates_and_follow_from_the_seed(draw: str) -> None:
    picks = pick(np.random.default_rng(3), 7, 7, draw)
    assert picks.shape == (7,)
    assert set(picks) <= set(range(7))
    if draw == "distinct":
        assert len(set(picks)) == 7
    assert np.array_equal(picks, pick(np.random.default_rng(3), 7, 7, draw))


@pytest.mark.parametrize("draw", ["independent", "softmin", "distinct"])
def test_real_images_are_of_their_class(draw: str) -> None:
    train = image_set()
    images, labels = initial_images(train, draw, flip=True)
    assert labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert images.dtype == torch.uint8
    mirrored = 0
    for image, label in zip(images, labels, strict=True):
        number = int(image.min()) // 2
        assert train.labels[number] == label
        mirrored += not torch.equal(image, train.images[number])
        assert torch.equal(image, train.images[number]) or torch.equal(image, train.images[number].flip(-1))
    if draw == "distinct":
        assert len({int(image.min()) for image in images}) == 9
    assert 0 < mirrored < 9


def test_pictures_that_stay_or_must_not_be_mirrored_are_not() -> None:
    train = image_set()
    kept, _ = initial_images(train, ipc=20, iterations=0, flip=True)
    for images in (initial_images(train, ipc=20)[0], kept):
        assert (images[..., 0] < images[..., -1]).all()
    optimised, _ = initial_images(train, ipc=20, flip=True)
    assert torch.equal(optimised.amin(-1), kept.amin(-1))  # the same pictures, mirrored or not


def test_a_class_draws_the_same_whatever_the_others_hold() -> None:
    big, small = image_set((4, 6, 5)), image_set((2, 6, 5))
    first = initial_images(big)[0][3:].amin((1, 2, 3)) // 2
    other = initial_images(small)[0][3:].amin((1, 2, 3)) // 2
    for c, (a, b) in enumerate(zip(first.split(3), other.split(3), strict=True), 1):
        place = [big.by_class(c).tolist().index(i) for i in a.tolist()]
        assert place == [small.by_class(c).tolist().index(i) for i in b.tolist()]
    assert not torch.equal(initial_images(big)[0], initial_images(big, seed=1)[0])


def test_too_few_distinct_images_are_refused() -> None:
    initial_images(image_set(), "distinct", ipc=4)
    with pytest.raises(EdcError, match=r"class 'a' has 4 training images, 5 distinct ones were asked for"):
        initial_images(image_set(), "distinct", ipc=5)


def test_noise() -> None:
    train = image_set()
    images, labels = initial_images(train, flip=True, ipc=200, method="noise")
    assert images.shape == (600, 3, 4, 4)
    assert images.dtype == torch.float32
    assert labels.tolist() == [0] * 200 + [1] * 200 + [2] * 200
    assert abs(float(images.mean())) < 0.05
    assert abs(float(images.std()) - 1) < 0.05
    assert torch.equal(images, initial_images(train, ipc=200, method="noise")[0])
    assert not torch.equal(images, initial_images(train, ipc=200, method="noise", seed=1)[0])


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 12), st.integers(0, 7))
@settings(max_examples=80, deadline=None)
def test_rounds_hold_every_class_and_groups_stay_inside(classes: int, ipc: int, rounds: int, size: int) -> None:
    groups = groups_of(classes, ipc, size, rounds)
    assert sorted(torch.cat(groups).tolist()) == list(range(classes * ipc))
    whole = groups_of(classes, ipc, 0, rounds)
    assert len(whole) == min(rounds or ipc, ipc)
    for part in whole:
        per_class = torch.bincount(part // ipc, minlength=classes)
        assert per_class.min() == per_class.max()
    round_of = {int(i): r for r, part in enumerate(whole) for i in part}
    assert all(len({round_of[int(i)] for i in group}) == 1 for group in groups)
