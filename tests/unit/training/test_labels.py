"""Labels of several observers."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edc.training.ensembles import norm_mean, plain_mean


def logits(m: int, b: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(m, b, k, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(2, 6), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_every_observer_counts_alike(m: int, b: int, k: int, seed: int) -> None:
    """Written plainly; and scaling one observer changes all labels by one factor, not their proportions."""
    result = logits(m, b, k, seed)
    norms = [float(part.square().sum().sqrt()) for part in result]
    mean = sum(norms) / m
    expected = sum(part * (mean / norm) for part, norm in zip(result, norms, strict=True)) / m
    torch.testing.assert_close(norm_mean(result), expected, rtol=1e-4, atol=1e-5)
    loud = result.clone()
    loud[0] *= 7
    ratio = (mean * m + 6 * norms[0]) / (mean * m)
    torch.testing.assert_close(norm_mean(loud), norm_mean(result) * ratio, rtol=1e-4, atol=1e-4)


def test_one_observer_is_left_as_it_is() -> None:
    result = logits(1, 3, 4)
    torch.testing.assert_close(norm_mean(result), result[0])
    assert torch.equal(plain_mean(result), result[0])


def test_an_observer_with_zero_logits() -> None:
    result = logits(2, 3, 4)
    result[1] = 0
    torch.testing.assert_close(norm_mean(result), result[0] / 4)
    assert torch.equal(norm_mean(torch.zeros(2, 3, 4)), torch.zeros(3, 4))
