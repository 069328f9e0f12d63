"""A first study of a new dataset, as large as a number of minutes on this machine allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edc.bench.cost import Estimate
from edc.bench.rate import training_rate
from edc.config.files import WORKFLOW
from edc.config.plan import make_plan
from edc.config.rows import Plan
from edc.data.new import NewDataset, new_dataset
from edc.pipeline.devices import slots
from edc.stages.progress import ProgressLog
from edc.storage import write_text

HEADER = """\
# yaml-language-server: $schema=../schema/studies.json
# Written by `edc new {name}`: how good are a few images per class, and which ones, beside all of them?
# More epochs, iterations and images per class take longer and are usually better. Next: `edc plan {name}`, `dvc repro`.
"""


@dataclass(frozen=True)
class Size:
    """What decides how long a study takes.

    Attributes:
        ipc: images per class.
        epochs: of the students.
        iterations: of synthesis.
        observers: epochs of the observers.
    """

    ipc: tuple[int, ...]
    epochs: int
    iterations: int
    observers: int


SIZES = (
    Size((1, 10, 50), 1000, 1000, 60),
    Size((1, 10, 50), 600, 500, 40),
    Size((1, 10, 30), 400, 300, 40),
    Size((1, 10, 20), 400, 200, 30),
    Size((1, 10), 400, 200, 30),
    Size((1, 10), 300, 100, 30),
    Size((1, 10), 200, 50, 20),
    Size((10,), 150, 25, 15),
)
"""Tried in this order; the first that fits is taken, else the last."""
OBSERVER_STEPS, STUDENT_STEPS, FULL_STEPS = 300, 300, 1500
"""Optimiser steps, at least, of observers, of students of the largest sets, and of students of all images: a small
dataset has few steps in an epoch, and what is not trained to the end answers nothing."""
BATCH, CONDENSED_BATCH = 64, 50
"""Images in a step, of the dataset and of a condensed set."""
FULL_EPOCHS = 5
"""Epochs on all images, at least."""
STUDENTS = ("convnet_w128", "convnet_w32")
"""The better and slower one first."""
SLOWER = 1.3
"""Time of a stage beside that of its networks' bare passes: augmentation, optimisers, evaluation."""
START = 5.0
"""Seconds a stage takes to start."""


def new_study(
    name: str, root: Path, image_size: int, test_fraction: float, minutes: float, show: Callable[[str], None]
) -> None:
    """Write a dataset file and a study for images of one's own; both or neither.

    Args:
        name: of dataset and study.
        root, image_size, test_fraction: see :func:`edc.data.new.new_dataset`.
        minutes: the study may take on this machine.
        show: called with every line for the user.

    Raises:
        EdcError: see there.
    """
    made = new_dataset(
        name, root, image_size, test_fraction, lambda total: ProgressLog(total, f"new {name}", unit="image").update
    )
    for line in made.lines:
        show(f"{name}: {line}")
    try:
        study, estimate = write_first_study(name, made, minutes)
    except BaseException:  # without a study the dataset would only be in the way of another attempt
        for path in (*made.paths, WORKFLOW / "studies" / f"{name}.yaml"):
            path.unlink(missing_ok=True)
        raise
    show(f"{name}: {estimate}")
    for path in (*made.paths, study):
        show(f"wrote {path}")


def write_first_study(name: str, dataset: NewDataset, minutes: float) -> tuple[Path, str]:
    """Write ``workflow/studies/NAME.yaml``.

    Args:
        name: of the dataset and the study.
        dataset: what was found in it.
        minutes: the study may take on this machine.

    Returns:
        The file, and a line with the estimate.
    """
    path = WORKFLOW / "studies" / f"{name}.yaml"
    rates: dict[str, float] = {}
    for student in STUDENTS:
        for size in SIZES:
            write_text(path, HEADER.format(name=name) + _text(name, student, size, dataset))
            plan = make_plan(name)
            taken = _minutes(plan, student, rates, dataset.seconds)
            if taken <= minutes:
                return path, _line(taken, plan, student, minutes)
    return path, _line(taken, plan, student, minutes)


class _Dumper(yaml.SafeDumper):
    """Repeats equal values instead of referring to them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _epochs(steps: int, images: int, batch: int) -> int:
    """Epochs that take so many steps."""
    return math.ceil(steps / math.ceil(images / batch))


def _text(name: str, student: str, size: Size, dataset: NewDataset) -> str:
    """The study's YAML.

    Args:
        name: of dataset and study.
        student: the network.
        size: of the study.
        dataset: what was found in it.
    """
    classes, images = len(dataset.classes), int(dataset.train.sum())
    most = min(int(dataset.train.min() * 0.9), int(dataset.train.min()) - 1)  # a tenth is held out
    ipc = sorted({min(images, most) for images in size.ipc})
    condensed = classes * ipc[-1]
    trained = {"student": {"epochs": max(size.epochs, _epochs(STUDENT_STEPS, condensed, CONDENSED_BATCH))}}
    observers = max(size.observers, _epochs(OBSERVER_STEPS, images, BATCH))
    full = max(FULL_EPOCHS, _epochs(FULL_STEPS, images, BATCH))
    values: dict[str, Any] = {
        "description": f"EDC, RDED and selected real images beside random and all images of {name}",
        "datasets": [name],
        "recipes": ["random", "edc", "rded", "easy"],
        "ipc": ipc,
        "protocols": ["edc", "hard_label"],
        "students": [student],
        "seeds": [0, 1, 2],
        "machine": {"device": "auto", "threads": 1},
        "overrides": {
            "datasets": {name: {"pretrain": {"epochs": observers}}},
            "recipes": {
                "edc": {"synthesize": {"optimise": {"iterations": size.iterations}}},
                # Four crops tiled to an image, as on ImageNet, need four images for each and more pixels.
                "rded": {"synthesize": {"initialise": {"factor": 1}}},
            },
            "protocols": {"edc": trained, "hard_label": trained, "real_data": {"student": {"epochs": full}}},
        },
        "grids": [{}, {"recipes": ["full"], "ipc": [ipc[-1]], "protocols": ["default"]}],
    }
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110)


def _minutes(plan: Plan, student: str, rates: dict[str, float], decoding: float) -> float:
    """How long a plan takes on this machine.

    Args:
        plan: the study.
        student: the network its rows evaluate.
        rates: FLOP per second of the observers ("") and of students, measured when first needed.
        decoding: seconds to decode every image once.
    """
    dataset = next(iter(plan.datasets.values()))
    observers = list(dict.fromkeys(row.network for row in plan.pretrain.values()))
    for names, key in ((observers, ""), ([student], student)):
        if key not in rates:
            rates[key] = training_rate(names, dataset, plan.machine)
    estimate, seconds = Estimate(plan), 0.0
    processes = slots(plan.machine.device, plan.machine.threads)
    for stage in ("pretrain", "statistics", "synthesize", "relabel", "evaluate"):
        rate = rates[student if stage == "evaluate" else ""]
        seconds += SLOWER * 2 * estimate.stage(stage).macs / rate / processes + START
    reads = len(plan.pretrain) + len(plan.statistics) + len(plan.synthesize) + len(plan.relabel) + len(plan.evaluate)
    return (seconds + reads * decoding / processes) / 60


def _line(taken: float, plan: Plan, student: str, minutes: float) -> str:
    epochs = max(row.epochs for row in plan.evaluate.values() if row.images is not None)
    iterations = max(row.optimise.iterations for row in plan.synthesize.values())
    over = "" if taken <= minutes else f"; the smallest study here, so --minutes {minutes:g} is exceeded"
    return (
        f"about {max(1, round(taken))} minutes on this machine: {student}, {epochs} epochs, "
        f"{iterations} iterations of synthesis{over}"
    )
