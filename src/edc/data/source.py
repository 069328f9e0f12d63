"""A dataset before anything is decoded. A kind is a function `read(config, part) -> Source` and a name in READERS."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import zip_longest
from typing import Literal, TypeAlias

import numpy as np

from edc.data.pictures import Pixels, Rows, View
from edc.errors import EdcError

Part: TypeAlias = Literal["train", "test"]


@dataclass(frozen=True)
class Source:
    """One part of a dataset before anything is decoded.

    Attributes:
        where: file or folder, for messages.
        classes: class names in label order.
        labels: int64 (M,), one per row, in a fixed order.
        name: of a row, for messages.
        decode: fills uint8 (n, C, S, S) with the views of n rows (ascending, repeats allowed) and returns the reason
            for each position that could not be read. Safe to call from several threads.
        stamp: identifies a row's content without decoding it: a name inside the dataset and a size in bytes.
    """

    where: str
    classes: tuple[str, ...]
    labels: Rows
    name: Callable[[int], str]
    decode: Callable[[Rows, Pixels, View], dict[int, str]]
    stamp: Callable[[int], str]

    def unreadable(self, reasons: Mapping[int, str], total: int, when: str = "") -> str:
        """The beginning of a message on unreadable rows, with the reason of the first three."""
        examples = [f"{self.name(row)} ({reasons[row]})" for row in sorted(reasons)[:3]] + ["..."] * (len(reasons) > 3)
        return f"{self.where}: {len(reasons)} of {total} images unreadable{when}: {'; '.join(examples)}"


def class_hash(classes: Iterable[str]) -> str:
    """The first 16 hex digits of the sha256 of the ordered class names."""
    return hashlib.sha256(json.dumps(list(classes)).encode()).hexdigest()[:16]


def check_same_classes(train: Sequence[str], test: Sequence[str], train_where: str, test_where: str) -> None:
    """Refuses two class lists that differ, naming the first class that does."""
    for position, (expected, name) in enumerate(zip_longest(train, test)):
        if name != expected:
            if expected is None:
                raise EdcError(f"{test_where}: class {position} is {name!r}; expected the {position} of {train_where}")
            actual = "missing" if name is None else repr(name)
            raise EdcError(f"{test_where}: class {position} is {actual}; expected {expected!r} as in {train_where}")


def check_chosen(names: Sequence[str], known: Iterable[str], where: str, kind: str = "class") -> None:
    """Refuses `class_names` that hold a name twice or one that `where` does not have."""
    known, seen = set(known), set()
    for name in names:
        if name in seen:
            raise EdcError(f"{where}: class_names has {name!r} twice; expected every class once")
        seen.add(name)
        if name not in known:
            near = get_close_matches(name, sorted(known), n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise EdcError(f"{where}: no {kind} {name!r}, listed in class_names{hint}")


def subset(source: Source, rows: Rows) -> Source:
    """Some rows of a source, in that order."""
    return replace(
        source,
        labels=source.labels[rows],
        name=lambda row: source.name(int(rows[row])),
        decode=lambda chosen, out, view: source.decode(rows[chosen], out, view),
        stamp=lambda row: source.stamp(int(rows[row])),
    )


def restrict(source: Source, class_names: Sequence[str] | None) -> Source:
    """The rows of the named classes alone, relabelled by the position of their class's name in `class_names`.

    Raises:
        EdcError: a name is unknown or repeated, or a label has no name.
    """
    if class_names is None or tuple(class_names) == source.classes:
        return source
    check_chosen(class_names, source.classes, source.where)
    check_labels(source)
    place = {name: position for position, name in enumerate(class_names)}
    new = np.array([place.get(name, -1) for name in source.classes], np.int64)[source.labels]
    return subset(replace(source, classes=tuple(class_names), labels=new), np.flatnonzero(new >= 0))


def check_labels(source: Source) -> None:
    """Refuses a label that is no position in the class names, naming its row."""
    classes = len(source.classes)
    for row in np.flatnonzero((source.labels < 0) | (source.labels >= classes))[:1]:
        raise EdcError(f"{source.name(int(row))}: label {source.labels[row]}; expected 0 to {classes - 1}")


def check(source: Source, classes: int) -> None:
    """Refuses a source whose number of classes is not the dataset's, or that has a class without an image."""
    if len(source.classes) != classes:
        raise EdcError(f"{source.where}: {len(source.classes)} classes; expected {classes}, the dataset's `classes`")
    check_labels(source)
    for c in np.flatnonzero(np.bincount(source.labels, minlength=classes) == 0)[:1]:
        raise EdcError(f"{source.where}: class {source.classes[c]!r} has no image; expected at least 1")
