"""What stands in which table: evaluations and the paper's figures -> rows. Accuracies in percent, four decimals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edc.errors import EdcError
from edc.reporting.evaluations import Evaluation
from edc.reporting.reported import CROSSED, LADDER, Figure, Figures
from edc.reporting.scores import hard_label_recovery, improvement_over_random, label_robust_score

RANDOM = "random"  # the recipe every method is compared with
FULL = "full"  # the recipe that trains on the real dataset
DECIMALS = 4
"""Of an accuracy in percent. Means over seeds have no end; pages round to one, and of these it is the same one."""
STANDARD = {"static": "static_soft", "hard": "hard_label"}
"""The protocol a label regime's column of Table 1 shows where several of that regime ran."""

TABLE1 = (
    "dataset", "recipe", "protocol", "ipc", "student", "seeds", "final_mean", "final_std", "best_mean", "best_std",
    "static_mean", "static_std", "hard_mean", "hard_std", "reported", "reported_std", "difference", "image_bytes",
    "label_bytes", "steps", "random_mean", "random_std", "gain",
)  # fmt: skip
VARIANTS = (
    "dataset", "recipe", "variant", "protocol", "ipc", "student", "seeds", "final_mean", "final_std", "best_mean",
    "best_std",
)  # fmt: skip
PAPER = (*VARIANTS, "reported", "reported_std", "difference")
ABLATION = (*PAPER, "reported_imagenet1k", "reported_student")
CROSS = ("dataset", "ipc", "student", "recipe", "protocol", "regime", "seeds", "final_mean", "final_std")
SCORES = (
    "dataset", "recipe", "ipc", "student", "protocol", "real_hard", "condensed_hard", "condensed_own", "random_own",
    "hlr", "ior", "lrs",
)  # fmt: skip
ORDER = ("dataset", "ipc", "student", "recipe", "variant", "protocol")


@dataclass(frozen=True)
class Table:
    """One table: the same columns in every row, None where there is nothing, sorted by cell."""

    columns: tuple[str, ...]
    rows: list[dict[str, Any]]

    @classmethod
    def of(cls, columns: tuple[str, ...], rows: Iterable[dict[str, Any]]) -> Table:
        """Fill up, round and sort."""
        whole = [{name: row.get(name) for name in columns} for row in rows]
        keys = [name for name in ORDER if name in columns]
        return cls(columns, sorted(whole, key=lambda row: [(row[n] is not None, row[n]) for n in keys]))


def tables(found: list[Evaluation], figures: Figures) -> dict[str, Table]:
    """Every table by name, in the order of ``edc.reporting.reported.TABLES``."""
    made = {"table1": table1(found, figures), "table2": table2(found, figures)}
    made |= {f"table{number}": ablation(number, found, figures) for number in (3, 4, 5)}
    made |= {"table22": table22(found, figures), "variants": variants(found, figures)}
    return made | {"cross": cross(found), "scores": scores(found)}


def table1(found: list[Evaluation], figures: Figures) -> Table:
    """Accuracy under soft labels renewed every epoch, with the other two label regimes of the same images beside it.

    Random real images taught alike stand beside every cell (``untreated``). The paper's cells that did not run here
    have a row without accuracies of ours.

    Raises:
        EdcError: two protocols claim the column of fixed or of hard labels.
    """
    plain = [one for one in found if not one.variant]
    beside = {regime: by_regime(plain, regime) for regime in STANDARD}
    rows, ran = [], []
    for one in [one for one in plain if one.regime == "soft"] + alone(plain):
        row = accuracies(one) if one.regime == "soft" else cell(one)
        for regime, others in beside.items():
            if other := others.get(one.cell):
                row |= {f"{regime}_mean": rounded(other.final_mean), f"{regime}_std": rounded(other.final_std)}
        if one.regime == "soft":
            figure = own_figure(1, one, figures)
            row |= compared(one, figure)
            ran.append(figure)
            if baseline := untreated(one, one.protocol, plain):
                row |= {"random_mean": rounded(baseline.final_mean), "random_std": rounded(baseline.final_std)}
                row["gain"] = less(one.final_mean, baseline.final_mean)
        rows.append(row)
    return Table.of(TABLE1, [*rows, *not_run(1, ran, figures)])


def table2(found: list[Evaluation], figures: Figures) -> Table:
    """The paper's nine students at its numbers of images, on whichever dataset; its figures are ImageNet-1k's."""
    cells = {(figure.ipc, figure.student) for figure in figures.of(2)}
    rows, ran = [], []
    for one in found:
        if one.variant or one.regime != "soft" or (one.ipc, one.paper_student) not in cells:
            continue
        figure = own_figure(2, one, figures)
        beside = figures.find(2, "ImageNet-1k", one.ipc, one.paper_student, one.recipe) if one.own else None
        rows.append(accuracies(one) | compared(one, figure) | imagenet(beside))
        ran.append(figure)
    return Table.of(ABLATION, [*rows, *not_run(2, ran, figures)])


def ablation(number: int, found: list[Evaluation], figures: Figures) -> Table:
    """Table 3, 4 or 5: every evaluation of a recipe and variant that stand in it, on whichever dataset they ran.

    Away from ImageNet-1k the paper's figure stands beside ours, of the same student where the paper has it and of
    ResNet-18 elsewhere; it is no difference, as nothing but the variant is the same.
    """
    reported = {(figure.recipe, figure.variant): figure for figure in figures.of(number)}
    rows, ran = [], []
    for one in found:
        named, crossed = ablated(one)
        if named not in reported or not (one.variant or one.ipc == reported[named].ipc):
            continue
        figure = beside = None
        if one.own or crossed:
            figure = figures.find(number, one.paper_dataset, one.ipc, one.paper_student, *named)
            at = (number, "ImageNet-1k", reported[named].ipc)
            beside = figures.find(*at, one.paper_student, *named) or figures.find(*at, "resnet18", *named)
        rows.append(accuracies(one) | compared(one, figure) | imagenet(beside))
        ran.append(figure)
    return Table.of(ABLATION, [*rows, *not_run(number, ran, figures)])


def table22(found: list[Evaluation], figures: Figures) -> Table:
    """ImageNet-21k, with the student trained on the whole dataset."""
    rows, ran = [], []
    for one in found:
        if one.paper_dataset != "ImageNet-21k" or one.variant or not (one.regime == "soft" or one.recipe == FULL):
            continue
        figure = own_figure(22, one, figures)
        rows.append(accuracies(one) | compared(one, figure))
        ran.append(figure)
    return Table.of(PAPER, [*rows, *not_run(22, ran, figures)])


def variants(found: list[Evaluation], figures: Figures) -> Table:
    """Evaluations of variants that no table of the paper has."""
    reported = {(figure.recipe, figure.variant) for number in (3, 4, 5) for figure in figures.of(number)}
    return Table.of(VARIANTS, [accuracies(one) for one in found if one.variant and ablated(one)[0] not in reported])


def cross(found: list[Evaluation]) -> Table:
    """Recipes crossed with protocols, where at least two of each met at one dataset, number of images and student."""
    groups: dict[tuple[str, int, str], list[Evaluation]] = defaultdict(list)
    for one in found:
        if not one.variant:
            groups[one.dataset, one.ipc, one.student].append(one)
    crossed = [
        group
        for group in groups.values()
        if len({o.recipe for o in group}) > 1 and len({o.protocol for o in group}) > 1
    ]
    return Table.of(CROSS, [accuracies(one) | {"regime": one.regime} for group in crossed for one in group])


def scores(found: list[Evaluation]) -> Table:
    """DD-Ranking's label-robust score of every condensed set. Accuracies here are fractions, four decimals.

    Raises:
        EdcError: two protocols with hard labels ran and neither is the standard one.
    """
    plain = [one for one in found if not one.variant]
    hard = by_regime(plain, "hard")
    rows = []
    for dataset, recipe, ipc, student in sorted({one.cell for one in plain if one.ipc}):
        at = (dataset, recipe, ipc, student)
        mine = [one for one in plain if one.cell == at]
        own = mine[0].own_protocol
        judged = next((one for one in mine if one.protocol == own), None)
        parts = {
            "real_hard": fraction(hard.get((dataset, FULL, 0, student))),
            "condensed_hard": fraction(hard.get(at)),
            "condensed_own": fraction(judged),
            "random_own": fraction(untreated(judged or mine[0], own, plain)),
        }
        rows.append({"dataset": dataset, "recipe": recipe, "ipc": ipc, "student": student, "protocol": own, **parts})
        rows[-1] |= scored(**parts)
    return Table.of(SCORES, rows)


def scored(
    real_hard: float | None, condensed_hard: float | None, condensed_own: float | None, random_own: float | None
) -> dict[str, float | None]:
    """HLR, IOR and LRS of four fractions, each None where something it is made of did not run."""
    hlr = ior = lrs = None
    if real_hard is not None and condensed_hard is not None:
        hlr = round(hard_label_recovery(real_hard, condensed_hard), 4)
    if condensed_own is not None and random_own is not None:
        ior = round(improvement_over_random(condensed_own, random_own), 4)
    if hlr is not None and ior is not None:
        lrs = round(label_robust_score(ior, hlr), 4)
    return {"hlr": hlr, "ior": ior, "lrs": lrs}


def by_regime(plain: list[Evaluation], regime: str) -> dict[tuple[str, str, int, str], Evaluation]:
    """The evaluation of every cell under one of the other label regimes, by the standard protocol where several ran."""
    groups: dict[tuple[str, str, int, str], list[Evaluation]] = defaultdict(list)
    for one in plain:
        if one.regime == regime:
            groups[one.cell].append(one)
    chosen = {}
    for key, group in groups.items():
        standard = [one for one in group if one.protocol == STANDARD[regime]] or group
        if len(standard) > 1:
            raise EdcError(
                f"{group[1].path}: a second {regime}-label row for the same images beside {group[0].path}; expected "
                f"one of them under protocol {STANDARD[regime]!r}"
            )
        chosen[key] = standard[0]
    return chosen


def untreated(one: Evaluation, protocol: str, plain: list[Evaluation]) -> Evaluation | None:
    """Random real images for the same dataset, number of images and student, taught as those of an evaluation are.

    Args:
        one: the evaluation, under ``protocol`` or (for want of one) another.
        protocol: whose random images are asked for. One that says the same for this dataset serves as well.
        plain: the evaluations to look among.
    """
    at = (one.dataset, RANDOM, one.ipc, one.student)
    random = [other for other in plain if other.cell == at]
    same = [other for other in random if other.protocol == protocol]
    alike = [other for other in random if one.protocol == protocol and one.teaching and other.teaching == one.teaching]
    return next(iter(same + alike), None)


def alone(plain: list[Evaluation]) -> list[Evaluation]:
    """Images no soft-label protocol judged: one evaluation of each, for a row that is empty where nothing ran."""
    soft = {one.cell for one in plain if one.regime == "soft"}
    return list({one.cell: one for one in reversed(plain) if one.cell not in soft}.values())


def ablated(one: Evaluation) -> tuple[tuple[str, str], bool]:
    """Recipe and variant as which the paper's ablations know an evaluation, and whether that names its protocol too."""
    if one.variant:
        return (one.recipe, one.variant), False
    if named := CROSSED.get((one.recipe, one.protocol)):
        return named, True
    return LADDER.get(one.recipe, (one.recipe, "")), False


def own_figure(table: int, one: Evaluation, figures: Figures) -> Figure | None:
    """The paper's figure of a cell that was judged under its method's own protocol."""
    if not one.own:
        return None
    return figures.find(table, one.paper_dataset, one.ipc, one.paper_student, one.recipe)


def not_run(table: int, ran: list[Figure | None], figures: Figures) -> list[dict[str, Any]]:
    """The paper's cells of a table that have nothing of ours beside them."""
    rows = []
    for figure in figures.of(table):
        if not any(figure is other for other in ran):
            row = {"dataset": figure.family, "recipe": figure.recipe, "variant": figure.variant, "ipc": figure.ipc}
            row |= {"student": figure.student, "reported": figure.accuracy, "reported_std": figure.std}
            if figure.family == "imagenet1k":
                row |= imagenet(figure)
            rows.append(row)
    return rows


def cell(one: Evaluation) -> dict[str, Any]:
    """Which cell, and its cost."""
    names = (
        "dataset",
        "recipe",
        "variant",
        "protocol",
        "ipc",
        "student",
        "seeds",
        "image_bytes",
        "label_bytes",
        "steps",
    )
    return {name: getattr(one, name) for name in names}


def accuracies(one: Evaluation) -> dict[str, Any]:
    """Which cell, its cost and its accuracies."""
    names = ("final_mean", "final_std", "best_mean", "best_std")
    return cell(one) | {name: rounded(getattr(one, name)) for name in names}


def compared(one: Evaluation, figure: Figure | None) -> dict[str, Any]:
    """The paper's figure, and ours minus it."""
    if figure is None:
        return {}
    difference = less(one.final_mean, figure.accuracy)
    return {"reported": figure.accuracy, "reported_std": figure.std, "difference": difference}


def imagenet(figure: Figure | None) -> dict[str, Any]:
    """The paper's figure on ImageNet-1k, and whose it is."""
    return {} if figure is None else {"reported_imagenet1k": figure.accuracy, "reported_student": figure.student}


def rounded(value: float | None) -> float | None:
    """As the tables' files have it."""
    return None if value is None else round(value, DECIMALS)


def less(ours: float, theirs: float) -> float:
    """The difference of two accuracies."""
    return round(ours - theirs, DECIMALS)


def fraction(one: Evaluation | None) -> float | None:
    """The last-epoch accuracy as a fraction."""
    return None if one is None else round(one.final_mean / 100, 4)
