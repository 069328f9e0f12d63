"""The answer: its sentences agree with the record, verdicts need an interval, and what is untrained is marked."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import laboratory as lab
from support.record import Row, evaluation, frame, text

from edc.config.rows import Plan
from edc.reporting.answer import Answer, answer_page, answers, compared, images_for
from edc.reporting.figures import accuracy_over_ipc

FULL: Row = {"ipc": 0, "regime": "hard", "protocol": "real_data", "image_bytes": 1437 * 64, "steps": 900}
HARD: Row = {"regime": "hard", "protocol": "hard_label"}


def answer(*runs: list[Row], right: Any = None, courses: Any = None) -> Answer:
    """The answer to a study of digits, eight pixels a side and grey, with these evaluations."""
    record = frame(*runs)
    keys = list(dict.fromkeys(record["run"]))
    row = lab.STUDENT | lab.FULL | {"dataset": "digits"}
    values = {"studies": {"mine": {"evaluate": keys}}, "datasets": {"digits": lab.DATA | {"name": "digits"}}}
    plan = Plan.model_validate(values | {"evaluate": dict.fromkeys(keys, row)})
    (made,) = answers(plan, compared(plan, record, right, courses))
    return made


def test_the_sentences_agree_with_the_record() -> None:
    runs = [evaluation("random", 65, 67, 69), evaluation("edc", 60, 61, 62), evaluation("full", 95, 96, 97, **FULL)]
    runs += [evaluation("random", 69, 70, 71, **HARD), evaluation("edc", 40, 41, 42, ipc=1, image_bytes=640)]
    made = answer(*runs)
    assert made.heading == "Study mine: digits, student resnet18"
    one, ten, whole = made.sentences.values()
    assert one[0] == "Protocol edc, soft labels: EDC's 10 images reach 41.0 % (± 1.0)."
    everything = "All training images, with hard labels (protocol real_data): 96.0 % (± 1.0)."
    assert one[1] == ten[1] == everything
    assert one[2] == "Random images did not run under this protocol: no verdict."
    assert ten[0] == (
        "Protocol edc, soft labels: 100 of the 1,437 training images, chosen at random, reach 67.0 % (± 2.0); "
        "EDC's 100 images reach 61.0 % (± 1.0)."
    )
    best = "Best set here: random (hard labels, protocol hard_label), 70.0 % (± 1.0), no difference shown to random"
    starts = ["Random selection is ahead of EDC by 6.0 points (95 % interval ", best]
    starts += ["Training on all images is ahead of this set by 26.0 points (95 % interval "]
    starts += ["Cost: EDC's images 6.4 kB, labels 240.0 kB; 12 s for"]
    assert [text[: len(start)] for text, start in zip(ten[2:], starts, strict=True)] == starts
    assert whole == [
        "They reach 96.0 % (± 1.0) in 900 steps and take 92.0 kB.",
        "To reach 86.4 % (90 % of the accuracy of all images), in images per class: random images more than 10, "
        "EDC more than 10.",
    ]
    page = answer_page([made])
    assert all(f"\n- {sentence}\n" in page for sentence in (*one, *ten, *whole))


def test_one_seed_gives_no_verdict() -> None:
    (sentences, _) = answer(evaluation("edc", 60), evaluation("random", 70)).sentences.values()
    assert "One seed: no verdict between EDC and random selection (-10.0 points)." in sentences
    assert not any("ahead" in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("recipe", "start"),
    [("gvbsm", "GVBSM's 100 images reach 60.0 %"), ("random", "100 training images, chosen at random")],
)
def test_one_set_alone_has_an_answer(recipe: str, start: str) -> None:
    sentences, whole = answer(evaluation(recipe, 59, 60, 61)).sentences.values()
    assert f": {start}" in sentences[0]
    assert whole == ["What they reach is not known: recipe `full` did not run with this student."]


def test_the_interval_is_paired_where_it_is_stored_which_images_are_right() -> None:
    runs = [evaluation("edc", 80, 80, 80), evaluation("random", 77, 77, 77)]
    keys = [run[0]["run"] for run in runs]
    right = {key: np.arange(1000) < np.full((3, 1), count) for key, count in zip(keys, (800, 770), strict=True)}
    for stored, verdict in (
        (None, ["+3.0", "-0.6 to +6.6, estimated from spreads", "no difference shown"]),
        (right, ["+3.0", "+2.0 to +4.1", "edc is ahead"]),
    ):
        assert answer(*runs, right=stored).verdicts.iloc[0, -3:].tolist() == verdict


@pytest.mark.parametrize(
    ("accuracies", "course", "classes", "images", "marked"),
    [
        ((50, 50), [40, 47.9, 50], 10, 1000, True),
        ((50, 50), [40, 48, 50], 10, 1000, False),
        ((50, 50), [40, 45.1, 50], 10, 100, False),
        ((50, 50), [40, 44.9, 50], 10, 100, True),
        ((14, 15.9), [14, 15], 10, 1000, True),
        ((14, 16), [14, 15], 10, 1000, False),
        ((14, 15), [14, 15], None, 1000, False),
        ((50, 50), [50], 10, 1000, False),
        ((50, 50), [], 10, 1000, False),
    ],
)
def test_a_student_that_improves_or_is_near_chance_is_marked(
    accuracies: Any, course: list[float], classes: int | None, images: int, marked: bool
) -> None:
    run = evaluation("edc", *accuracies, classes=classes, test_images=images)
    courses = pd.DataFrame({"run": run[0]["run"], "epoch": range(len(course)), "accuracy": course})
    made = answer(run, courses=courses)
    assert ("not trained to the end: 480 steps)" in made.sentences["10 images per class"][0]) == marked
    if len(course) < 2 or classes is None:
        return
    near = min(accuracies) < 20
    assert ("(not trained to the end: 480 steps) |" in text("table1", run)) == (marked and near), "without courses"


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        ({1: 90}, "1"), ({5: 90}, "5 or fewer"), ({1: 50, 10: 80}, "more than 10"), ({1: 80, 10: 90}, "about 4"),
        ({1: 80, 10: 85, 100: 85.5}, "about 10"), ({1: 70, 10: 60, 100: 85}, "about 100"),
    ],
)  # fmt: skip
def test_how_many_images_reach_an_accuracy(accuracies: dict[int, float], words: str) -> None:
    assert images_for(pd.Series(accuracies), 85.0) == words


def test_the_curve_has_a_line_for_each_set_and_for_all_images() -> None:
    runs = [evaluation("edc", 60, 61, ipc=i) for i in (1, 10)] + [evaluation("edc", 50, 51, protocol="rded")]
    runs += [evaluation("random", 70, **HARD), evaluation("full", 95, 96, **FULL)]
    (axes,) = accuracy_over_ipc({"a: b": answer(*runs).cells}).axes
    lines = {line.get_label(): np.asarray(line.get_ydata(), dtype=float).tolist() for line in axes.lines}
    assert lines == {"edc soft": [60.5, 60.5], "random hard": [70.0], "all images": [95.5, 95.5]}
