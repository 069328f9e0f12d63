"""Where the pixels of a condensed set start: drawn, herded, cluster centres, noise; and their groups."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import synthesize_row
from support.synthesis import inputs, pictures
from torch import nn

from edc import nets
from edc.condense.coreset import class_features, features, herd, herding, kmeans, nearest_to_centres
from edc.condense.initialise import InitialisationInputs, groups_of, initial_images, pick
from edc.data.images import ImageSet
from edc.errors import EdcError


def initialised(
    train: ImageSet, draw: str = "independent", flip: bool = False, method: str = "real", **changes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    row = synthesize_row(initialise={"draw": draw, "method": method}, **{"ipc": 3} | changes)
    return initial_images(inputs(train, row, flip=flip))


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
    images, labels = initialised(train, draw, flip=True)
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
    kept, _ = initialised(train, ipc=20, iterations=0, flip=True)
    for images in (initialised(train, ipc=20)[0], kept):
        assert (images[..., 0] < images[..., -1]).all()
    optimised, _ = initialised(train, ipc=20, flip=True)
    assert torch.equal(optimised.amin(-1), kept.amin(-1))  # the same pictures, mirrored or not


def test_a_class_draws_the_same_whatever_the_others_hold() -> None:
    big, small = image_set((4, 6, 5)), image_set((2, 6, 5))
    first = initialised(big)[0][3:].amin((1, 2, 3)) // 2
    other = initialised(small)[0][3:].amin((1, 2, 3)) // 2
    for c, (a, b) in enumerate(zip(first.split(3), other.split(3), strict=True), 1):
        place = [big.by_class(c).tolist().index(i) for i in a.tolist()]
        assert place == [small.by_class(c).tolist().index(i) for i in b.tolist()]
    assert not torch.equal(initialised(big)[0], initialised(big, seed=1)[0])


def test_too_few_distinct_images_are_refused() -> None:
    initialised(image_set(), "distinct", ipc=4)
    with pytest.raises(EdcError, match=r"class 'a' has 4 training images, 5 distinct ones were asked for"):
        initialised(image_set(), "distinct", ipc=5)


def test_noise() -> None:
    train = image_set()
    images, labels = initialised(train, flip=True, ipc=200, method="noise")
    assert images.shape == (600, 3, 4, 4)
    assert images.dtype == torch.float32
    assert labels.tolist() == [0] * 200 + [1] * 200 + [2] * 200
    assert abs(float(images.mean())) < 0.05
    assert abs(float(images.std()) - 1) < 0.05
    assert torch.equal(images, initialised(train, ipc=200, method="noise")[0])
    assert not torch.equal(images, initialised(train, ipc=200, method="noise", seed=1)[0])


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


def start(
    method: str, ipc: int = 4, seed: int = 0, observers: int = 1, counts: tuple[int, ...] = (12, 9, 15)
) -> InitialisationInputs:
    choices = {"initialise": {"method": method}, "match": {"target": "none"}, "scorers": ["o"]}
    networks = [nets.build("convnet_w32", classes=3, image_size=8, seed=i).eval() for i in range(observers)]
    return inputs(pictures(counts), synthesize_row(0, ipc=ipc, seed=seed, **choices), networks)


def points(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("name", ["convnet_w32", "resnet18", "wrn_16_2", "mobilenet_v2_half", "shufflenet_v2_05"])
def test_features_of_the_zoo_give_the_logits(name: str) -> None:
    network = nets.build(name, classes=3, image_size=16, seed=0).eval()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    result = features(network, x)
    head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    torch.testing.assert_close(head(result), network(x))


def test_features_of_a_convolutional_classifier_are_averaged() -> None:
    network = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(features(network, x), x.relu().mean(dim=(2, 3)))


def test_a_network_without_a_classifier_is_refused() -> None:
    with pytest.raises(EdcError, match="Flatten: found no linear or convolutional classifier"):
        features(nn.Flatten(), torch.zeros(1, 3, 2, 2))


def test_features_of_observers_are_of_unit_length_each(monkeypatch: pytest.MonkeyPatch) -> None:
    given = start("herding", observers=2)
    members = given.train.by_class(0)
    whole = class_features(given, given.scorers(), members)
    assert whole.dtype == np.float64
    halves = np.split(whole, 2, axis=1)
    for half, network in zip(halves, given.scorers(), strict=True):
        np.testing.assert_allclose((half**2).sum(axis=1), 1, atol=1e-6)
        expected = F.normalize(features(network, given.normaliser.encode(given.train.read(members))))
        np.testing.assert_allclose(half, expected.numpy(), atol=1e-6)
    monkeypatch.setattr("edc.nets.passes.IMAGES", 5)
    np.testing.assert_allclose(class_features(given, given.scorers(), members), whole, atol=1e-6)


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_every_pick_brings_the_mean_nearest(n: int, d: int, seed: int) -> None:
    result = points(n, d, seed)
    picks = herd(result, n)
    assert sorted(picks.tolist()) == list(range(n))
    mean = result.mean(axis=0)
    for k in range(n):
        free = [i for i in range(n) if i not in picks[:k]]
        distance = {i: np.linalg.norm(mean - result[[*picks[:k], i]].mean(axis=0)) for i in free}
        assert distance[picks[k]] <= min(distance.values()) + 1e-9
    assert herd(result, max(1, n // 2)).tolist() == picks[: max(1, n // 2)].tolist()


def test_one_image_of_every_cluster() -> None:
    rng = np.random.default_rng(0)
    middles = 100 * np.eye(5)
    result = np.repeat(middles, 8, axis=0) + rng.normal(size=(40, 5))
    picks = nearest_to_centres(result, 5, 0)
    assert sorted(picks // 8) == [0, 1, 2, 3, 4]
    for i in picks:
        cluster = result[i // 8 * 8 : i // 8 * 8 + 8]
        distances = np.linalg.norm(cluster - cluster.mean(axis=0), axis=1)
        assert i % 8 == distances.argmin()


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("candidates", [points(7, 3, 0), np.zeros((7, 3)), np.repeat(points(2, 3, 0), [1, 6], axis=0)])
def test_images_near_centres_are_distinct(candidates: np.ndarray) -> None:
    for count in (1, 5, 7):
        picks = nearest_to_centres(candidates, count, 0)
        assert len(set(picks.tolist())) == count
        assert picks.tolist() == nearest_to_centres(candidates, count, 0).tolist()


@pytest.mark.parametrize("method", ["herding", "kmeans"])
def test_selected_images_are_distinct_images_of_their_class(method: str) -> None:
    given = start(method)
    images, labels = initial_images(given)
    assert images.dtype == torch.uint8
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    where = [(given.train.images == image).flatten(1).all(dim=1).nonzero().item() for image in images]
    assert len(set(where)) == 12
    assert torch.equal(given.train.labels[where], labels)
    again, other = (initial_images(start(method, seed=seed))[0] for seed in (0, 1))
    assert torch.equal(images, again)
    assert method == "kmeans" or torch.equal(images, other)  # herding draws nothing


def test_the_whole_class_can_be_selected() -> None:
    for choose in (herding, kmeans):
        images, labels = choose(start("herding", ipc=9, counts=(9, 9, 9)))
        assert len(images.unique(dim=0)) == len(labels) == 27


@pytest.mark.parametrize("choose", [herding, kmeans])
def test_too_few_images_are_refused(choose: Any) -> None:
    with pytest.raises(EdcError, match=r"class 'b' has 9 training images, expected at least ipc = 10"):
        choose(start("herding", ipc=10))
