"""A study spelled out: every row of every stage, rows with the same values once."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

from edc import STAGES
from edc.config.choices import SCORED, LabelChoices, StudentChoices, SynthesisChoices
from edc.errors import EdcError, unknown_name
from edc.config.layers import layers, own_protocol, resolve
from edc.config.references import check_references
from edc.nets import check_name
from edc.config.rows import Dataset, Plan, StudyRuns, twice_chance
from edc.config.files import (
    Application,
    DatasetFile,
    Grid,
    ProtocolFile,
    RecipeFile,
    Role,
    StudyFile,
    Values,
    merge,
    read,
)
from edc.config.validation import Model, validate

APPLICATIONS = ("continual", "slimming", "analysis")
"""Stages whose rows a study asks for in sections of their own."""
CROSSED = tuple(Application.model_fields)
"""What such a section crosses; its other values go into every row as they are."""


class Builder:
    """Collects the rows of one study; rows with the same values are one row."""

    def __init__(self, name: str, study: StudyFile) -> None:
        self.name, self.study = name, study
        self.rows: dict[str, dict[str, dict[str, Any]]] = {stage: {} for stage in STAGES if stage != "tables"}
        self.datasets: dict[str, Dataset] = {}
        self.files: dict[str, DatasetFile] = {}
        self.shared: dict[str, dict[str, str]] = {stage: {} for stage in self.rows}

    def add(self, stage: str, key: str, row: dict[str, Any], ignore: tuple[str, ...] = ()) -> str:
        """Put a row under its key, or find the one with the same values, whatever its key.

        Args:
            stage: which section.
            key: wanted; where other values stand under it, a number is put behind.
            row: the values.
            ignore: names that don't count when rows are compared.
        """
        row["precision"] = self.study.machine.precision
        identity = repr(sorted((name, value) for name, value in row.items() if name not in ignore))
        if found := self.shared[stage].get(identity):
            return found
        key = _key(key)
        rows, candidate, count = self.rows[stage], key, 1
        while candidate in rows:
            count += 1
            candidate = f"{key}-{count}"
        rows[candidate] = row
        self.shared[stage][identity] = candidate
        return candidate

    def dataset(self, name: str) -> DatasetFile:
        if name in self.files:
            return self.files[name]
        file: DatasetFile = read("datasets", name, self.study.overrides.get("datasets", {}).get(name), self.where)
        values = {"name": name, "family": name} | file.data
        self.datasets[name] = validate(Dataset, values, f"workflow/datasets/{name}.yaml: data")
        for network in file.networks:
            try:  # it need not be among the observers, which an inheriting file may have cut down
                check_name(network)
            except EdcError as error:
                raise EdcError(f"workflow/datasets/{name}.yaml: networks: {error}") from None
        self.files[name] = file
        return file

    @property
    def where(self) -> str:
        return f"workflow/studies/{self.name}.yaml"

    def pretrain(self, name: str, network: str) -> str:
        file = self.files[name]
        values = merge(_dump(file.pretrain), file.networks.get(network, {}))
        checked = validate(type(file.pretrain), values, f"workflow/datasets/{name}.yaml: networks.{network}")
        return self.add("pretrain", f"{name}-{network}", {"dataset": name, "network": network} | _dump(checked))

    def observers(self, name: str, file: RecipeFile | ProtocolFile, path: str, role: Role, ipc: int) -> list[str]:
        """Rows of the observers a recipe or protocol asks; default all of the dataset's, and for scores the first."""
        data = self.files[name]
        wanted: list[str] | str | None = {str(r): networks for r, networks in file.observers.items()}.get(role)
        for _, layer in layers(file, self.datasets[name].family, ipc):
            wanted = layer.observers.get(role, wanted)
        if wanted is None:
            wanted = "first" if role == "score" else "all"
        if isinstance(wanted, str):
            wanted = data.observers[:1] if wanted == "first" else data.observers
        for network in wanted:
            if network not in data.observers:
                known = ", ".join(data.observers)
                raise EdcError(f"{path}: observers.{role}: {network!r} is no observer of {name} ({known})")
        return [self.pretrain(name, network) for network in wanted]

    def build(self) -> Plan:
        study = self.study
        self.check()
        for grid in study.parts():
            for name, recipe, ipc, variant in itertools.product(*_crossed(grid)):
                self.dataset(name)
                self.recipe(name, recipe, ipc, variant, grid)
        self.applications()
        self.group_statistics()
        values = {
            "studies": {self.name: {stage: list(self.rows[stage]) for stage in StudyRuns.model_fields}},
            "machine": study.machine.model_dump(mode="json", exclude={"precision"}),
            "datasets": {name: _dump(dataset) for name, dataset in self.datasets.items()},
            **self.rows,
        }
        plan: Plan = validate(Plan, values, self.where)
        check_references(plan, self.where)
        return plan

    def check(self) -> None:
        """An override or a variant that nothing uses is a misspelling."""
        study, grids = self.study, self.study.parts()
        applied = [part for stage in APPLICATIONS for part in getattr(study, stage)]
        used: dict[str, list[str]] = {
            kind: list(dict.fromkeys(n for grid in grids + applied for n in getattr(grid, kind, None) or []))
            for kind in ("datasets", "recipes", "protocols", "variants")
        }
        for kind in ("datasets", "recipes", "protocols"):
            for name in used[kind]:
                if name != "default":
                    read(kind, name, None, self.where)
        used["protocols"] += [read("recipes", recipe, None, self.where).protocol for recipe in used["recipes"]]
        for kind, entries in study.overrides.items():
            for name in entries:
                if name not in used[kind]:
                    raise unknown_name(kind.removesuffix("s"), name, used[kind], f"{self.where}: overrides.{kind}")
        for name in used["variants"]:
            if name and name not in study.variants:
                raise unknown_name("variant", name, study.variants, f"{self.where}: grids")

    def recipe(self, name: str, recipe_name: str, ipc: int, variant: str, grid: Grid) -> None:
        dataset, study = self.datasets[name], self.study
        path = f"workflow/recipes/{recipe_name}.yaml"
        recipe: RecipeFile = read(
            "recipes", recipe_name, study.overrides.get("recipes", {}).get(recipe_name), self.where
        )
        images, cell = None, Cell(name, recipe_name, ipc, variant)
        if not recipe.real:
            images = self.images(cell, recipe, path)
        elif ipc != max(grid.ipc or [ipc]):
            return  # the whole training set is the same whatever the number of images per class
        own = own_protocol(recipe, dataset.family, ipc)
        wanted = [own] if recipe.real else [own if p == "default" else p for p in grid.protocols or []]
        for protocol_name in dict.fromkeys(wanted):
            self.protocol(cell, images, protocol_name, grid)

    def over(self, cell: Cell, kind: str) -> list[tuple[str, Any]]:
        """What the study's variant lays over a recipe or a protocol."""
        if not cell.variant:
            return []
        return [(f"variant {cell.variant!r} of {self.where}", getattr(self.study.variants[cell.variant], kind))]

    def images(self, cell: Cell, recipe: RecipeFile, path: str) -> str:
        dataset = self.datasets[cell.dataset]
        over = [(where, values.get("synthesize", {})) for where, values in self.over(cell, "recipe")]
        choices = resolve(recipe, "synthesize", dataset.family, cell.ipc, SynthesisChoices, path, over)
        own = self.study.variants[cell.variant].seed if cell.variant else None
        seed = self.study.seed if own is None else own
        row: dict[str, Any] = {"dataset": cell.dataset, "recipe": cell.recipe, "ipc": cell.ipc, "seed": seed}
        row |= {"statistics": None, "observers": [], "scorers": []}
        if choices.optimise.iterations:
            row["observers"] = self.observers(cell.dataset, recipe, path, "match", cell.ipc)
            if choices.match.method in ("layers", "category"):
                row["statistics"] = self.statistics(cell.dataset)
        if choices.initialise.method in SCORED:
            row["scorers"] = self.observers(cell.dataset, recipe, path, "score", cell.ipc)
        row |= _dump(choices)
        row["augment"]["flip"] = row["augment"]["flip"] and dataset.flip
        return self.add("synthesize", f"{cell.dataset}-{cell.recipe}-ipc{cell.ipc}{cell.suffix}", row, ("recipe",))

    def statistics(self, name: str) -> str:
        choices = self.files[name].statistics
        key = f"{name}-p{choices.patch}"
        self.rows["statistics"].setdefault(
            key, {"dataset": name, "observers": [], "precision": self.study.machine.precision} | _dump(choices)
        )
        return key

    def group_statistics(self) -> None:
        """One pass over a dataset serves every observer that any recipe matches, in the order of the dataset's.

        Where a study matches some of them only, the pass bears their names: the same key means the same run anywhere.
        """
        pretrain, synthesize = self.rows["pretrain"], self.rows["synthesize"].values()
        for key, row in list(self.rows["statistics"].items()):
            matched = {
                observer for images in synthesize if images["statistics"] == key for observer in images["observers"]
            }
            order: list[str] = read("datasets", row["dataset"], None, self.where).observers
            # A study may name observers of its own; they come last.
            place = {network: i for i, network in enumerate(order)}
            row["observers"] = sorted(matched, key=lambda o: (place.get(pretrain[o]["network"], len(order)), o))
            networks = [pretrain[observer]["network"] for observer in row["observers"]]
            if networks != order:
                name = _key("-".join([key, *networks]))
                self.rows["statistics"][name] = self.rows["statistics"].pop(key)
                for images in synthesize:
                    if images["statistics"] == key:
                        images["statistics"] = name

    def protocol(self, cell: Cell, images: str | None, protocol: str, grid: Grid) -> None:
        overridden = self.study.overrides
        recipes, protocols = overridden.get("recipes", {}), overridden.get("protocols", {})
        changed = _changes(recipes.get(cell.recipe, {})) or _changes(protocols.get(protocol, {}))
        split = self.study.split
        suffix = cell.suffix if split == "test" else f"{cell.suffix}-{split}"
        for network in grid.students or []:
            row = self.student(cell, images, protocol, network, grid.seeds or [])
            row |= {"variant": cell.variant, "changed": changed, "split": split}
            self.add("evaluate", f"{cell.key(images)}-{network}-{protocol}{suffix}", row)

    def student(self, cell: Cell, images: str | None, protocol: str, network: str, seeds: list[int]) -> dict[str, Any]:
        """The values of a student in training, its labels among the rows: see ``StudentRow``."""
        dataset, path = self.datasets[cell.dataset], f"workflow/protocols/{protocol}.yaml"
        overrides = self.study.overrides.get("protocols", {}).get(protocol)
        file: ProtocolFile = read("protocols", protocol, overrides, self.where)
        changes = self.over(cell, "protocol")
        over = [(f"students.{network}", file.students[network])] if network in file.students else []
        over += [(where, values.get("student", {})) for where, values in changes]
        student: StudentChoices = resolve(file, "student", dataset.family, cell.ipc, StudentChoices, path, over)
        batch, labels = student.batch, None
        if images is not None:
            batch = min(student.batch, dataset.classes * cell.ipc)
            over = [(where, values.get("relabel", {})) for where, values in changes]
            label: LabelChoices = resolve(file, "relabel", dataset.family, cell.ipc, LabelChoices, path, over)
            labels = self.labels(cell, images, protocol, file, label, student.epochs, batch)
        return {
            "dataset": cell.dataset,
            "recipe": cell.recipe,
            "ipc": cell.ipc if images is not None else 0,
            "student": network,
            "protocol": protocol,
            "regime": file.regime,
            "images": images,
            "labels": labels,
            "seeds": list(seeds),
            **_dump(student),
            "batch": batch,
        }

    def labels(
        self, cell: Cell, images: str, protocol: str, file: ProtocolFile, label: LabelChoices, epochs: int, batch: int
    ) -> str:
        dataset, path = self.datasets[cell.dataset], f"workflow/protocols/{protocol}.yaml"
        row = {
            "dataset": cell.dataset,
            "images": images,
            "observers": self.observers(cell.dataset, file, path, "label", cell.ipc),
            "epochs": epochs,
            "batch": batch,
            "flip": dataset.flip,
            **_dump(label),
        }
        if label.min_accuracy is None:
            row["min_accuracy"] = twice_chance(dataset.classes)
        return self.add("relabel", f"{images}-{protocol}", row)

    def applications(self) -> None:
        """Rows of continual learning, of slimming and of the analyses."""
        for stage in APPLICATIONS:
            for part in getattr(self.study, stage):
                own = {name: value for name, value in _dump(part).items() if name not in CROSSED}
                crossed = (self.study.datasets, part.recipes, part.ipc, part.protocols, part.students)
                for name, recipe_name, ipc, protocol, network in itertools.product(*crossed):
                    self.dataset(name)
                    overrides = self.study.overrides.get("recipes", {}).get(recipe_name)
                    recipe: RecipeFile = read("recipes", recipe_name, overrides, self.where)
                    cell = Cell(name, recipe_name, ipc, "")
                    path = f"workflow/recipes/{recipe_name}.yaml"
                    images = None if recipe.real else self.images(cell, recipe, path)
                    own_one = recipe.real or protocol == "default"
                    wanted = own_protocol(recipe, self.datasets[name].family, ipc) if own_one else protocol
                    row = self.student(cell, images, wanted, network, part.seeds)
                    self.add(stage, f"{cell.key(images)}-{network}-{wanted}", row | own)


@dataclass(frozen=True)
class Cell:
    """Which images: one point of a grid."""

    dataset: str
    recipe: str
    ipc: int
    variant: str

    @property
    def suffix(self) -> str:
        return f"-{self.variant}" if self.variant else ""

    def key(self, images: str | None) -> str:
        """How rows about students of this cell begin."""
        return f"{self.dataset}-{self.recipe}-" + (f"ipc{self.ipc}" if images is not None else "all")


def _crossed(grid: Grid) -> tuple[list[Any], ...]:
    return tuple(getattr(grid, name) or [] for name in ("datasets", "recipes", "ipc", "variants"))


def _key(name: str) -> str:
    """A name as a key: other signs, as in torchvision:resnet18 and timm:resnet18.a1_in1k, mean something to DVC."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _dump(model: Model) -> dict[str, Any]:
    return model.model_dump(mode="json")


def _changes(laid: Values) -> bool:
    """Whether values laid over a recipe or protocol make another of it; which observers it asks, the dataset says."""
    return any(
        _changes(value) if isinstance(value, dict) else True for key, value in laid.items() if key != "observers"
    )
