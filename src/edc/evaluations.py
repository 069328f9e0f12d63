"""The finished evaluations below ``results/evaluate``, checked, each with what the tables ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from edc.errors import EdcError
from edc.layering import own_protocol
from edc.nets.titles import paper_name
from edc.reported import DATASETS
from edc.storage import RESULTS, read_json
from edc.studies import WORKFLOW, read
from edc.validation import Model, validate

Percent = Annotated[float, Field(ge=0, le=100)]
Spread = Annotated[float, Field(ge=0)]


class _Part(Model):
    """A manifest holds more than the tables read."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class _Row(_Part):
    dataset: str
    recipe: str
    variant: str = ""
    changed: bool = False
    protocol: str
    regime: Literal["soft", "fixed", "hard"]
    ipc: int = Field(ge=0)
    student: str
    seeds: list[int]


class _Dataset(_Part):
    family: str
    train_per_class: int | None = None
    test_per_class: int | None = None


class _Params(_Part):
    evaluate: _Row
    dataset: _Dataset


class _Scores(_Part):
    last_mean: Percent
    last_std: Spread | None
    best_mean: Percent
    best_std: Spread | None


class _Manifest(_Part):
    params: _Params
    scores: _Scores
    image_bytes: int = Field(ge=0)
    label_bytes: int = Field(ge=0)
    steps: int = Field(ge=0)


@dataclass(frozen=True)
class Evaluation:
    """One finished evaluation. Accuracies in percent; standard deviations over the seeds, None with one seed."""

    run: str
    dataset: str
    recipe: str
    variant: str
    changed: bool
    """Whether the study laid values of its own over the recipe's or the protocol's."""
    protocol: str
    regime: str
    ipc: int
    student: str
    seeds: int
    last_mean: float
    last_std: float | None
    best_mean: float
    best_std: float | None
    image_bytes: int
    label_bytes: int
    steps: int
    own_protocol: str | None
    """The protocol the recipe brings along; None where its file is gone."""
    paper_dataset: str | None
    """The paper's name of the dataset; None for one it does not have, and for a part of one."""
    paper_student: str | None
    """The paper's name of the student, if it has it."""

    @property
    def cell(self) -> tuple[str, str, int, str]:
        """What is judged, and by which network: dataset, recipe, images per class, student."""
        return self.dataset, self.recipe, self.ipc, self.student

    @property
    def own(self) -> bool:
        """Whether it was judged as its method's authors do: only then may it stand beside their figure."""
        return self.protocol == self.own_protocol and not self.changed

    @property
    def path(self) -> str:
        """The folder of the run."""
        return str(RESULTS / "evaluate" / self.run)


def evaluations() -> list[Evaluation]:
    """Every finished evaluation, of whichever study ran here, in the order of the runs' names.

    Raises:
        EdcError: there is none, a manifest is damaged or holds a value that is not allowed, or two runs are the same
            cell.
    """
    found: list[Evaluation] = []
    own: dict[tuple[str, str, int], str | None] = {}
    names: dict[str, str | None] = {}
    seen: dict[tuple[Any, ...], Evaluation] = {}
    for path in sorted((RESULTS / "evaluate").glob("*/manifest.json")):
        run = path.parent.name
        try:
            manifest: _Manifest = validate(_Manifest, read_json(path), str(path))
        except EdcError as error:
            raise EdcError(f"{error}; run `edc evaluate --run {run}` again") from None
        row, dataset, scores = manifest.params.evaluate, manifest.params.dataset, manifest.scores
        choice = (row.recipe, dataset.family, row.ipc)
        if choice not in own:
            own[choice] = protocol_of(*choice)
        if row.student not in names:
            names[row.student] = paper_name(row.student)
        one = Evaluation(
            run=run,
            **row.model_dump(exclude={"seeds"}),
            seeds=len(row.seeds),
            **scores.model_dump(),
            image_bytes=manifest.image_bytes,
            label_bytes=manifest.label_bytes,
            steps=manifest.steps,
            own_protocol=own[choice],
            paper_dataset=paper_dataset(row.dataset, dataset),
            paper_student=names[row.student],
        )
        other = seen.setdefault((*one.cell, one.variant, one.protocol), one)
        if other is not one:
            raise EdcError(f"{one.path}: the same cell as {other.path}; delete the one that no longer counts")
        found.append(one)
    if not found:
        raise EdcError(f"{RESULTS / 'evaluate'}: no finished evaluation; run `edc evaluate` first")
    return found


def protocol_of(recipe: str, family: str, ipc: int) -> str | None:
    """The protocol a recipe brings along; None where its file is gone, for its results are still here.

    Raises:
        EdcError: the recipe's file holds a value that is not allowed.
    """
    if not (WORKFLOW / "recipes" / f"{recipe}.yaml").exists():
        return None
    return own_protocol(read("recipes", recipe), family, ipc)


def paper_dataset(name: str, dataset: _Dataset) -> str | None:
    """The paper's name of a dataset, None for a part of one: its accuracy is not the paper's quantity."""
    whole = dataset.train_per_class is None and dataset.test_per_class is None
    return DATASETS.get(name) if whole else None
