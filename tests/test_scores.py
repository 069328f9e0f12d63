"""DD-Ranking's scores against golden values, on both scales."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edc.reporting.scores import (
    augmentation_robust_score,
    hard_label_recovery,
    improvement_over_random,
    label_robust_score,
    squashed,
    trainings,
)

EXACT = {"abs": 5e-9, "rel": 0}  # the golden values have eight decimals


@pytest.fixture(scope="module")
def ranking() -> dict[str, Any]:
    text = (Path(__file__).parent / "golden" / "baselines.json").read_text()
    values: dict[str, Any] = json.loads(text)["dd_ranking"]
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
    # beta is the exponent itself: 0.5 x -0.007 + 0.5 x 0.05.
    assert case["beta"] == pytest.approx(0.5 * (0.42 - 0.427) + 0.5 * (0.3 - 0.25), abs=1e-12)
    parts = [case[name] for name in ("syn_aug", "rdm_aug", "syn_noaug", "rdm_noaug")]
    assert augmentation_robust_score(*parts, weight=case["gamma"]) == pytest.approx(case["ars"], **EXACT)
    # Each part counts with its own weight: without augmentation alone it is 0.05, with it alone -0.007.
    assert augmentation_robust_score(*parts, weight=0.0) == pytest.approx(squashed(0.05), abs=1e-12)
    assert augmentation_robust_score(*parts, weight=1.0) == pytest.approx(squashed(-0.007), abs=1e-12)


def test_trainings_of_one_score(ranking: dict[str, Any]) -> None:
    counts = ranking["trainings_per_score"]
    searched = {
        "lrs_hard_default": (2, 0),
        "lrs_soft_default": (3, 0),
        "lrs_soft_with_syn_lr": (2, 1),
        "ars_default": (4, 0),
        "ars_with_syn_lr": (2, 2),
    }
    assert set(counts) == set(searched)
    for name, parts in searched.items():
        assert trainings(*parts) == counts[name]["five_evals"], name
        assert trainings(*parts, evaluations=1) == counts[name]["per_eval"], name


def test_components_are_differences_of_fractions() -> None:
    assert hard_label_recovery(0.95, 0.60) == pytest.approx(0.35)
    assert improvement_over_random(0.45, 0.50) == pytest.approx(-0.05)


@pytest.mark.parametrize("value", [-0.01, 1.01, 45.0, math.nan])
def test_what_is_no_fraction_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="real_hard"):
        hard_label_recovery(value, 0.5)
    with pytest.raises(ValueError, match="condensed_hard"):
        hard_label_recovery(0.5, value)
    with pytest.raises(ValueError, match=r"condensed ="):
        improvement_over_random(value, 0.5)
    with pytest.raises(ValueError, match="random"):
        improvement_over_random(0.5, value)


@given(ior=st.floats(-1, 1), hlr=st.floats(-1, 1))
def test_the_score_lies_between_0_and_1_and_rewards_both(ior: float, hlr: float) -> None:
    score = label_robust_score(ior, hlr)
    assert 0 <= score <= 1
    if ior < 0.99:
        assert label_robust_score(ior + 0.01, hlr) > score
    if hlr < 0.99:
        assert label_robust_score(ior, hlr + 0.01) < score
