"""Soft labels: joint logits of the observers on the views students will see."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import relabel_row as row
from torch import Tensor, nn

from edc.data.augment import Normaliser
from edc.data.replay import Replay
from edc.nets import build
from edc.nets.frozen import frozen
from edc.training.ensembles import norm_mean, plain_mean
from edc.training.teachers import joint_label, label_epochs, teacher_logits

NORMALISER = Normaliser((0.5,) * 3, (0.25,) * 3)


def observers(count: int = 2, network: str = "convnet_w32") -> list[nn.Module]:
    return [build(network, classes=3, image_size=8, seed=seed).eval() for seed in range(count)]


def images(n: int = 10) -> Tensor:
    return torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def mean_logits(nets: list[nn.Module], x: Tensor) -> Tensor:
    return joint_label(teacher_logits(nets, x), "mean")


@pytest.mark.parametrize("forward", [1, 4, 7, 25, 500])
def test_labels_are_those_of_the_views(forward: int) -> None:
    """However images are gathered into forward passes, each gets the label of its own view of its own epoch."""
    replay, nets = Replay(images(), row(), NORMALISER), observers()
    logits = np.full((5, 10, 3), np.nan, dtype=np.float16)
    label_epochs(logits, replay, range(1, 4), 4, "mean", nets, forward)
    assert np.isnan(logits[[0, 4]]).all()
    for epoch in range(1, 4):
        for index, x in replay.epoch(epoch, 3):  # another batch than the one they were labelled in
            expected = mean_logits(nets, x).numpy()
            np.testing.assert_allclose(logits[epoch, index.numpy()], expected, rtol=2e-3, atol=1e-3)


def test_norms_are_equalised_within_the_batch_of_the_labels() -> None:
    """Not within the forward pass, which may gather several of them."""
    replay, nets = Replay(images(), row(ensemble="norm"), NORMALISER), observers()
    nets[1].load_state_dict({name: 3 * value for name, value in nets[1].state_dict().items()})
    logits, single = (np.zeros((5, 10, 3), dtype=np.float16) for _ in range(2))
    label_epochs(logits, replay, range(2), 4, "norm", nets, 500)
    label_epochs(single, replay, range(2), 4, "norm", nets, 1)
    np.testing.assert_allclose(logits, single, rtol=2e-3, atol=2e-3)
    plain = np.zeros_like(logits)
    label_epochs(plain, replay, range(2), 4, "mean", nets, 500)
    assert np.abs(plain[:2] - logits[:2]).max() > 0.01


def test_blocks_can_be_labelled_apart() -> None:
    replay, nets = Replay(images(), row(), NORMALISER), observers()
    whole, parts = (np.zeros((5, 10, 3), dtype=np.float16) for _ in range(2))
    for epochs in (range(2), range(2, 4), range(4, 5)):
        label_epochs(whole, replay, epochs, 4, "mean", nets, 500)
    for epochs in (range(2, 4), range(4, 5), range(2)):
        label_epochs(parts, replay, epochs, 4, "mean", nets, 500)
    assert np.array_equal(whole, parts)
    assert len(np.unique(whole.reshape(5, -1), axis=0)) == 5


def test_labelling_asks_for_no_gradient() -> None:
    nets = observers()
    assert not mean_logits(nets, NORMALISER.encode(images())).requires_grad
    assert all(parameter.grad is None for net in nets for parameter in net.parameters())


@pytest.mark.parametrize(("batch", "parts", "sizes"), [(4, 2, [2] * 5), (5, 2, [3, 2, 3, 2]), (4, 1, [4, 4, 2])])
def test_labels_with_the_statistics_of_a_part(batch: int, parts: int, sizes: list[int]) -> None:
    """Those of plain networks in training mode; the teachers are as before, and so are passes with their statistics."""
    row_ = row(epochs=2, batch=batch, batch_norm="batch", parts=parts)
    nets = [frozen(net) for net in observers(network="wrn_16_2")]
    x = NORMALISER.encode(images())
    states, plain = copy.deepcopy([net.state_dict() for net in nets]), teacher_logits(nets, x)
    logits = np.zeros((2, 10, 3), dtype=np.float16)
    label_epochs(logits, Replay(images(), row_, NORMALISER), range(2), batch, "mean", nets, 500)
    order, views = map(torch.cat, zip(*Replay(images(), row_, NORMALISER).epoch(1, batch), strict=True))
    training = [copy.deepcopy(net).train() for net in nets]
    expected = [torch.stack([net(part) for net in training]).mean(0) for part in views.split(sizes)]
    np.testing.assert_allclose(logits[1, order.numpy()], torch.cat(expected).numpy(), rtol=2e-3, atol=1e-3)
    assert all(torch.equal(a[k], net.state_dict()[k]) for a, net in zip(states, nets, strict=True) for k in a)
    torch.testing.assert_close(teacher_logits(nets, x), plain)


def random_logits(m: int, b: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(m, b, k, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(2, 6), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_every_observer_counts_alike(m: int, b: int, k: int, seed: int) -> None:
    """Written plainly; and scaling one observer changes all labels by one factor, not their proportions."""
    result = random_logits(m, b, k, seed)
    norms = [float(part.square().sum().sqrt()) for part in result]
    mean = sum(norms) / m
    expected = sum(part * (mean / norm) for part, norm in zip(result, norms, strict=True)) / m
    torch.testing.assert_close(norm_mean(result), expected, rtol=1e-4, atol=1e-5)
    loud = result.clone()
    loud[0] *= 7
    ratio = (mean * m + 6 * norms[0]) / (mean * m)
    torch.testing.assert_close(norm_mean(loud), norm_mean(result) * ratio, rtol=1e-4, atol=1e-4)


def test_one_observer_is_left_as_it_is() -> None:
    result = random_logits(1, 3, 4)
    torch.testing.assert_close(norm_mean(result), result[0])
    assert torch.equal(plain_mean(result), result[0])


def test_an_observer_with_zero_logits() -> None:
    result = random_logits(2, 3, 4)
    result[1] = 0
    torch.testing.assert_close(norm_mean(result), result[0] / 4)
    assert torch.equal(norm_mean(torch.zeros(2, 3, 4)), torch.zeros(3, 4))
