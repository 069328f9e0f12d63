"""``results/tables/answer.md`` and the report's first section: is a small set good enough, which one, at what cost?

One answer for every study of the active plan and every dataset and student in it, in sentences made from the record.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from edc.config.rows import Dataset, Plan
from edc.reporting.costs import costs, duration
from edc.reporting.evaluations import DECIMALS, FULL, RANDOM, evaluations, interval, same_images, with_baseline
from edc.reporting.pages import UNTRAINED, device, grid, kilobytes, signed, spread, title, untrained
from edc.reporting.tables import SAME

METHOD = "edc"
SHARE = 0.9
"""Of the accuracy of all training images: how many images per class reach it."""
ESTIMATED = ", estimated from spreads"
NAMED = 4
"""Sets that are named at most beside the best one."""
LEGEND = {
    "±": "Accuracy: top-1, in percent, after the last epoch, ± standard deviation over the seeds.",
    "ahead": "*ahead*: the 95 % interval of the difference (bootstrap over test images and seeds) excludes 0; else *no "
    "difference shown*. One seed gives no verdict.",
    ESTIMATED: "*estimated from spreads*: which images these students get right is not stored; the interval follows "
    "from the standard deviations and the number of test images, and is wider.",
    UNTRAINED: "*not trained to the end*: the accuracy rose by more than 2 points, and more than its standard error "
    "over the test images, at the last evaluation, or is below 1.5 times that of guessing; do not judge the images by "
    "it.",
    "To reach": "Images per class for 90 %: with the best labels at each number, linear over log(IPC) in between.",
}
"""Words of the page and what they mean; those that a page does not use are left out."""


@dataclass(frozen=True)
class Answer:
    """One answer: heading, sentences under a few words each, a line for each set beside random images, evaluations."""

    heading: str
    sentences: dict[str, list[str]]
    verdicts: pd.DataFrame
    cells: pd.DataFrame


def compared(
    plan: Plan, runs: pd.DataFrame, right: Mapping[str, np.ndarray] | None = None, courses: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The plan's evaluations in its order, with baselines among them and what each took from the observers on."""
    planned = runs[runs["run"].isin(list(plan.evaluate))]
    lines = []
    for split in ("test", "val"):
        cells = evaluations(planned, split, right, courses).assign(split=split)
        lines.append(with_baseline(cells, cells[cells["recipe"] == RANDOM], SAME))
    cells = pd.concat([part for part in lines if len(part)] or lines[:1], ignore_index=True)
    limits = [name for name in cells if str(name).startswith(("baseline_", "improvement"))]
    cells.loc[cells["recipe"] == RANDOM, limits] = np.nan
    taken = [costs(plan, runs, key) for key in cells["run"]]
    cells = pd.concat([cells, pd.DataFrame(taken, cells.index)], axis="columns")
    return cells.sort_values("run", key=lambda keys: keys.map(list(plan.evaluate).index), ignore_index=True)


def method_of(cells: pd.DataFrame) -> str:
    """The recipe that is compared with random images: EDC, or the plan's first with a baseline; "" without any."""
    recipes = [*cells.loc[cells["baseline_mean"].notna(), "recipe"], ""]
    return METHOD if METHOD in {*cells["recipe"]} else str(recipes[0])


def answers(plan: Plan, cells: pd.DataFrame) -> list[Answer]:
    """The answers of :func:`compared` evaluations, in the order of the plan; those of variants play no part."""
    made = []
    for study, names in plan.studies.items():
        rows = cells[cells["run"].isin(names.evaluate) & (cells["variant"] == "")]
        for values, part in rows.groupby(["dataset", "student", "split"], sort=False):
            name, student, split = map(str, values)
            same = (cells["dataset"] == name) & (cells["student"] == student) & (cells["split"] == split)
            full = cells[same & (cells["recipe"] == FULL) & (cells["variant"] == "")].nlargest(1, "final_mean")
            heading = f"Study {study}: {title(name)}, student {student}" + (", validation images" * (split == "val"))
            sets = part[part["ipc"] > 0]
            sentences = _sentences(sets, full.to_dict("records"), plan.datasets[name])
            made.append(Answer(heading, sentences, verdicts(sets), pd.concat([sets, full])))
    return made


def answer_page(made: list[Answer]) -> str:
    """The answers as Markdown."""
    blocks: list[str] = [] if made else ["Nothing of the active plan ran here."]
    for answer in made:
        blocks.append(f"## {answer.heading}")
        for head, sentences in answer.sentences.items():
            blocks += [f"**{head}**", "\n".join(f"- {sentence}" for sentence in sentences)]
        blocks += [grid(answer.verdicts)] if len(answer.verdicts) else []
    used = "\n".join(f"- {meaning}" for meaning in legend(blocks))
    return "\n\n".join(["# Is a small set good enough?", *([used] if used else []), *blocks]) + "\n"


def legend(texts: Iterable[str]) -> list[str]:
    """What the words in some texts mean."""
    whole = "\n".join(texts)
    return [meaning for word, meaning in LEGEND.items() if word in whole]


def verdicts(sets: pd.DataFrame) -> pd.DataFrame:
    """Every set beside random images under the same protocol, as text."""
    rows = sets[sets["baseline_mean"].notna()].sort_values(["ipc", "recipe", "protocol"], kind="stable")
    lines = []
    for row in rows.to_dict("records"):
        beside = spread(row["baseline_mean"], row["baseline_std"])
        beside += untrained(row | {"trained": row["baseline_trained"]}, " ({})")  # trained alike, in as many steps
        line = {"images per class": row["ipc"], "set": row["recipe"], "protocol": row["protocol"]}
        line |= {
            "labels": row["regime"],
            "accuracy": spread(row["final_mean"], row["final_std"]) + untrained(row, " ({})"),
        }
        limits = f"{signed(row['improvement_low'])} to {signed(row['improvement_high'])}"
        limits += ESTIMATED * (not row["same_images"])
        if math.isnan(row["improvement_low"]):
            limits, word = "", "one seed: no verdict"
        elif row["clear"] == "yes":
            word = f"{row['recipe'] if row['improvement'] > 0 else RANDOM} is ahead"
        else:
            word = "no difference shown"
        line |= {"random images": beside, "difference": signed(row["improvement"]), "95 % interval": limits}
        lines.append(line | {"verdict": word})
    return pd.DataFrame(lines)


def verdict(first: str, second: str, difference: float, limits: tuple[float, float], stored: bool) -> str:
    """Which of two is ahead, by how many points, if its 95 % interval shows it."""
    if any(map(math.isnan, limits)):
        return f"one seed: no verdict between {first} and {second} ({signed(difference)} points)"
    estimated = "" if stored else ESTIMATED
    if limits[0] <= 0 <= limits[1]:
        between = f"95 % interval {signed(limits[0])} to {signed(limits[1])}{estimated}"
        return f"no difference shown between {first} and {second} ({signed(difference)} points, {between})"
    if difference < 0:
        first, second, limits = second, first, (-limits[1], -limits[0])
    between = f"95 % interval {limits[0]:.1f} to {limits[1]:.1f}{estimated}"
    return f"{first} is ahead of {second} by {abs(difference):.1f} points ({between})"


def between(first: Mapping[Any, Any], second: Mapping[Any, Any], names: tuple[str, str]) -> tuple[str, bool]:
    """The verdict on two evaluations, and whether it shows a difference."""
    limits = interval(first, second)
    shown = limits[0] > 0 or limits[1] < 0
    text = verdict(
        *names, round(first["final_mean"] - second["final_mean"], DECIMALS), limits, same_images(first, second)
    )
    unfinished = "no" in (first["trained"], second["trained"])
    return text + ", but not all are trained to the end" * unfinished, shown


def score(row: Mapping[Any, Any]) -> str:
    """An accuracy with its deviation, number of seeds where that is one, and the mark of an unfinished training."""
    seeds = "1 seed" if row["seeds"] == 1 else f"± {row['final_std']:.1f}"
    return f"{row['final_mean']:.1f} % ({seeds}{untrained(row, '; {}')})"


def _sentences(sets: pd.DataFrame, full: list[Any], dataset: Dataset) -> dict[str, list[str]]:
    """The sentences on the sets of one dataset and student; ``full`` has its evaluation of all images, if any."""
    size = dataset.channels * dataset.image_size**2
    method = method_of(sets) or next((name for name in sets["recipe"] if name != RANDOM), "")
    made = {}
    for ipc, here in sets.groupby("ipc"):
        sentences = [sentence for sentence in _one_size(here, method, full, size) if sentence]
        head = "1 image per class" if ipc == 1 else f"{ipc} images per class"
        made[head] = [f"{sentence[:1].upper()}{sentence[1:]}." for sentence in sentences]
    whole = []
    if full and len(sets):
        target = SHARE * full[0]["final_mean"]
        names = {RANDOM: "random images"} | ({method: method.upper()} if method else {})
        needed = [
            f"{name} {images_for(rows.groupby('ipc')['final_mean'].max(), target)}"
            for recipe, name in names.items()
            if len(rows := sets[sets["recipe"] == recipe])
        ]
        accuracy = f"{target:.1f} % ({100 * SHARE:.0f} % of the accuracy of all images)"
        whole.append(f"To reach {accuracy}, in images per class: {', '.join(needed)}.")
    elif len(sets):
        whole.append("What they reach is not known: recipe `full` did not run with this student.")
    for row in full:
        whole.append(f"They reach {score(row)} in {row['steps']:,} steps and take {kilobytes(row['image_bytes'])} kB.")
    return made | {"All training images": whole[::-1]}


def _one_size(here: pd.DataFrame, method: str, full: list[Any], size: int) -> list[str]:
    """Random images and the method, the best set, and what they cost, at one number of images per class."""
    foreign = here["protocol"] != here["own_protocol"]
    rows = pd.concat([here[~foreign], here[foreign]])
    chosen: list[Any] = rows[rows["recipe"] == method].to_dict("records")[:1]
    random = rows[rows["recipe"] == RANDOM]
    beside = random[random["training"] == chosen[0]["training"]] if chosen else random
    baseline: list[Any] = beside.to_dict("records")[:1]
    row = [*chosen, *baseline, *rows.to_dict("records")][0]
    count = f"{row['image_bytes'] // size:,}"
    of = f"{count} of the {full[0]['image_bytes'] // size:,} training images" if full else f"{count} training images"
    parts = [f"{of}, chosen at random, reach {score(line)}" for line in baseline]
    parts += [f"{method.upper()}'s {count} images reach {score(line)}" for line in chosen]
    sentences = [f"protocol {row['protocol']}, {row['regime']} labels: {'; '.join(parts)}"]
    sentences += [
        f"all training images, with hard labels (protocol {line['protocol']}): {score(line)}" for line in full
    ]
    if chosen and baseline:
        sentences.append(between(chosen[0], baseline[0], (method.upper(), "random selection"))[0])
    elif chosen:
        sentences.append("random images did not run under this protocol: no verdict")
    costs = [_cost(f"{method.upper()}'s images", line) for line in chosen]
    costs += [_cost("random images", line) for line in baseline]
    return [*sentences, *_best(here, full), f"cost: {'; '.join(costs)}" * bool(costs)]


def _best(here: pd.DataFrame, full: list[Any]) -> list[str]:
    """The best set of one size, what it may be no better than, and what all images are ahead of it."""
    best, *others = here.sort_values("final_mean", ascending=False, kind="stable").to_dict("records")
    close = [described(row) for row in others if not between(best, row, ("", ""))[1]]
    close = list(dict.fromkeys(name for name in close if name != described(best)))
    more = f" and {len(close) - NAMED} more" if len(close) > NAMED else ""
    beside = f", no difference shown to {', '.join(close[:NAMED])}{more}" if close else ""
    sentences = [f"best set here: {described(best)}, {score(best)}{beside}"]
    return sentences + [between(row, best, ("training on all images", "this set"))[0] for row in full]


def _cost(name: str, row: Mapping[Any, Any]) -> str:
    """Bytes, seconds and device of one evaluation with its images and labels."""
    seconds = duration(row["seconds_images"] + row["seconds_labels"] + row["seconds"])
    where = device(pd.DataFrame([row])).iloc[0] if row["device"] else "a device that is not recorded"
    sizes = f"{kilobytes(row['image_bytes'])} kB, labels {kilobytes(row['label_bytes'])} kB"
    observers = f"plus {duration(row['seconds_observers'])} for observers and statistics"
    return f"{name} {sizes}; {seconds} for images, labels and students, {observers}, on {where}"


def described(row: Mapping[Any, Any]) -> str:
    """A set with its labels."""
    return f"{row['recipe']} ({row['regime']} labels, protocol {row['protocol']})"


def images_for(accuracy: pd.Series, target: float) -> str:
    """Images per class that reach an accuracy: linear over log(IPC) between two numbers that were evaluated."""
    points = [(int(str(ipc)), float(value)) for ipc, value in accuracy.sort_index().items()]
    if points[0][1] >= target:
        return f"{points[0][0]} or fewer" if points[0][0] > 1 else "1"
    for (low, below), (high, above) in itertools.pairwise(points):
        if above >= target > below:
            share = (target - below) / (above - below)
            return f"about {math.ceil(round(low * (high / low) ** share, 6))}"
    return f"more than {points[-1][0]}"
