"""The summary: what ran, and EDC against random real images in plain words. Every number is one of Table 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edc import STAGES
from edc.reporting.markdown import PERCENT, images, plus_minus, signed, title
from edc.reporting.report.gather import Results
from edc.reporting.report.markup import Html, element
from edc.reporting.report.tabular import Cell, table_of
from edc.reporting.tabulate import RANDOM, less

METHOD = "edc"
REGIMES = {
    "final": "soft labels renewed every epoch",
    "static": "one fixed soft label per image",
    "hard": "hard labels",
}
"""Columns of Table 1 -> the label regime they show."""
LEAST = 0.05
"""Points that a page with one decimal does not show."""
VERDICTS = {"ahead": "ahead of", "behind": "behind", "level": "level with"}


@dataclass(frozen=True)
class Comparison:
    """EDC and random real images: same dataset, number of images, student and protocol."""

    row: dict[str, Any]
    random: dict[str, Any]
    regime: str

    @property
    def difference(self) -> float:
        """EDC's accuracy minus that of random images."""
        ours, theirs = self.row[f"{self.regime}_mean"], self.random[f"{self.regime}_mean"]
        return less(ours, theirs)

    @property
    def verdict(self) -> str:
        """Ahead, behind, or level: no further apart than the standard deviation of their difference over the seeds."""
        spreads = [row.get(f"{self.regime}_std") for row in (self.row, self.random)]
        spread = math.hypot(*(value or 0.0 for value in spreads))
        if abs(self.difference) <= max(spread, LEAST):
            return "level"
        return "ahead" if self.difference > 0 else "behind"


def comparisons(rows: Sequence[dict[str, Any]]) -> list[Comparison]:
    """Every comparison Table 1 allows, by label regime.

    Args:
        rows: of Table 1.
    """
    ran = [row for row in rows if row["seeds"] is not None]
    any_random = {_cell(row): row for row in ran if row["recipe"] == RANDOM}
    found: dict[tuple[Any, ...], Comparison] = {}
    for regime in REGIMES:
        for row in (row for row in ran if row["recipe"] == METHOD):
            # The columns of the other two regimes belong to the images, whatever the row's own protocol is.
            taught = {"final_mean": row["random_mean"], "final_std": row["random_std"]}
            other = taught if regime == "final" else any_random.get(_cell(row))
            key = (regime, *_cell(row), row["protocol"] if regime == "final" else "")
            if other and None not in (row.get(f"{regime}_mean"), other.get(f"{regime}_mean")):
                found.setdefault(key, Comparison(row, other, regime))
    return list(found.values())


def _cell(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["dataset"], row["ipc"], row["student"]


def headline(found: Sequence[Comparison]) -> Iterator[str]:
    """One sentence a label regime.

    Args:
        found: the comparisons on one dataset.
    """
    for regime, name in REGIMES.items():
        mine = [one for one in found if one.regime == regime]
        if not mine:
            yield f"Under {name}: not run."
            continue
        parts: list[str] = []
        for verdict, with_random in VERDICTS.items():
            apart = sorted(abs(one.difference) for one in mine if one.verdict == verdict)
            if apart:
                low, high = f"{apart[0]:.1f}", f"{apart[-1]:.1f}"
                by = f" (by {low} points)" if low == high else f" (by {low} to {high} points)"
                many = "the one comparison" if len(mine) == 1 else f"{len(apart)} of {len(mine)} comparisons"
                said = f"{verdict} in {len(apart)}" if parts else f"{with_random} random real images in {many}"
                parts.append(said + ("" if verdict == "level" else by))
        yield f"Under {name} EDC is {listing(parts)}."


def listing(parts: Sequence[str]) -> str:
    """ "a, b and c" """
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def against_random(found: Sequence[Comparison]) -> list[object]:
    """What the comparisons say of every dataset: in words, and one by one."""
    if not found:
        said = "EDC and random real images have not both been judged here: nothing can be said of what EDC is worth."
        return [element("p", said)]
    parts: list[object] = []
    for dataset in sorted({one.row["dataset"] for one in found}):
        mine = [one for one in found if one.row["dataset"] == dataset]
        mine.sort(key=lambda one: (one.row["student"], one.row["ipc"]))
        columns = ["ipc", "student", "labels", "edc", "random", "difference", "verdict"]
        sentences = [element("li", sentence) for sentence in headline(mine)]
        parts += [element("h4", title(dataset)), element("ul", *sentences, class_="headline")]
        parts.append(table_of(f"EDC against random, {title(dataset)}", columns, [compared(one) for one in mine]))
    level = "level: no further apart than the standard deviation of their difference over the seeds."
    return [*parts, element("p", f"{PERCENT} After the last epoch; {level}", class_="small")]


def compared(one: Comparison) -> list[Cell]:
    """One comparison as a line of a table."""
    mean = f"{one.regime}_mean"
    return [
        Cell(images(one.row["ipc"]), one.row["ipc"]),
        Cell(one.row["student"]),
        Cell(REGIMES[one.regime]),
        Cell(plus_minus(one.row, one.regime), one.row[mean], one.verdict == "ahead"),
        Cell(plus_minus(one.random, one.regime), one.random[mean], one.verdict == "behind"),
        Cell(signed(one.difference), one.difference),
        Cell(one.verdict),
    ]


def facts(results: Results) -> Html:
    """What ran, as a list of terms."""
    found = results.evaluations
    students = results.of("evaluate", "continual", "slimming")
    seeds = sorted({seed for run in students for seed in run.row.get("seeds", [])})
    counts = {stage: len(results.of(stage)) for stage in STAGES}
    seconds = sum(results.seconds.values())
    ipcs = sorted({one.ipc for one in found})
    listed = {
        "Datasets": ", ".join(sorted({title(one.dataset) for one in found})),
        "Recipes": ", ".join(results.recipes),
        "Protocols": ", ".join(sorted({one.protocol for one in found})),
        "Images per class": ", ".join(images(ipc) for ipc in ipcs),
        "Students": ", ".join(sorted({str(run.row["student"]) for run in students})),
        "Seeds": ", ".join(map(str, seeds)),
        "Runs": ", ".join(f"{count} {stage}" for stage, count in counts.items() if count),
        "Time": f"{seconds / 60:,.0f} minutes of computing, all runs together" if seconds else "not recorded",
    }
    return definitions(listed)


def definitions(listed: dict[str, object] | dict[str, str]) -> Html:
    """Terms and what belongs to them."""
    items = [element("div", element("dt", term), element("dd", value)) for term, value in listed.items()]
    return element("dl", *items)
