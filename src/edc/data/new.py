"""A dataset file for images of one's own: what is in the folder, what was decided, a split where there is none."""

from __future__ import annotations

import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from edc.config.files import WORKFLOW
from edc.data import folder
from edc.data.layouts import Layout, detect
from edc.data.listing import write_list
from edc.data.roots import remember_root
from edc.data.sets import DIGITS_TEST, draw
from edc.data.source import Part
from edc.data.survey import Progress, Survey, duplicates, mean_and_std, survey
from edc.errors import EdcError
from edc.storage import write_text

HEADER = """\
# yaml-language-server: $schema=../schema/datasets.json
# Written by `edc new {name}`; every value may be edited. Where the images lie is kept in .edc/, not here.
# flip: false where a mirrored image changes its class. observers: more and stronger ones give better images and labels.
"""
LEAST = 3
"""Images a class needs: one to train on, one held out, one to test."""
SHARED = 0.05
"""Share of the test images that may also be training images: accuracy is too high by as much, at most."""
SHOWN = 3
"""Examples in a line of what was found."""

Copies = list[list[tuple[int, int]]]
"""Groups of images with the same pixels: number of the part, row."""
Start = Callable[[int], Progress]
Entries = list[tuple[int, int, Part]]
"""Images of a list: number of the part they were read from, row, and the part they belong to."""


@dataclass(frozen=True)
class NewDataset:
    """What was written.

    Attributes:
        paths: of the files.
        lines: what was found and decided, for the user.
        classes: names in label order.
        train, test: images of each class, held-out ones among those to train on.
        seconds: that decoding every image took.
    """

    paths: list[Path]
    lines: list[str]
    classes: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray
    seconds: float


def new_dataset(
    name: str, root: Path, image_size: int, test_fraction: float = 0.2, start: Start = lambda total: lambda count: None
) -> NewDataset:
    """Look at every image and write ``workflow/datasets/NAME.yaml``, and a list of the split where the folder has none.

    Args:
        name: of the dataset.
        root: folder of the images, or a CSV file beside them; see :func:`edc.data.layouts.detect`.
        image_size: side in pixels every image is brought to.
        test_fraction: share of each class to test on, where the folder has no split.
        start: called with the number of images, returns what is called with the number just decoded.

    Raises:
        EdcError: the name is taken or unfit, no layout fits, or a later stage would refuse the images.
    """
    check_name(name)
    path, table = WORKFLOW / "datasets" / f"{name}.yaml", WORKFLOW / "datasets" / f"{name}.csv"
    for file in (path, table, WORKFLOW / "studies" / f"{name}.yaml"):
        if file.exists():
            raise EdcError(f"{file}: exists already; choose another name or edit that file")
    if not 0 < test_fraction < 1:
        raise EdcError(f"--test-fraction {test_fraction:g}: expected above 0 and below 1")
    layout = detect(name, root, image_size)
    progress = start(sum(len(source.labels) for source in layout.parts.values()))
    started = time.monotonic()
    surveys = [survey(source, image_size, progress) for source in layout.parts.values()]
    seconds = time.monotonic() - started
    copies = duplicates(*surveys)
    lines = [*_found(layout, surveys, copies), *layout.notes]
    entries: Entries
    if "all" in layout.parts:
        entries = _divided(surveys[0], copies, test_fraction)
        lines.append(
            f"split: {test_fraction:.0%} of each class to test, drawn with seed 0, identical images in the same split"
        )
    else:
        _refuse_shared(surveys, copies)
        parts: tuple[tuple[int, Part], ...] = ((0, "train"), (1, "test"))
        entries = [
            (number, row, part)
            for number, part in parts
            for row in range(len(surveys[number].source.labels))
            if row not in surveys[number].unreadable
        ]
    labels = [surveys[number].source.labels[row] for number, row, _ in entries]
    names = surveys[0].source.classes
    train, test = (
        np.bincount(
            [label for label, (*_, of) in zip(labels, entries, strict=True) if of == part], minlength=len(names)
        )
        for part in ("train", "test")
    )
    _refuse_small(names, train, test, str(root))
    values: dict[str, Any] = {"family": name, "kind": layout.kind, "image_size": image_size, "channels": 3}
    values |= {"classes": len(names), **layout.values}
    listed = layout.kind == "list" or "all" in layout.parts
    if listed:
        values["files"] = table.as_posix()
        rows = [(_relative(surveys[number], row, layout.root), number, row, part) for number, row, part in entries]
        write_list(table, [(file, names[surveys[n].source.labels[row]], part) for file, n, row, part in sorted(rows)])
        if any(result.unreadable for result in surveys):
            lines.append(f"unreadable images are not in {table}")
    limit = max(_unreadable(result, listed) for result in surveys)
    if limit:
        values["unreadable_limit"] = limit
        lines.append(f"unreadable_limit: {limit} in {path}, so that stages leave them out")
    mean, std = mean_and_std(surveys[0])
    values |= {"mean": mean, "std": std, "pad": max(1, image_size // 8), "flip": True, "val_fraction": 0.1}
    large = train.sum() >= 20_000
    content = {
        "description": f"{train.sum():,} training images of {len(names)} classes",
        "title": name,
        "data": values,
        "observers": ["convnet_w32", "mobilenet_v2_half", "wrn_16_2"],
        "pretrain": {
            "epochs": 10 if large else 30,
            "batch": 64,
            "optimiser": {"name": "sgd", "lr": 0.05 if image_size <= 32 else 0.01, "momentum": 0.9},
            "schedule": {"name": "smoothing", "zeta": 1.0},
        },
        "statistics": {"patch": 4 if image_size < 128 else 16, "batch": 64},
    }
    write_text(
        path, HEADER.format(name=name) + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)
    )
    remember_root(name, layout.root)
    written = [path, table] if listed else [path]
    return NewDataset(written, lines, names, train, test, seconds)


def check_name(name: str) -> None:
    """Refuse a name that is no plain word: it becomes a part of keys, files and environment variables."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise EdcError(f"name {name!r}: expected lower-case letters, digits and underscores, a letter first")


def _found(layout: Layout, surveys: list[Survey], copies: Copies) -> list[str]:
    """What the images are, a line each; nothing is left out silently."""
    names = surveys[0].source.classes
    lines = []
    for part, result in zip(layout.parts, surveys, strict=True):
        counts = np.bincount(result.source.labels, minlength=len(names))
        of_part = "" if part == "all" else f" to {part}"
        least, most = int(counts.argmin()), int(counts.argmax())
        lines.append(
            f"{counts.sum():,} images{of_part} of {len(names)} classes: {counts[least]} ({names[least]}) to "
            f"{counts[most]} ({names[most]}) a class"
        )
        if len(result.rows) < len(result.source.labels):
            lines.append(
                f"decoded {len(result.rows):,} of them, evenly spaced; duplicates among the others are not detected"
            )
    sizes = sum((result.sizes for result in surveys), Counter())
    (width, height), _ = sizes.most_common(1)[0]
    sides = [side for size in sizes for side in size]
    lines.append(f"sizes: {width} x {height} pixels mostly, sides from {min(sides)} to {max(sides)}")
    if turned := sum(result.turned for result in surveys):
        lines.append(f"orientation: {_images(turned)} turned upright, as the EXIF data state")
    if transparent := sum(result.transparent for result in surveys):
        lines.append(f"transparency: {_images(transparent)} laid on white")
    if layout.ignored:
        files = ", ".join(f"{count} {suffix}" for suffix, count in layout.ignored.most_common())
        lines.append(f"left out, no pictures: {files}{folder.hint(layout.ignored)}")
    for result in surveys:
        if result.unreadable:
            lines.append(result.source.unreadable(result.unreadable, len(result.rows)))
    lines += _copies(surveys, copies)
    return lines


def _copies(surveys: list[Survey], copies: Copies) -> list[str]:
    """The lines on images that occur more than once."""
    lines = []
    if copies:
        extra = sum(len(group) - 1 for group in copies)
        lines.append(f"duplicates: {_images(extra)} equal to another, such as {_examples(surveys, copies)}")
    crossing = [group for group in copies if len({surveys[n].source.labels[row] for n, row in group}) > 1]
    if crossing:
        count = f"{len(crossing)} {'occurs' if len(crossing) == 1 else 'occur'}"
        lines.append(f"of these, {count} in several classes, such as {_examples(surveys, crossing)}")
    shared, tested = _shared(copies)
    if tested:
        lines.append(
            f"in training and test images alike: {tested} of {len(surveys[1].rows):,} test images, such as "
            f"{_examples(surveys, shared)}"
        )
    return lines


def _shared(copies: Copies) -> tuple[Copies, int]:
    """The groups with images of both parts, and how many of their images are test images (of part 1)."""
    groups = [group for group in copies if len({number for number, _ in group}) > 1]
    return groups, sum(number for group in groups for number, _ in group)


def _images(count: int) -> str:
    return f"{count} image is" if count == 1 else f"{count} images are"


def _examples(surveys: list[Survey], copies: Copies) -> str:
    pairs = [" = ".join(surveys[number].source.name(row) for number, row in group[:2]) for group in copies[:SHOWN]]
    return ", ".join(pairs)


def _divided(result: Survey, copies: Copies, fraction: float) -> Entries:
    """Train and test rows of one part: a fraction of each class to test, equal images on one side, none unreadable."""
    labels, unreadable = result.source.labels, result.unreadable
    leader = {row: group[0][1] for group in copies for _, row in group}
    leaders = np.array([row for row in range(len(labels)) if leader.get(row, row) == row and row not in unreadable])
    if not len(leaders):
        return []
    drawn = draw(labels[leaders], lambda n: min(n - 1, max(1, round(fraction * n))), 0, DIGITS_TEST)
    test = set(leaders[drawn].tolist())
    rows = (row for row in range(len(labels)) if row not in unreadable)
    return [(0, row, "test" if leader.get(row, row) in test else "train") for row in rows]


def _refuse_shared(surveys: list[Survey], copies: Copies) -> None:
    """Refuse a test part that holds more than a few of the training images."""
    shared, tested = _shared(copies)
    if tested > SHARED * len(surveys[1].rows):
        raise EdcError(
            f"{surveys[1].source.where}: {tested} of {len(surveys[1].rows)} test images are training images too, such "
            f"as {_examples(surveys, shared[:1])}; expected at most {SHARED:.0%}; delete them on one side, or give the "
            "images without a split: a test set is drawn then (--test-fraction), identical images on the same side"
        )


def _refuse_small(names: tuple[str, ...], train: np.ndarray, test: np.ndarray, where: str) -> None:
    """Refuse what a later stage would: a single class, or one with too few images."""
    if len(names) < 2:
        raise EdcError(f"{where}: one class, {names[0] if names else 'none'!r}; expected at least 2")
    for name, of_train, of_test in zip(names, train, test, strict=True):
        if of_train < LEAST - 1 or of_test < 1:
            raise EdcError(
                f"{where}: class {name!r} has {of_train} readable images to train on and {of_test} to test; expected "
                f"at least {LEAST - 1} and 1; add images or remove the class"
            )


def _unreadable(result: Survey, listed: bool) -> int:
    """Unreadable images to expect in a part: those found, or twice their share of the images that were not decoded."""
    decoded, total = len(result.rows), len(result.source.labels)
    found = 0 if listed else len(result.unreadable)
    return found + math.ceil(2 * len(result.unreadable) / decoded * (total - decoded))


def _relative(result: Survey, row: int, root: Path) -> str:
    return Path(os.path.relpath(result.source.name(row), root)).as_posix()
