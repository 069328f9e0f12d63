"""DD-Ranking's scores against golden values, on both scales, and their table."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import golden
from support.record import evaluation, ran

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
    # The weight is the improvement's: 0.25 x 0.4 - 0.75 x 0.8 = -0.5
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


# The table of scores

HARD: dict[str, Any] = {"regime": "hard", "protocol": "hard_label"}
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "real_hard": ("full", {"ipc": 0, "regime": "hard", "protocol": "real_data"}),
    "condensed_hard": ("rded", HARD),
    "condensed_own": ("rded", {"protocol": "rded"}),
    "baseline_own": ("random", {"protocol": "rded"}),
}


def part(name: str, accuracy: float, **values: Any) -> list[dict[str, Any]]:
    recipe, row = PARTS[name]
    return evaluation(recipe, accuracy, **row | values)


def test_a_score_of_four_evaluations() -> None:
    accuracies = {"real_hard": 75.0, "condensed_hard": 45.0, "condensed_own": 60.0, "baseline_own": 50.0}
    runs = [part(name, accuracy) for name, accuracy in accuracies.items()]
    runs += [evaluation("rded", 99.0), evaluation("edc", 70.0, student="resnet50")]
    lines = {line["recipe"]: line for line in ran("scores", *runs)}
    # a = 0.5 x 0.1 - 0.5 x 0.3 = -0.1, and (e^-0.1 - e^-1) / (e - e^-1) = 0.2285 (golden: 0.22845364)
    assert lines["rded"] == {
        "dataset": "digits", "recipe": "rded", "ipc": 10, "student": "resnet18", "protocol": "rded", "real_hard": 0.75,
        "condensed_hard": 0.45, "condensed_own": 0.6, "baseline_own": 0.5, "hlr": 0.3, "ior": 0.1, "lrs": 0.2285,
    }  # fmt: skip
    assert set(lines["random"]) == {"dataset", "recipe", "ipc", "student", "protocol", "real_hard"}
    assert "real_hard" not in lines["edc"], "the whole dataset was given to another student"
    assert "full" not in lines


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        ("real_hard", {"condensed_hard", "condensed_own", "baseline_own", "ior"}),
        ("condensed_hard", {"real_hard", "condensed_own", "baseline_own", "ior"}),
        ("condensed_own", {"real_hard", "condensed_hard", "hlr"}),
        ("baseline_own", {"real_hard", "condensed_hard", "condensed_own", "hlr"}),
    ],
)
def test_a_score_is_empty_where_a_component_did_not_run(missing: str, left: set[str]) -> None:
    """The same student elsewhere, and another student here, don't fill the gap."""
    runs = [part(name, 40.0) for name in PARTS if name != missing]
    runs += [part(name, 10.0, dataset="cifar10") for name in PARTS]
    runs += [part(name, 10.0, student="resnet50") for name in PARTS if name != "condensed_own"]
    lines = [line for line in ran("scores", *runs) if (line["dataset"], line["student"]) == ("digits", "resnet18")]
    line = next(line for line in lines if line["recipe"] == "rded")
    assert set(line) - {"dataset", "recipe", "ipc", "student", "protocol"} == left


def test_the_augmentation_robust_score_needs_students_without_augmentation() -> None:
    bare = {"protocol": "no_augmentation"}
    runs = [part("condensed_own", 60.0), part("baseline_own", 50.0), evaluation("rded", 45.0, **bare)]
    lines = {line["recipe"]: line for line in ran("scores", *runs)}
    assert "ars" not in lines["rded"]
    runs += [evaluation("random", 41.0, **bare), part("real_hard", 75.0), part("condensed_hard", 45.0)]
    line = {line["recipe"]: line for line in ran("scores", *runs)}["rded"]
    assert (line["condensed_plain"], line["baseline_plain"], line["ior_plain"]) == (0.45, 0.41, 0.04)
    # a = (0.1 + 0.04) / 2
    assert line["ars"] == pytest.approx((math.exp(0.07) - math.exp(-1)) / (math.e - math.exp(-1)), abs=5e-5)
    assert line["lrs"] == 0.2285, "as without those students"
