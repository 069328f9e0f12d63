"""Flatness regularisation and the averaged images."""

from typing import Any

import pytest
import torch

from edc.condense.regularise import average_images, flatness


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
