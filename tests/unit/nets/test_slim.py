"""Removing channels for good: the smaller network computes what the masked one does."""

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edc.errors import EdcError
from edc.nets import build
from edc.nets.flops import multiply_accumulates
from edc.nets.slim import kept_channels, scales, slimmed
from edc.nets.vgg import POOLED, VGG


def vgg(widths: tuple[int, ...] = (6, 4, 8, 8, 5, 8, 8, 7), seed: int = 0, side: int = 8, channels: int = 3) -> VGG:
    """A small one whose scales, shifts and running statistics are all over the place."""
    draws = torch.Generator().manual_seed(seed)
    model = VGG(3, side, channels, widths=widths).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            n = layer.num_features
            layer.weight.data = torch.randn(n, generator=draws)
            layer.bias.data = torch.randn(n, generator=draws)
            layer.running_mean = torch.randn(n, generator=draws)
            layer.running_var = torch.rand(n, generator=draws) + 0.5
            layer.num_batches_tracked = torch.tensor(7)
    nn.init.normal_(model.classifier.weight, generator=draws)
    return model


def masked(model: VGG, channels: Sequence[Tensor]) -> VGG:
    """A copy whose other channels have BN scale and shift zero."""
    other = copy.deepcopy(model)
    norms = [layer for layer in other.features if isinstance(layer, nn.BatchNorm2d)]
    for layer, stay in zip(norms, channels, strict=True):
        removed = torch.ones(layer.num_features, dtype=torch.bool)
        removed[stay] = False
        with torch.no_grad():
            layer.weight[removed] = 0
            layer.bias[removed] = 0
    return other


def images(side: int = 8, channels: int = 3, n: int = 5) -> Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(9))


@given(st.integers(0, 2**31), st.floats(0, 0.95), st.sampled_from([8, 16, 32]), st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None)
def test_the_smaller_network_answers_as_the_masked_one(seed: int, ratio: float, side: int, channels: int) -> None:
    model = vgg(seed=seed, side=side, channels=channels)
    try:
        stay = kept_channels(model, ratio)
    except EdcError:
        assume(False)
    small, silent = slimmed(model, stay), masked(model, stay)
    x = images(side, channels)
    with torch.no_grad():
        torch.testing.assert_close(small(x), silent(x), rtol=0, atol=1e-5)
    assert not small.training
    assert sum(map(len, stay)) == sum(map(len, scales(model))) - int(ratio * sum(map(len, scales(model))) + 1e-6)


def test_the_threshold_is_global() -> None:
    """The smallest scales go, wherever they are; of equal ones those of the earlier layer."""
    model = vgg((2, 2, 2, 2, 2, 2, 2, 2))
    values = [[9, 1], [9, -8], [2, 9], [9, 9], [-0.5, 9], [9, 3], [9, 9], [9, 3]]
    for layer, value in zip((m for m in model.modules() if isinstance(m, nn.BatchNorm2d)), values, strict=True):
        layer.weight.data = torch.tensor(value, dtype=torch.float32)
    assert [s.tolist() for s in scales(model)] == [[abs(v) for v in value] for value in values]
    both = [0, 1]
    # 4 of 16: 0.5, 1, 2 and the first of two threes
    assert [stay.tolist() for stay in kept_channels(model, 0.25)] == [[0], both, [1], both, [1], [0], both, both]
    assert [stay.tolist() for stay in kept_channels(model, 0.249)] == [[0], both, [1], both, [1], both, both, both]
    assert all(stay.tolist() == both for stay in kept_channels(model, 0.0))


@given(st.integers(0, 2**31), st.floats(0, 0.9), st.floats(0.1, 1))
@settings(max_examples=60, deadline=None)
def test_a_share_of_every_layer_stays(seed: int, ratio: float, keep: float) -> None:
    """The largest scales of each layer; of the others the smallest go, wherever they are."""
    model = vgg(seed=seed)
    total, least = sum(map(len, scales(model))), [math.ceil(keep * len(s) - 1e-6) for s in scales(model)]
    remove = int(ratio * total + 1e-6)
    if remove > total - sum(least):
        with pytest.raises(EdcError, match=f"more channels than keep = {keep:g} allows; take at most 0"):
            kept_channels(model, ratio, keep)
        return
    stay = kept_channels(model, ratio, keep)
    assert sum(map(len, stay)) == total - remove
    removed, free = [], []
    for s, kept, few in zip(scales(model), stay, least, strict=True):
        largest = set(s.argsort(descending=True, stable=True)[:few].tolist())
        assert largest <= set(kept.tolist())
        removed += [float(s[i]) for i in range(len(s)) if i not in kept]
        free += [float(s[i]) for i in kept.tolist() if i not in largest]
    assert max(removed, default=0) <= min(free, default=math.inf)


def test_a_share_that_no_binary_fraction_is() -> None:
    model = vgg((20, 20, 20, 20, 5, 5, 5, 5), seed=1)
    for percent in range(60):
        assert sum(map(len, kept_channels(model, percent / 100))) == 100 - percent


def test_a_layer_must_keep_a_channel() -> None:
    model = vgg((4, 4, 4, 4, 4, 4, 4, 4))
    for number, layer in enumerate(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        layer.weight.data.fill_(0.1 if number == 2 else 1 + number)
    with pytest.raises(
        EdcError, match=r"^ratio 0\.125 would remove every channel of convolution 3; take at most 0\.093 or let"
    ):
        kept_channels(model, 0.125)
    assert [len(stay) for stay in kept_channels(model, 0.124)] == [4, 4, 1, 4, 4, 4, 4, 4]
    assert [len(stay) for stay in kept_channels(model, 0.094)] == [4, 4, 1, 4, 4, 4, 4, 4]


@given(st.integers(0, 2**31), st.floats(0.3, 0.99))
@settings(max_examples=60, deadline=None)
def test_the_ratio_that_is_said_to_work_does(seed: int, ratio: float) -> None:
    model = vgg(seed=seed)
    try:
        kept_channels(model, ratio)
    except EdcError as error:
        most = float(str(error).split("at most ")[1].split()[0])
        assert most < ratio
        assert all(map(len, kept_channels(model, most)))


def test_sizes_before_and_after() -> None:
    """Weights of every convolution are outputs x inputs x 9, each used once for every pixel of its map."""
    model = build("vgg11_bn", classes=10, image_size=8, channels=1, seed=0)
    assert isinstance(model, VGG)
    stay = [torch.arange(0, len(s), 2) for s in scales(model)]
    small = slimmed(model, stay)
    for network, share in ((model, 1), (small, 2)):
        widths = [w // share for w in (64, 128, 256, 256, 512, 512, 512, 512)]
        pairs = list(zip([1, *widths], widths, strict=False))
        parameters = sum(9 * i * o + 2 * o for i, o in pairs) + 10 * widths[-1] + 10
        assert sum(p.numel() for p in network.parameters()) == parameters
        side, macs = 8, 10 * widths[-1]
        for index, (i, o) in enumerate(pairs):
            macs += 9 * i * o * side**2
            side = side // 2 if index in POOLED and side > 1 else side
        assert multiply_accumulates(network, (1, 8, 8)) == macs
    assert sum(p.numel() for p in model.parameters()) == 9_227_210


def test_the_original_is_left_alone() -> None:
    model = vgg()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stay = kept_channels(model, 0.4)
    masked(model, stay)
    small = slimmed(model.train(), stay)
    assert small.training
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu() -> None:
    model = vgg().cuda()
    stay = kept_channels(model, 0.4)
    with torch.no_grad():
        x = images().cuda()
        torch.testing.assert_close(slimmed(model, stay)(x), masked(model, stay)(x), rtol=0, atol=1e-5)
