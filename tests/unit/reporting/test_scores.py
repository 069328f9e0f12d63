"""DD-Ranking's scores against golden values, on both scales."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import golden

from edc.reporting.scores import augmentation_robust_score, label_robust_score, squashed

EXACT = {"abs": 5e-9, "rel": 0}  # the golden values have eight decimals


@pytest.fixture(scope="module")
def ranking() -> dict[str, Any]:
    values: dict[str, Any] = golden("baselines")["dd_ranking"]
    return values


def test_label_robust_score_of_fractions(ranking: dict[str, Any]) -> None:
    cases = ranking["fraction_scale"]
    assert len(cases) == 6
    for case in cases:
        assert label_robust_score(case["ior"], case["hlr"], case["w"]) == pytest.approx(case["lrs"], **EXACT), case


def test_the_weight_is_the_improvements() -> None:
    # 0.25 x 0.4 - 0.75 x 0.8 = -0.5
    expected = (math.exp(-0.5) - math.exp(-1)) / (math.e - math.exp(-1))
    assert label_robust_score(0.4, 0.8, weight=0.25) == pytest.approx(expected, abs=1e-12)


def test_percentages_give_what_the_published_code_gives_and_are_refused_here(ranking: dict[str, Any]) -> None:
    cases = ranking["percent_scale_as_implemented"]
    assert len(cases) == 5
    for case in cases:
        exponent = (case["ior_pct"] - case["hlr_pct"]) / 2
        assert squashed(exponent) == pytest.approx(case["lrs"], **EXACT), case
        if exponent:
            assert not 0 <= squashed(exponent) <= 1
            with pytest.raises(ValueError, match="-1 to 1"):
                label_robust_score(case["ior_pct"], case["hlr_pct"])


def test_augmentation_robust_score(ranking: dict[str, Any]) -> None:
    (case,) = ranking["ars_fraction"]
    augmented, plain = case["syn_aug"] - case["rdm_aug"], case["syn_noaug"] - case["rdm_noaug"]
    # beta is the exponent itself: 0.5 x -0.007 + 0.5 x 0.05.
    assert case["beta"] == pytest.approx(0.5 * augmented + 0.5 * plain, abs=1e-12)
    assert augmentation_robust_score(augmented, plain, weight=case["gamma"]) == pytest.approx(case["ars"], **EXACT)
    # Each part counts with its own weight.
    assert augmentation_robust_score(augmented, plain, weight=0.0) == pytest.approx(squashed(0.05), abs=1e-12)
    assert augmentation_robust_score(augmented, plain, weight=1.0) == pytest.approx(squashed(-0.007), abs=1e-12)


@pytest.mark.parametrize("value", [-1.01, 1.01, 45.0, math.nan])
def test_what_is_no_difference_of_fractions_is_refused(value: float) -> None:
    for score in (label_robust_score, augmentation_robust_score):
        for arguments in ((value, 0.5), (0.5, value)):
            with pytest.raises(ValueError, match=f"= {value}: expected a difference of fractions, -1 to 1"):
                score(*arguments)


@given(ior=st.floats(-1, 1), hlr=st.floats(-1, 1))
def test_the_score_lies_between_0_and_1_and_rewards_both(ior: float, hlr: float) -> None:
    score = label_robust_score(ior, hlr)
    assert 0 <= score <= 1
    if ior < 0.99:
        assert label_robust_score(ior + 0.01, hlr) > score
    if hlr < 0.99:
        assert label_robust_score(ior, hlr + 0.01) < score
