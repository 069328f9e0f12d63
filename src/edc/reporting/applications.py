"""The finished runs of both applications, checked, as tables: Figure 4 of the paper in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field, model_validator

from edc.errors import EdcError
from edc.reporting.evaluations import Part, Percent, Spread, manifests
from edc.storage import RESULTS
from edc.reporting.tabulate import RANDOM, Table, less, rounded

CONTINUAL = (
    "dataset", "recipe", "protocol", "ipc", "student", "regime", "orders", "seeds", "steps", "step", "classes",
    "accuracy_mean", "accuracy_std", "average_mean", "average_std", "forgetting_mean", "forgetting_std", "image_bytes",
    "label_bytes", "random_mean", "gain",
)  # fmt: skip
SLIMMING = (
    "dataset", "recipe", "protocol", "ipc", "student", "regime", "seeds", "sparsity", "epochs", "finetune", "ratio",
    "channels", "parameters", "macs", "pruned_mean", "pruned_std", "finetuned_mean", "finetuned_std", "image_bytes",
    "label_bytes", "random_mean", "gain",
)  # fmt: skip
KEYS = ["dataset", "student", "ipc", "recipe", "protocol", "regime", "steps", "sparsity", "epochs", "finetune", "step"]
KEYS += ["ratio"]
"""What tells rows apart, in the order they are sorted by."""

Ratio = Annotated[float, Field(ge=0, lt=1)]
Difference = Annotated[float, Field(ge=-100, le=100)]


class _Row(Part):
    dataset: str
    recipe: str
    protocol: str
    regime: Literal["soft", "static", "hard"]
    ipc: int = Field(ge=0)
    student: str
    seeds: list[int] = Field(min_length=1)


class _ContinualRow(_Row):
    steps: int = Field(ge=2)
    orders: list[int] = Field(min_length=1)


class _SlimmingRow(_Row):
    sparsity: float = Field(ge=0)
    epochs: int = Field(ge=1)
    finetune: int = Field(ge=0)


class _Lists(Part):
    @model_validator(mode="after")
    def _as_long(self) -> _Lists:
        lengths = {name: len(value) for name, value in self if isinstance(value, list)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"expected lists of one length, found {lengths}")
        return self


class _ContinualScores(_Lists):
    classes: list[Annotated[int, Field(ge=1)]]
    accuracy_mean: list[Percent]
    accuracy_std: list[Spread | None]
    average_mean: Percent
    average_std: Spread | None
    forgetting_mean: Difference
    forgetting_std: Spread | None


class _SlimmingScores(_Lists):
    ratios: list[Ratio]
    channels_mean: list[Spread]
    parameters_mean: list[Spread]
    macs_mean: list[Spread]
    pruned_mean: list[Percent]
    pruned_std: list[Spread | None]
    finetuned_mean: list[Percent]
    finetuned_std: list[Spread | None]


class _ContinualParams(Part):
    continual: _ContinualRow


class _SlimmingParams(Part):
    slimming: _SlimmingRow


class _Bytes(Part):
    image_bytes: int = Field(ge=0)
    label_bytes: int = Field(ge=0)


class _Continual(_Bytes):
    params: _ContinualParams
    scores: _ContinualScores


class _Slimming(_Bytes):
    params: _SlimmingParams
    scores: _SlimmingScores


def applications() -> dict[str, Table]:
    """Both tables by name, of whichever study ran here.

    Raises:
        EdcError: a manifest is damaged or holds a value that is not allowed, or two runs are the same cell.
    """
    return {
        "continual": _table("continual", CONTINUAL, "accuracy_mean", list(_continual())),
        "slimming": _table("slimming", SLIMMING, "finetuned_mean", list(_slimming())),
    }


def _continual() -> Iterator[dict[str, Any]]:
    """One line for every step of every run."""
    for run, found in manifests("continual", _Continual):
        row, scores = found.params.continual, found.scores
        once = _cell(run, row, found) | {"orders": len(row.orders), "steps": row.steps}
        for name in ("average_mean", "average_std", "forgetting_mean", "forgetting_std"):
            once[name] = rounded(getattr(scores, name))
        for step, classes in enumerate(scores.classes):
            mean, deviation = scores.accuracy_mean[step], scores.accuracy_std[step]
            values = {"accuracy_mean": rounded(mean), "accuracy_std": rounded(deviation)}
            yield once | values | {"step": step + 1, "classes": classes}


def _slimming() -> Iterator[dict[str, Any]]:
    """One line for every pruning ratio of every run; ratio 0 is the whole network."""
    for run, found in manifests("slimming", _Slimming):
        row, scores = found.params.slimming, found.scores
        once = _cell(run, row, found) | {name: getattr(row, name) for name in ("sparsity", "epochs", "finetune")}
        for place, ratio in enumerate(scores.ratios):
            sizes = {name: round(getattr(scores, f"{name}_mean")[place]) for name in ("channels", "parameters", "macs")}
            names = ("pruned_mean", "pruned_std", "finetuned_mean", "finetuned_std")
            yield once | sizes | {name: rounded(getattr(scores, name)[place]) for name in names} | {"ratio": ratio}


def _cell(run: str, row: _Row, found: _Bytes) -> dict[str, Any]:
    cell = {name: getattr(row, name) for name in ("dataset", "recipe", "protocol", "ipc", "student", "regime")}
    return cell | {
        "run": run,
        "seeds": len(row.seeds),
        "image_bytes": found.image_bytes,
        "label_bytes": found.label_bytes,
    }


def _table(stage: str, columns: tuple[str, ...], score: str, lines: list[dict[str, Any]]) -> Table:
    """Random real images beside every line, sorted, and no cell twice."""
    keys = [name for name in KEYS if name in columns]
    frame = pd.DataFrame(lines, columns=["run", *columns], dtype=object)
    if (twice := frame.duplicated(keys)).any():
        second = frame[twice].iloc[0]
        first = frame[(frame[keys] == second[keys]).all(axis=1)].iloc[0]
        raise EdcError(
            f"{RESULTS / stage / second['run']}: the same cell as {RESULTS / stage / first['run']}; delete the one "
            "that no longer counts"
        )
    shared = [name for name in keys if name != "recipe"]
    random = frame[frame["recipe"] == RANDOM][[*shared, score]].rename(columns={score: "random_mean"})
    frame = frame.drop(columns=["random_mean", "gain"]).merge(random, how="left", on=shared)
    frame = frame.astype(object).where(frame.notna(), None)
    pairs = zip(frame[score], frame["random_mean"], strict=True)
    gains = [None if theirs is None else less(ours, theirs) for ours, theirs in pairs]
    frame["gain"] = pd.Series(gains, index=frame.index, dtype=object)
    frame = frame.sort_values(keys, kind="stable")
    return Table(columns, [dict(zip(columns, row, strict=True)) for row in frame[list(columns)].to_numpy().tolist()])
