"""The finished evaluations below ``results/evaluate``, checked, each with what the tables ask of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from edc.errors import EdcError, unknown_name
from edc.config.layers import own_protocol
from edc.nets.titles import paper_name
from edc.config.rows import Split
from edc.reporting.reported import DATASETS
from edc.storage import RESULTS, fingerprint, read_json
from edc.config.files import names, read, root
from edc.config.validation import Model, validate

WHICH = {"recipe", "ipc", "student", "protocol", "images", "labels", "seeds", "variant", "changed"}
"""Parameters that say which images and students, not how these are taught."""

Percent = Annotated[float, Field(ge=0, le=100)]
Spread = Annotated[float, Field(ge=0)]


class Part(Model):
    """A part of a manifest, which holds more than the tables read."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class _Row(Part):
    dataset: str
    recipe: str
    variant: str = ""
    changed: bool = False
    protocol: str
    regime: Literal["soft", "static", "hard"]
    ipc: int = Field(ge=0)
    student: str
    seeds: list[int]


class _Dataset(Part):
    family: str
    train_per_class: int | None = None
    test_per_class: int | None = None


class _Params(Part):
    evaluate: _Row
    dataset: _Dataset


class _Scores(Part):
    final_mean: Percent
    final_std: Spread | None
    best_mean: Percent
    best_std: Spread | None


class _Manifest(Part):
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
    final_mean: float
    final_std: float | None
    best_mean: float
    best_std: float | None
    image_bytes: int
    label_bytes: int
    steps: int
    own_protocol: str
    """The protocol the recipe brings along."""
    paper_dataset: str | None
    """The paper's name of the dataset; None for one it does not have, and for a part of one."""
    paper_student: str | None
    """The paper's name of the student, if it has it."""
    teaching: str | None = None
    """All that decides how a student is taught, whichever the images; None where that is not known."""

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
    """Every finished evaluation on a test set, of whichever study ran here, in the order of the runs' names.

    Raises:
        EdcError: there is none, a manifest is damaged or holds a value that is not allowed, or two runs are the same
            cell.
    """
    found: list[Evaluation] = []
    own: dict[tuple[str, str, int], str] = {}
    students: dict[str, str | None] = {}
    seen: dict[tuple[Any, ...], Evaluation] = {}
    for run, manifest in manifests("evaluate", _Manifest):
        row, dataset, scores = manifest.params.evaluate, manifest.params.dataset, manifest.scores
        choice = (row.recipe, dataset.family, row.ipc)
        if choice not in own:
            own[choice] = own_protocol(read("recipes", row.recipe), dataset.family, row.ipc)
        if row.student not in students:
            students[row.student] = paper_name(row.student)
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
            paper_student=students[row.student],
            teaching=teaching(run),
        )
        other = seen.setdefault((*one.cell, one.variant, one.protocol), one)
        if other is not one:
            raise EdcError(f"{one.path}: the same cell as {other.path}; delete the one that no longer counts")
        found.append(one)
    if not found:
        where = " on a test set, only on held-out training images" if any(finished("evaluate", "val")) else ""
        raise EdcError(f"{RESULTS / 'evaluate'}: no finished evaluation{where}; run `edc evaluate` first")
    return found


def teaching(run: str) -> str | None:
    """How an evaluation taught its students, as text that is equal where they were taught alike.

    A protocol may say the same for a dataset as another one does. What labels are made from (observers, views) is
    read where they were made.

    Returns:
        None where the labels' manifest is not here, or is of other labels than those the students had.
    """
    judged = read_json(RESULTS / "evaluate" / run / "manifest.json")
    told = {"row": judged["params"]["evaluate"]}
    if key := told["row"].get("labels"):
        path = RESULTS / "relabel" / key / "manifest.json"
        made = read_json(path) if path.exists() else {}
        if judged.get("inputs", {}).get(f"relabel/{key}") != fingerprint(made.get("files")):
            return None
        told["label"] = made["params"]["relabel"]
        told["observers"] = {name: mark for name, mark in made["inputs"].items() if name.startswith("pretrain/")}
    told = {name: {k: v for k, v in part.items() if k not in WHICH} for name, part in told.items()}
    return json.dumps(told, sort_keys=True)


def finished(stage: str, split: Split = "test") -> Iterator[Path]:
    """Manifests of the finished runs of a stage, in the order of the names. Whatever shows results goes by this.

    Evaluations on held-out images chose settings: they are no results, and only who asks for them gets them.
    """
    for path in sorted((RESULTS / stage).glob("*/manifest.json")):
        if stage != "evaluate" or evaluated_on(path) == split:
            yield path


def evaluated_on(path: Path) -> str:
    """The split an evaluation was made on; a damaged manifest counts, so that its reader can say what is wrong."""
    try:
        return str(read_json(path)["params"]["evaluate"].get("split", "test"))
    except (EdcError, KeyError, TypeError, AttributeError):
        return "test"


def manifests(stage: str, model: type[Part]) -> Iterator[tuple[str, Any]]:
    """Names and checked manifests of every finished run of a stage, in the order of the names.

    Args:
        stage: evaluate, continual or slimming.
        model: what a manifest must hold.

    Raises:
        EdcError: one is damaged, holds a value that is not allowed, or is of a recipe that no file describes.
    """
    recipes = names("recipes")
    for path in finished(stage):
        run = path.parent.name
        try:
            manifest: Any = validate(model, read_json(path), str(path))
        except EdcError as error:
            raise EdcError(f"{error}; run `edc {stage} --run {run}` again") from None
        recipe = getattr(manifest.params, stage).recipe
        if recipe not in recipes:
            raise unknown_name("recipe", recipe, recipes, f"{path}: params.{stage}.recipe")
        yield run, manifest


def paper_dataset(name: str, dataset: _Dataset) -> str | None:
    """The paper's name of a dataset, None for a part of one: its accuracy is not the paper's quantity.

    A file that inherits from the paper's dataset (other observers) has the same images.
    """
    whole = dataset.train_per_class is None and dataset.test_per_class is None
    return DATASETS.get(root("datasets", name)) if whole else None
