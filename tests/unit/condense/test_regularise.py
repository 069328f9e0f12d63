"""Regularisers of synthesis: flatness by averaged images, and data densification against its formula."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edc.condense.densify import densification, same_size_classes, spectrum_divergence, vectors
from edc.condense.regularise import average_images, flatness
from edc.config.choices import Regularise


def test_golden_flatness(golden: dict[str, Any]) -> None:
    case = golden["flatness_kl"]
    logits, averaged = torch.tensor(case["logits_syn"]), torch.tensor(case["logits_ema"])
    element = flatness(logits, averaged, case["tau"], "element_mean")
    batch = flatness(logits, averaged, case["tau"], "batch_mean")
    assert float(element) == pytest.approx(case["kl_default_mean_over_elements (code)"], abs=1e-6)
    assert float(batch) == pytest.approx(case["kl_batchmean"], abs=1e-6)
    assert float(batch) * len(logits) == pytest.approx(case["kl_elementwise_sum"], abs=1e-6)


def test_flatness_pulls_only_the_present_answers() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    averaged = torch.tensor([[1.0, 0.5, -1.0]])
    flatness(logits, averaged, 4.0, "batch_mean").backward()
    # d/dz KL(p || softmax(z / tau)) = (softmax(z / tau) - p) / tau
    expected = (torch.softmax(logits.detach() / 4, 1) - torch.softmax(averaged / 4, 1)) / 4
    torch.testing.assert_close(logits.grad, expected, rtol=1e-4, atol=1e-7)
    assert float(flatness(averaged, averaged, 4.0, "batch_mean")) == pytest.approx(0, abs=1e-7)


def test_golden_averaged_images(golden: dict[str, Any]) -> None:
    case = golden["image_ema"]
    averaged = torch.tensor(case["init"])
    for images, expected in zip(case["updates"], case["values_after_each"], strict=True):
        result = average_images(averaged, torch.tensor(images, requires_grad=True), case["beta"])
        assert result is averaged
        assert not result.requires_grad
        torch.testing.assert_close(result, torch.tensor(expected), rtol=0, atol=1e-6)


def views(n: int, size: int = 8, strength: float = 0.05, seed: int = 0) -> Tensor:
    return strength * torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def plain(x: Tensor, labels: Tensor, tau: float, normalise: bool) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for c in labels.unique():
        own = F.adaptive_avg_pool2d(x[labels == c].double(), 32).flatten(1)
        gram = own @ own.T / (own.shape[1] if normalise else 1)
        eigenvalues = torch.linalg.eigvals(gram).real
        target = (eigenvalues / tau).softmax(0).detach()
        total = total + (target * (target.log() - eigenvalues.log_softmax(0))).sum()
    return total


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_sum_over_classes_of_any_size(labels: list[int], normalise: bool, seed: int) -> None:
    classes = torch.tensor(labels)
    x = views(len(labels), strength=2.0 if normalise else 0.05, seed=seed).requires_grad_()
    loss = spectrum_divergence(x, classes, 4.0, normalise)
    expected = plain(x, classes, 4.0, normalise)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)
    if loss.requires_grad:
        result, wanted = (torch.autograd.grad(term, x)[0] for term in (loss, expected))
        torch.testing.assert_close(result, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 4), (16, 16), (32, 32), (33, 47), (64, 64), (224, 224)])
def test_pooling_is_that_of_the_library(shape: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(vectors(x), F.adaptive_avg_pool2d(x, 32).flatten(1), rtol=1e-5, atol=1e-6)


def test_classes_of_one_size_are_solved_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert same_size_classes([1, 0, 1, 0, 2, 3, 3, 3]) == [[[0, 2], [1, 3]], [[5, 6, 7]]]
    solved = []
    solve = torch.linalg.eigvalsh
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda gram: solved.append(tuple(gram.shape)) or solve(gram))
    spectrum_divergence(views(12), torch.arange(4).repeat_interleave(3), 4.0)
    assert solved == [(4, 3, 3)]


@pytest.mark.parametrize("normalise", [False, True])
def test_as_a_regulariser(normalise: bool) -> None:
    x, labels = views(4), torch.tensor([0, 0, 1, 1])
    settings = Regularise(method="densification", tau=3.0, normalise=normalise)
    visit = cast(Any, SimpleNamespace(view=x, labels=labels, groups=1, settings=settings))
    alone = spectrum_divergence(x, labels, 3.0, normalise)
    assert torch.equal(densification(visit), alone[None])
    twice = cast(Any, SimpleNamespace(view=torch.cat([x, x]), labels=labels.repeat(2), groups=2, settings=settings))
    torch.testing.assert_close(densification(twice), alone.expand(2))
