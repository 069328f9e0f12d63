"""Learning-rate schedules against golden values."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edc.config.choices import SCHEDULE, Schedule
from edc.training.schedules import alrs, cosine_iteration, multiplier

RATE = {"abs": 1e-9, "rel": 0}


def assert_rates(schedule: Schedule, epochs: int, base: float, expected: dict[str, float]) -> None:
    assert expected
    for epoch, rate in expected.items():
        assert base * multiplier(schedule, int(epoch), epochs) == pytest.approx(rate, **RATE), epoch


def test_golden_smoothing(golden: dict[str, Any]) -> None:
    cases = golden["lr_schedules"]["paper_smoothing_multiplier"]
    for name, expected in cases.items():
        zeta, epochs = (part.split("=")[1] for part in name.split(","))
        assert_rates(Schedule(name="smoothing", zeta=float(zeta)), int(epochs), 1.0, expected)
    assert len(cases) == 5


def test_golden_ssrs(golden: dict[str, Any]) -> None:
    cases = golden["lr_schedules"]["paper_ssrs_multiplier"]
    for name, expected in cases.items():
        zeta, epochs = (part.split("=")[1] for part in name.split(","))
        assert_rates(Schedule(name="ssrs", zeta=float(zeta)), int(epochs), 1.0, expected)
    assert len(cases) == 2
    assert_rates(Schedule(name="ssrs", zeta=2.0), 1000, 1.0, golden["lr_schedules"]["ssrs_N1000_zeta2"])


@pytest.mark.parametrize(
    ("branch", "case", "schedule", "epochs", "base"),
    [
        # The schedule that the published ImageNet-1k code names cosine is linear.
        ("ImageNet1k_branch", "ls=cos st=2 E=300 lr=1e-3 (BUG: linear)", "linear_zeta", 300, 1e-3),
        ("ImageNet1k_branch", "ls=linear st=2 E=300 lr=1e-3", "linear_zeta", 300, 1e-3),
        ("ImageNet1k_branch", "ls=cos2 st=2 E=300 lr=1e-3", "ssrs", 300, 1e-3),
        ("direct_train(CIFAR10)", "ls=cos st=2 E=300 lr=1e-3", "smoothing", 300, 1e-3),
        ("direct_train(CIFAR10)", "ls=cos2 st=2 E=1000 lr=0.1", "ssrs", 1000, 0.1),
        ("direct_train(CIFAR10)", "ls=multisteplr E=1000 lr=1e-3", "multistep", 1000, 1e-3),
    ],
)
def test_golden_as_executed(
    branch: str, case: str, schedule: str, epochs: int, base: float, golden: dict[str, Any]
) -> None:
    cases = golden["lr_schedules"][f"as_executed_{branch}"]
    assert len(cases) == 3
    assert_rates(Schedule(name=schedule, zeta=2.0), epochs, base, cases[case])


def test_golden_cosine_of_synthesis(golden: dict[str, Any]) -> None:
    cases = golden["recover_lr_cosine"]
    for name, expected in cases.items():
        base, iterations = (part.split("=")[1] for part in name.split(","))
        for k, rate in expected.items():
            assert float(base) * cosine_iteration(int(k), int(iterations)) == pytest.approx(rate, **RATE)
    assert len(cases) == 3


def test_golden_alrs(golden: dict[str, Any]) -> None:
    case = golden["alrs"]
    for seen, rate in enumerate(case["lr_after_each"], 1):
        losses = case["losses"][:seen]
        assert 1e-3 * alrs(losses, case["decay"]) == pytest.approx(rate, **RATE)
        assert 1e-3 * multiplier(Schedule(name="alrs"), seen, 100, losses) == pytest.approx(rate, **RATE)


def test_alrs_survives_a_loss_of_zero() -> None:
    """Cross-entropy of a memorised set becomes exactly 0 in float32."""
    assert 0 < alrs([1.0, 0.0, 0.0, 0.0]) <= 1


@given(st.sampled_from(sorted(SCHEDULE)), st.floats(1, 4), st.integers(1, 400), st.floats(0, 1), st.floats(0.01, 10))
@settings(max_examples=100, deadline=None)
def test_factors_start_at_one_and_only_fall(name: str, zeta: float, epochs: int, at: float, loss: float) -> None:
    schedule = Schedule(name=name, zeta=zeta)
    epoch = int(at * (epochs - 1))
    losses = [loss] * epochs
    now, then = (multiplier(schedule, e, epochs, losses[:e]) for e in (epoch, epoch + 1))
    assert multiplier(schedule, 0, epochs) == 1
    assert 0 <= now <= 1
    if epoch + 1 < epochs:
        assert then <= now


@pytest.mark.parametrize("epochs", [100, 200, 1000])
def test_milestones_are_shares_of_the_epochs(epochs: int) -> None:
    schedule = Schedule(name="multistep", milestones=[0.07, 0.14, 0.29, 0.55], factor=0.1)
    assert 0.55 * 100 > 55  # shares of whole epochs need not be whole in binary
    for count, share in enumerate(schedule.milestones, 1):
        epoch = round(share * epochs)
        assert multiplier(schedule, epoch - 1, epochs) == pytest.approx(0.1 ** (count - 1))
        assert multiplier(schedule, epoch, epochs) == pytest.approx(0.1**count)
