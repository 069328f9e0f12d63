"""RandAugment against torchvision's tensor back end, pixel for pixel, and its independence from batching."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import RandAugment, _apply_op

from edc.data.randaugment import OPS, Draws, apply, draw


def space(size: tuple[int, int], bins: int = 31) -> dict[str, tuple[Tensor, bool]]:
    return RandAugment()._augmentation_space(bins, size)


GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
NUDGE = 1e-5
"""Where a pixel lies halfway between two others, torchvision's choice depends on how the processor rounds a product.
Values larger and smaller by this share show both choices."""


def oracle(image: Tensor, op: int, sign: bool, magnitude: int = 9, bins: int = 31, nudge: float = 0.0) -> Tensor:
    """The operation as torchvision's RandAugment applies it to one image (C, H, W)."""
    magnitudes, signed = space((image.shape[1], image.shape[2]), bins)[OPS[op]]
    value = float(magnitudes[magnitude].item()) if magnitudes.ndim > 0 else 0.0
    value *= (-1.0 if signed and sign else 1.0) * (1 + nudge)
    return _apply_op(image, OPS[op], value, interpolation=InterpolationMode.NEAREST, fill=None)


def samples(kind: str, count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, height, width)
    if kind == "random":
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    if kind == "narrow":  # few levels, low contrast
        return torch.randint(90, 97, shape, generator=generator, dtype=torch.uint8)
    if kind == "flat":  # one level per channel, 0 and 255 among them
        levels = torch.tensor([0, 255, 128, 7, 254, 1])[torch.arange(count * channels) % 6]
        return levels.to(torch.uint8).view(count, channels, 1, 1).repeat(1, 1, height, width)
    coarse = torch.rand(count, channels, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    return (smooth * 255).clamp(0, 255).to(torch.uint8)


def constant(op: int, sign: bool, count: int) -> Draws:
    return Draws(np.full((count, 1), op, dtype=np.int64), np.full((count, 1), sign))


def assert_like_torchvision(images: Tensor, op: int, sign: bool, magnitude: int = 9, bins: int = 31) -> None:
    result = apply(images, constant(op, sign, len(images)), magnitude, bins)
    assert result.dtype == torch.uint8
    wrong = torch.ones_like(result, dtype=torch.bool)
    for nudge in (0.0, NUDGE, -NUDGE) if OPS[op] in GEOMETRIC else (0.0,):
        wrong &= result != torch.stack([oracle(image, op, sign, magnitude, bins, nudge) for image in images])
    assert not wrong.any(), f"{wrong.sum().item()} of {result.numel()} values differ"


def test_names_and_order_are_torchvisions() -> None:
    assert tuple(space((32, 32))) == OPS


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (32, 32), (33, 33), (64, 64), (24, 40)])
@pytest.mark.parametrize("op", range(len(OPS)), ids=OPS)
def test_every_pixel_equals_torchvision(op: int, size: tuple[int, int], channels: int) -> None:
    for kind in ("random", "smooth", "narrow", "flat"):
        images = samples(kind, 4, channels, *size)
        for sign in (False, True):
            assert_like_torchvision(images, op, sign)


@pytest.mark.parametrize("magnitude", range(0, 31, 2))
def test_other_magnitudes_equal_torchvision(magnitude: int) -> None:
    images = samples("smooth", 2, 3, 28, 28)
    for op in range(len(OPS)):
        for sign in (False, True):
            assert_like_torchvision(images, op, sign, magnitude)


@pytest.mark.parametrize("op", range(len(OPS)), ids=OPS)
def test_large_and_tiny_images_equal_torchvision(op: int) -> None:
    for sign in (False, True):
        assert_like_torchvision(samples("smooth", 1, 3, 224, 224), op, sign)
        assert_like_torchvision(samples("random", 2, 3, 2, 2), op, sign)
        assert_like_torchvision(samples("random", 2, 3, 32, 32), op, sign, magnitude=4, bins=11)


def test_two_rounds_equal_torchvision() -> None:
    images = samples("smooth", 200, 3, 32, 32)
    draws = draw(np.random.default_rng(1), len(images))
    expected = []
    for image, ops, signs in zip(images, draws.op, draws.sign, strict=True):
        for op, sign in zip(ops, signs, strict=True):
            image = oracle(image, int(op), bool(sign))
        expected.append(image)
    assert torch.equal(apply(images, draws), torch.stack(expected))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 24),
    ops=st.integers(0, 3),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(2, 20), st.integers(2, 20)),
    magnitude=st.integers(0, 30),
)
def test_batch_equals_image_by_image(
    seed: int, count: int, ops: int, channels: int, size: tuple[int, int], magnitude: int
) -> None:
    images = samples("random", count, channels, *size, seed=seed)
    before = images.clone()
    draws = draw(np.random.default_rng(seed), count, ops)
    whole = apply(images, draws, magnitude)
    single = [apply(images[i : i + 1], draws[i : i + 1], magnitude) for i in range(count)]
    shuffle = np.random.default_rng(seed).permutation(count)
    assert torch.equal(whole, torch.cat(single))
    assert torch.equal(whole[shuffle], apply(images[shuffle], draws[shuffle], magnitude))
    assert torch.equal(whole, apply(images.to(memory_format=torch.channels_last), draws, magnitude))
    assert (whole.shape, whole.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)
    assert whole.data_ptr() != images.data_ptr()
    assert apply(images[:0], draws[:0]).shape == (0, *images.shape[1:])


def test_draws_are_uniform_replayable_and_prefix_stable() -> None:
    draws = draw(np.random.default_rng(0), 28_000)
    again = draw(np.random.default_rng(0), 28_000)
    assert np.array_equal(draws.op, again.op)
    assert np.array_equal(draws.sign, again.sign)
    assert (draws.op.dtype, draws.sign.dtype, draws.op.shape) == (np.int64, np.bool_, (28_000, 2))
    table = np.zeros((len(OPS), 2))
    np.add.at(table, (draws.op, draws.sign.astype(int)), 1)
    assert abs(table / 2000 - 1).max() < 0.1  # 2000 expected, standard deviation 44
    first = draw(np.random.default_rng(0), 100)
    assert np.array_equal(first.op, draws[:100].op)
    assert np.array_equal(first.sign, draws[:100].sign)


@pytest.mark.parametrize(
    ("shape", "dtype", "draws", "magnitude", "text"),
    [
        ((2, 3, 8, 8), torch.float32, constant(0, False, 2), 9, "uint8"),
        ((2, 4, 8, 8), torch.uint8, constant(0, False, 2), 9, "1 or 3"),
        ((3, 8, 8), torch.uint8, constant(0, False, 3), 9, "1 or 3"),
        ((2, 3, 8, 8), torch.uint8, constant(0, False, 3), 9, "do not fit 2 images"),
        ((2, 3, 8, 8), torch.uint8, constant(0, False, 2), 31, "magnitude 31"),
        ((1, 3, 8, 8), torch.uint8, constant(len(OPS), False, 1), 9, "operations"),
    ],
)
def test_misuse_is_refused(shape: tuple[int, ...], dtype: torch.dtype, draws: Draws, magnitude: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        apply(torch.zeros(shape, dtype=dtype), draws, magnitude)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu() -> None:
    for channels in (1, 3):
        images = samples("smooth", 200, channels, 32, 32)
        draws = draw(np.random.default_rng(2), len(images))
        assert torch.equal(apply(images.cuda(), draws).cpu(), apply(images, draws))
