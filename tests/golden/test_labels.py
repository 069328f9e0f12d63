"""Labels and losses of the published code, and the densification of G-VBSM."""

from typing import Any

import numpy as np
import pytest
import torch
from support.published import LOSS, checks, close
from torch import nn

from edc.condense.densify import spectrum_divergence
from edc.config.protocol import LabelChoices, Loss
from edc.training.ensembles import norm_mean, plain_mean
from edc.training.label_store import label_bytes
from edc.training.losses import student_loss
from edc.training.teachers import joint_label, teacher_logits


@checks("edc.soft_label_and_loss", "fkd_and_mixing.kd_losses")
def test_losses_of_students(case: dict[str, Any]) -> None:
    names = {"student_logits": "student", "mean_logits": "teacher", "hard_targets": "targets"}
    names["kl_T20_batchmean"] = "kl_batchmean_T20"
    case = {names.get(key, key): value for key, value in case.items()}
    student, teacher, labels = (torch.tensor(case[name]) for name in ("student", "teacher", "targets"))

    def loss(**settings: Any) -> float:
        return float(student_loss(student, teacher, labels, Loss(**settings)))

    assert loss(name="mse_ce", ce_weight=0) == pytest.approx(case["mse"], abs=1e-6)
    weighted = [key for key in case if key.startswith("mse_gt_w")]
    divergences = [key for key in case if key.startswith("kl_batchmean_T")]
    assert (len(weighted), len(divergences)) in ((2, 1), (3, 5))
    for key in weighted:
        weight = float(key.removeprefix("mse_gt_w").replace("_", "."))
        assert loss(name="mse_ce", ce_weight=weight) == pytest.approx(case[key], abs=1e-6), key
    for key in divergences:
        temperature = int(key.removeprefix("kl_batchmean_T"))
        assert loss(name="kl", temperature=temperature) == pytest.approx(case[key], abs=1e-7), key
    if "kl_T20_times_T2" in case:
        squared = loss(name="kl", temperature=20, squared=True)
        # Theirs differ from each other by float32 rounding, times 400.
        assert squared == pytest.approx(case["kl_T20_times_T2"], abs=2e-5)
        assert squared == pytest.approx(case["tiny_variant_log_target_T20_times_T2"], abs=1e-6)
    assert float(student_loss(student, None, labels, Loss())) == pytest.approx(case["ce"], abs=1e-6)


@checks("edc.soft_label_and_loss")
def test_mean_logits(case: dict[str, Any]) -> None:
    teachers = []
    for logits in case["teacher_logits(3 teachers,2 samples,4 classes)"]:
        teachers.append(nn.Linear(2, 4, bias=False))  # image i of two is the i-th unit vector
        teachers[-1].weight.data = torch.tensor(logits).T.contiguous()
    result = joint_label(teacher_logits(teachers, torch.eye(2)), "mean")
    assert result.dtype == torch.float16
    assert result.tolist() == case["as_fp16"]
    close(result.float(), case["mean_logits"], atol=1e-3)


@checks("fkd_and_mixing.fp16_label_roundtrip")
def test_labels_in_half_precision(case: dict[str, Any]) -> None:
    stored = joint_label(torch.tensor([case["teacher"]]), LabelChoices().ensemble)
    assert stored.dtype == torch.float16
    assert stored.tolist() == case["half"]


@checks("fkd_and_mixing.fkd_storage_GB")
def test_bytes_of_labels(case: dict[str, float]) -> None:
    classes = {"in1k": 1000, "in21k": 10_450, "tiny": 200, "cifar100": 100, "cifar10": 10}
    for name, expected in case.items():
        data, ipc, epochs = name.split("_")
        shape = [int(epochs[1:]), classes[data] * int(ipc[3:]), classes[data]]
        assert round(label_bytes("soft", shape) / 1e9, 2) == expected, name


@checks("gvbsm.logit_ensemble_in1k")
def test_labels_of_several_observers(case: dict[str, Any]) -> None:
    logits = torch.tensor(case["logits_model_batch_class"])
    close(logits.flatten(1).norm(dim=1), case["frobenius"], **LOSS)
    close(norm_mean(logits), case["result"])
    close(plain_mean(logits), case["plain_mean_used_for_cifar_tiny"])


@checks("gvbsm.data_densification")
def test_data_densification(case: dict[str, Any]) -> None:
    x = (0.05 * (((torch.arange(192) * 31) % 17).float() / 17 - 0.5)).view(4, 3, 4, 4).requires_grad_()
    labels, tolerance = torch.tensor(case["targets"]), {"rtol": 0, "atol": case["tolerance"]}
    loss = spectrum_divergence(x, labels, case["tau"])
    loss.backward()
    close(loss.detach(), case["total"], **tolerance)
    close(x.grad.norm(), case["grad_l2"], **tolerance)
    for c, expected in case["per_class"].items():
        own = labels == int(c)
        close(spectrum_divergence(x.detach()[own], labels[own], case["tau"]), expected["kl"], **tolerance)


@checks("gvbsm.data_densification_ipc1")
def test_data_densification_of_single_images(case: float) -> None:
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert float(spectrum_divergence(x, torch.arange(3), 4.0)) == case


@checks("gvbsm.data_densification_saturation")
def test_data_densification_of_smooth_images(case: dict[str, Any]) -> None:
    """And of noise at 32 px, whose gradient is nearly nothing, as theirs: thousands lie between its eigenvalues."""
    y, x = torch.meshgrid(*[torch.linspace(0, 1, 32)] * 2, indexing="ij")
    waves = [
        torch.stack([1.5 * torch.sin((1 + 0.3 * i) * 6 * y + c) * torch.cos((1 + 0.2 * i) * 5 * x) for c in range(3)])
        for i in range(10)
    ]
    smooth = torch.stack(waves).requires_grad_()
    labels = torch.zeros(10, dtype=torch.int64)
    loss = spectrum_divergence(smooth, labels, 4.0)
    loss.backward()
    expected = case["smooth_images_10x3x32x32"]
    close(loss.detach(), expected["kl"], rtol=0, atol=1e-4)
    close(smooth.grad.norm(), expected["grad_l2"], rtol=0, atol=1e-3)

    lengths = []
    for seed in range(10):
        noise = torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        spectrum_divergence(noise, labels, 4.0).backward()
        lengths.append(float(noise.grad.norm()))
    close(float(np.median(lengths)), case["cifar_10x3x32x32"]["median_grad_l2"], rtol=0.1, atol=0)
