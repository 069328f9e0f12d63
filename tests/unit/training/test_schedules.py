"""Laws of the learning-rate schedules; their values are in golden/test_rates.py."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edc.config.choices import SCHEDULE, Schedule
from edc.training.schedules import alrs, multiplier


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
