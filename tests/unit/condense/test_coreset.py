"""Selection by features: herding and cluster centres."""

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
from edc.condense.initialise import InitialisationInputs, initial_images
from edc.errors import EdcError


def start(
    method: str, ipc: int = 4, seed: int = 0, observers: int = 1, counts: tuple[int, ...] = (12, 9, 15)
) -> InitialisationInputs:
    choices = {"initialise": {"method": method}, "match": {"method": "none"}, "scorers": ["o"]}
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
