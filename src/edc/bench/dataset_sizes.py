"""How many images a dataset has: from its labels where it lies here, else from what is known of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from edc.config.rows import Dataset, Plan
from edc.data.roots import resolve_root
from edc.data.sets import source_of, training_rows
from edc.data.source import Part
from edc.errors import EdcError

KNOWN = {
    "cifar10": (10, 50_000, 10_000),
    "cifar100": (100, 50_000, 10_000),
    "tiny_imagenet": (200, 100_000, 10_000),
    "imagenet10": (10, 13_000, 500),
    "imagenette": (10, 9_469, 3_925),
    "imagewoof": (10, 9_025, 3_929),
    "imagenet1k": (1_000, 1_281_167, 50_000),
    "imagenet21k": (10_450, 11_060_223, 522_500),
}
"""Family -> classes, training and test images (ImageNet-21K-P of Ridnik et al. 2021); ImageNet-10 varies a little."""

LISTED = 200_000
"""Datasets known to be larger are not listed: that may take minutes."""


DISTINCT = ("herding", "kmeans", "ranked")
"""Initial images that are all different."""


@dataclass(frozen=True)
class Images:
    """How many images a dataset has: to train on, held out of these, to test on; counted from the data or known.

    ``smallest`` is the number of images to train on of the smallest class.
    """

    train: int
    val: int
    test: int
    smallest: int
    counted: bool


def count_images(dataset: Dataset) -> Images:
    """The sizes of a dataset's splits.

    Raises:
        EdcError: there are no data here, and nothing is known of them.
    """
    classes, *known = KNOWN.get(dataset.family, (0, 0, 0))
    if classes != dataset.classes:
        known = []
    parts: list[Counter[int]] = []
    try:
        if sum(known) <= LISTED:
            parts = [_listed(dataset, part) for part in ("train", "test")]
    except EdcError as error:
        if not known:
            raise EdcError(f"{error}; the cost needs the number of images") from None
    counted = bool(parts)
    parts = parts or [_even(total, dataset.classes) for total in known]
    train, val = (_cut(parts[0], dataset, split) for split in ("train", "val"))
    most = dataset.test_per_class
    test = sum(count * (size if most is None else min(size, most)) for size, count in parts[1].items())
    smallest = min(_cut(Counter([size]), dataset, "train") for size in parts[0])
    return Images(train, val, test, smallest, counted)


def check_data(plan: Plan) -> list[str]:
    """Refuse data that are here and in which a part or a class is missing, before anything runs; nothing is decoded.

    Returns:
        One line for every dataset whose folder is not known on this machine: a plan may be made elsewhere.

    Raises:
        EdcError: the first fault.
    """
    absent = []
    for dataset in plan.datasets.values():
        if dataset.kind == "digits":
            continue
        try:
            resolve_root(dataset)
        except EdcError as error:
            absent.append(str(error))
            continue
        classes, *known = KNOWN.get(dataset.family, (0,))
        if classes != dataset.classes or sum(known) <= LISTED:
            for part in ("train", "test"):
                source_of(dataset, part)
    return absent


def check_ipc(plan: Plan) -> None:
    """Refuse more images per class than the smallest class has, where none may be taken twice and the data are here.

    Raises:
        EdcError: naming the run.
    """
    sizes: dict[str, int | None] = {}
    for key, row in plan.synthesize.items():
        start, needed = row.initialise, row.ipc
        if start.method == "composites":
            needed = (start.pool or row.ipc) * start.factor**2
        elif start.method not in DISTINCT and (start.method, start.draw) != ("real", "distinct"):
            continue
        if row.dataset not in sizes:
            sizes[row.dataset] = _smallest(plan.datasets[row.dataset])
        smallest = sizes[row.dataset]
        if smallest is not None and needed > smallest:
            what = f"{needed} crops are tiled" if needed != row.ipc else f"ipc = {row.ipc}"
            raise EdcError(
                f"synthesize.{key}: {what}, but the smallest class of {row.dataset} has {smallest} images to train on; "
                "expected at most so many, lower ipc in the study"
            )


def _smallest(dataset: Dataset) -> int | None:
    """Training images of the smallest class; None where the data are not here, or are too many to list."""
    try:
        images = count_images(dataset)
    except EdcError:
        return None
    return images.smallest if images.counted else None


def _listed(dataset: Dataset, part: Part) -> Counter[int]:
    """How many classes have how many images, from the labels; nothing is decoded."""
    return Counter(np.bincount(source_of(dataset, part).labels, minlength=dataset.classes).tolist())


def _even(total: int, classes: int) -> Counter[int]:
    size, rest = divmod(total, classes)
    return Counter({size: classes - rest, size + 1: rest})


def _cut(sizes: Counter[int], dataset: Dataset, split: str) -> int:
    """Images of `train` or `val`, by the rule that cuts them; it depends on a class's size alone."""

    def rows(size: int) -> int:
        labels = np.zeros(size, np.int64)
        return len(training_rows(labels, split, dataset.val_fraction, dataset.split_seed, dataset.train_per_class))  # type: ignore[arg-type]

    return sum(count * rows(size) for size, count in sizes.items() if count and size)
