"""Rates and steps of the published code: of students and of synthesis, and the curriculum of CDA's crops."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from support.published import checks, close, find

from edc.config.choices import Curriculum, Optimise, Schedule
from edc.data.crops import crop_boxes
from edc.training.schedules import alrs, cosine_iteration, multiplier, smallest_crop


def assert_rates(
    schedule: Schedule, epochs: int, expected: dict[str, float], base: float = 1.0, tolerance: float = 1e-9
) -> None:
    assert expected
    for epoch, rate in expected.items():
        assert base * multiplier(schedule, int(epoch), epochs) == pytest.approx(rate, abs=tolerance, rel=0), epoch


@checks("edc.lr_schedules")
def test_schedules_of_the_paper_and_of_its_code(case: dict[str, Any]) -> None:
    for name, count in (("smoothing", 5), ("ssrs", 2)):
        cases = case[f"paper_{name}_multiplier"]
        assert len(cases) == count
        for key, expected in cases.items():
            zeta, epochs = (part.split("=")[1] for part in key.split(","))
            assert_rates(Schedule(name=name, zeta=float(zeta)), int(epochs), expected)
    assert_rates(Schedule(name="ssrs", zeta=2.0), 1000, case["ssrs_N1000_zeta2"])
    # The schedule that the published ImageNet-1k code names cosine is linear.
    for branch, cosine in (("ImageNet1k_branch", "linear_zeta"), ("direct_train(CIFAR10)", "smoothing")):
        cases = case[f"as_executed_{branch}"]
        ours = {"cos": cosine, "cos2": "ssrs", "linear": "linear_zeta", "multisteplr": "multistep"}
        assert len(cases) == 3
        for key, expected in cases.items():
            name, epochs, rate = re.match(r"ls=(\w+) .*E=(\d+) lr=(\S+)", key).groups()
            assert_rates(Schedule(name=ours[name], zeta=2.0), int(epochs), expected, float(rate))


@pytest.mark.parametrize(
    ("path", "choices", "epochs", "base", "tolerance"),
    [
        ("validation_lr.cosine_full_E300", {"zeta": 1}, 300, 1.0, 6e-11),
        ("validation_lr.cosine_half_zeta2_E300", {"zeta": 2}, 300, 1.0, 6e-11),
        ("rded.lr_factor", {"zeta": 2}, 300, 1.0, 6e-11),
        ("validation_lr.tiny_sgd_lr0.2_warm5_E100", {"zeta": 1, "warmup": 5}, 100, 0.2, 1e-12),
        ("validation_lr.tiny_reference_log", {"zeta": 1, "warmup": 5}, 100, 0.2, 1e-12),
        ("validation_lr.cifar100_adamw_lr0.001_T400", {"zeta": 1}, 400, 0.001, 1e-8),
        ("gvbsm.squeeze_tiny_lr0.1_cos50", {"zeta": 1}, 50, 0.1, 1e-8),
    ],
)
def test_cosines_of_the_baselines(
    path: str, choices: dict[str, Any], epochs: int, base: float, tolerance: float
) -> None:
    assert_rates(Schedule(name="smoothing", **choices), epochs, find(path), base, tolerance)


@checks("validation_lr.zeta_general_E300_end_factor")
def test_where_a_stretched_cosine_ends(case: dict[str, float]) -> None:
    for zeta, expected in case.items():
        assert_rates(Schedule(name="smoothing", zeta=float(zeta)), 300, {"299": expected}, tolerance=6e-9)


@checks("edc.alrs")
def test_adaptive_rate(case: dict[str, Any]) -> None:
    for seen, rate in enumerate(case["lr_after_each"], 1):
        losses = case["losses"][:seen]
        for factor in (alrs(losses, case["decay"]), multiplier(Schedule(name="alrs"), seen, 100, losses)):
            assert 1e-3 * factor == pytest.approx(rate, abs=1e-9, rel=0)


@checks("edc.recover_lr_cosine", "sre2l.recover_lr")
def test_rate_of_synthesis(case: dict[str, dict[str, float]]) -> None:
    for name, rates in case.items():
        base, iterations = re.search(r"(?:base=|lr)([\d.]+)(?:,N=|_T)(\d+)$", name).groups()
        for iteration, rate in rates.items():
            result = float(base) * cosine_iteration(int(iteration), int(iterations))
            assert result == pytest.approx(rate, abs=6e-11, rel=0), (name, iteration)


@checks("edc.adam_image_step", "sre2l.adam_toy")
def test_pixel_optimiser(case: dict[str, Any]) -> None:
    """Adam as the engine makes it, with a recipe's defaults: for given gradients, and on x^2 under its schedule."""
    gradients, trajectory = case.get("grads"), case.get("x_after_each") or case["trajectory"]
    settings = Optimise(iterations=len(trajectory), **({} if gradients else {"lr": 0.25}))
    assert list(settings.betas) == case["betas"]
    assert settings.lr == case["lr"] or not gradients
    x = torch.tensor(case["x0"], requires_grad=True)
    adam = torch.optim.Adam([x], lr=settings.lr, betas=settings.betas, eps=case["eps"])
    for k, expected in enumerate(trajectory):
        if gradients:
            x.grad = torch.tensor(gradients[k])
        else:
            adam.param_groups[0]["lr"] = settings.lr * cosine_iteration(k, settings.iterations)
            x.grad = 2 * x.detach()
        adam.step()
        close(x.detach(), expected)


@checks("cda.schedule")
def test_curriculum(case: dict[str, dict[str, float]]) -> None:
    assert len(case) == 45
    for key, curve in case.items():
        iterations, milestone, name = key.removeprefix("T").replace("milestone", "").split("_")
        curriculum = Curriculum(name=name, milestone=float(milestone))
        for iteration, lowest in curve.items():
            result = smallest_crop(curriculum, 0.08, int(iteration), int(iterations))
            assert result == pytest.approx(lowest, abs=1e-9, rel=0), (key, iteration)


@checks("cda.mean_min_crop_over_run")
def test_mean_of_the_curriculum(case: dict[str, float]) -> None:
    for name, expected in case.items():
        curriculum = Curriculum(name=name.split("_")[0], milestone=1.0)
        mean = np.mean([smallest_crop(curriculum, 0.08, t, 4000) for t in range(4000)])
        assert mean == pytest.approx(expected, abs=1e-6), name


@checks("cda.default_milestone_cli", "cda.default_milestone_effect")
def test_a_curriculum_that_is_over_at_once(case: int | str) -> None:
    if isinstance(case, int):
        for name in ("none", "step", "linear", "cosine"):
            assert smallest_crop(Curriculum(name=name, milestone=case), 0.08, 0, 4000) == 0.08
    else:
        # Their program has no curriculum by default; neither has a recipe that does not name one.
        assert "never activates" in case
        assert {smallest_crop(Curriculum(), 0.08, t, 4000) for t in range(0, 4000, 99)} == {0.08}


@checks("cda.crop_area_mc")
def test_areas_of_crops(case: dict[str, Any]) -> None:
    for key, expected in case.items():
        if key == "note":
            continue
        size, lowest = (float(part) for part in key.removeprefix("size").split("_min"))
        boxes = crop_boxes(np.random.default_rng(0), 4000, int(size), (lowest, 1.0))
        areas = boxes[:, 2] * boxes[:, 3] / size**2
        assert areas.mean() == pytest.approx(expected["mean_area"], abs=0.03), key
        assert (areas == 1).mean() == pytest.approx(expected["full_image_fraction"], abs=0.03), key
