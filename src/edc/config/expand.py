"""A study spelled out: every row of every stage, rows with the same values once."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

from edc import STAGES
from edc.config.choices import SynthesisChoices
from edc.config.files import Application, DatasetFile, Grid, Slimming, StudyFile, Variant, read
from edc.config.layers import Place, own_protocol, places, resolve, strongest
from edc.config.partial import Values, merge
from edc.config.protocol import LabelChoices, StudentChoices
from edc.config.references import check_references
from edc.config.registry import SCORED
from edc.config.rows import Dataset, Plan, StudyRuns, free_key, twice_chance
from edc.config.validation import Model, validate
from edc.errors import EdcError, unknown_name
from edc.nets import check_name

APPLICATIONS = ("continual", "slimming", "analysis")
"""Stages whose rows a study lists in sections of their own."""
CROSSED = tuple(Application.model_fields)
"""What such a section crosses; its other values go into every row as they are."""


@dataclass(frozen=True)
class Origin:
    """Where values of a row were written: a file and the places of its sections, weakest first.

    Overrides of the study and the variant, if any, are laid on top. ``gives`` is the one value that stands at the
    places; "" where they are sections of values.
    """

    kind: str
    name: str
    places: tuple[Place, ...]
    study: str
    variant: str = ""
    gives: str = ""


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


class Builder:
    """Collects the rows of one study, and where each row's values come from, by stage and key."""

    def __init__(self, name: str, study: StudyFile) -> None:
        self.name, self.study = name, study
        self.where = f"workflow/studies/{name}.yaml"
        self.rows: dict[str, dict[str, Values]] = {stage: {} for stage in STAGES if stage != "tables"}
        self.datasets: dict[str, Dataset] = {}
        self.origins: dict[tuple[str, str], list[Origin]] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._files: dict[tuple[str, str], Any] = {}

    def build(self) -> Plan:
        """The study's plan; refuses unknown names and values that are not allowed."""
        self.check()
        for grid in self.study.parts():
            crossed = (grid.datasets, grid.recipes, grid.ipc, grid.variants)
            for cell in itertools.starmap(Cell, itertools.product(*(values or [] for values in crossed))):
                self.evaluations(cell, grid)
        for stage in APPLICATIONS:
            for i, part in enumerate(getattr(self.study, stage)):
                self.applications(stage, i, part)
        self.group_statistics()
        values = {
            "studies": {self.name: {stage: list(self.rows[stage]) for stage in StudyRuns.model_fields}},
            "machine": self.study.machine.model_dump(mode="json", exclude={"precision"}),
            "datasets": {name: _dump(dataset) for name, dataset in self.datasets.items()},
            **self.rows,
        }
        plan: Plan = validate(Plan, values, self.where)
        check_references(plan, self.where)
        return plan

    def check(self) -> None:
        """An override or a variant that nothing uses is a misspelling."""
        parts = [*self.study.parts(), *(part for stage in APPLICATIONS for part in getattr(self.study, stage))]
        used: dict[str, list[str]] = {
            kind: list(dict.fromkeys(name for part in parts for name in getattr(part, kind, None) or []))
            for kind in ("recipes", "protocols", "variants")
        }
        used["datasets"] = [*self.study.datasets, *(name for grid in self.study.grids for name in grid.datasets or [])]
        used["protocols"] = [name for name in used["protocols"] if name != "default"]
        for kind in ("datasets", "recipes", "protocols"):
            for name in used[kind]:
                self.file(kind, name)
        used["protocols"] += [self.file("recipes", recipe).protocol for recipe in used["recipes"]]
        for kind, entries in self.study.overrides:
            for name in entries:
                if name not in used[kind]:
                    raise unknown_name(kind.removesuffix("s"), name, used[kind], f"{self.where}: overrides.{kind}")
        for name in used["variants"]:
            if name and name not in self.study.variants:
                raise unknown_name("variant", name, self.study.variants, f"{self.where}: grids or slimming")
        if unused := [name for name in self.study.variants if name not in used["variants"]]:
            raise EdcError(
                f"{self.where}: variants.{unused[0]}: expected its name in grids or slimming; add or delete it"
            )

    def file(self, kind: str, name: str) -> Any:
        """A dataset, recipe or protocol with what the study lays over it."""
        if (kind, name) not in self._files:
            overrides = getattr(self.study.overrides, kind).get(name)
            self._files[kind, name] = read(kind, name, overrides, self.where)
        return self._files[kind, name]

    def source(self, kind: str, name: str, variant: str = "") -> str:
        """The file of a dataset, recipe or protocol for messages, after what the study lays over it."""
        laid = [f"overrides.{kind}.{name}"] if name in getattr(self.study.overrides, kind) else []
        laid += [f"variants.{variant}"] if variant else []
        path = f"workflow/{kind}/{name}.yaml"
        return f"{self.where}: {' and '.join(laid)}, laid over {path}" if laid else path

    def add(self, stage: str, key: str, row: Values, origins: list[Origin]) -> str:
        """Put a row under its key, with a number if that is taken, or find the key of one with the same values."""
        row["precision"] = self.study.machine.precision
        same = stage, identity(row)
        if same not in self._keys:
            key = free_key(_key(key), self.rows[stage])
            self.rows[stage][key], self._keys[same] = row, key
            self.origins[stage, key] = [*origins, Origin("studies", self.name, (), self.name)]
        return self._keys[same]

    def dataset(self, name: str) -> Dataset:
        """A dataset, put among those of the plan."""
        if name not in self.datasets:
            file: DatasetFile = self.file("datasets", name)
            path = self.source("datasets", name)
            self.datasets[name] = validate(Dataset, {"name": name, "family": name} | file.data, f"{path}: data")
            for network in file.networks:
                try:  # it need not be among the observers, which an inheriting file may have cut down
                    check_name(network)
                except EdcError as error:
                    raise EdcError(f"{path}: networks: {error}") from None
        return self.datasets[name]

    def pretrain(self, name: str, network: str, seed: int | None = None) -> str:
        """A network trained on the dataset; with the seed of the dataset's observers, or another."""
        file: DatasetFile = self.file("datasets", name)
        values = merge(_dump(file.pretrain), file.networks.get(network, {}))
        checked = validate(type(file.pretrain), values, f"{self.source('datasets', name)}: networks.{network}")
        origin = Origin("datasets", name, (("pretrain",), ("networks", network)), self.name)
        row: Values = {"dataset": name, "network": network} | _dump(checked)
        key = f"{name}-{network}"
        if seed not in (None, row["seed"]):
            row["seed"], key = seed, f"{key}-seed{seed}"
        return self.add("pretrain", key, row, [origin])

    def section(
        self, cell: Cell, kind: str, name: str, section: str, model: type[Model], *stronger: Place
    ) -> tuple[Any, Origin]:
        """One section of a recipe or protocol for a cell, complete, and where its values come from."""
        where = (*places((section,), self.datasets[cell.dataset].family, cell.ipc), *stronger)
        change = getattr(self.study.variants.get(cell.variant, Variant()), kind.removesuffix("s"))
        source = self.source(kind, name, cell.variant if getattr(change, section) else "")
        choices = resolve(self.file(kind, name), where, model, source, getattr(change, section))
        return choices, Origin(kind, name, where, self.name, cell.variant)

    def observers(self, cell: Cell, kind: str, name: str, role: str, gives: str) -> tuple[list[str], Origin]:
        """Rows of the observers a recipe or protocol uses; default: all of the dataset's, for scores the first."""
        known = self.file("datasets", cell.dataset).observers
        where = tuple(places(("observers", role), self.datasets[cell.dataset].family, cell.ipc))
        chosen = strongest(self.file(kind, name), where) or ("first" if role == "score" else "all")
        if isinstance(chosen, str):
            chosen = known[:1] if chosen == "first" else known
        for network in chosen:
            if network not in known:
                path = f"{self.source(kind, name)}: observers.{role}"
                raise unknown_name(f"observer of {cell.dataset}", network, known, path)
        keys = [self.pretrain(cell.dataset, network) for network in chosen]
        return keys, Origin(kind, name, where, self.name, gives=gives)

    def evaluations(self, cell: Cell, grid: Grid) -> None:
        """Images of one cell, and the students that learn from them."""
        dataset, recipe = self.dataset(cell.dataset), self.file("recipes", cell.recipe)
        if recipe.real and cell.ipc != max(grid.ipc or [cell.ipc]):
            return  # the whole training set is the same whatever the number of images per class
        images = None if recipe.real else self.images(cell)
        own = own_protocol(recipe, dataset.family, cell.ipc)
        protocols = [own] if recipe.real else [own if name == "default" else name for name in grid.protocols or []]
        for protocol, network in itertools.product(dict.fromkeys(protocols), grid.students or []):
            row, origins = self.student(cell, images, protocol, network, grid.seeds or [])
            over = self.study.overrides
            laid = (over.recipes.get(cell.recipe, {}), over.protocols.get(protocol, {}))
            row |= {"variant": cell.variant, "changed": any(map(_changes, laid)), "split": self.study.split}
            self.add("evaluate", f"{cell.key(images)}-{network}-{protocol}{self.suffix(cell)}", row, origins)

    def suffix(self, cell: Cell) -> str:
        """The end of a key: the variant, and the images where they are not the test images."""
        return cell.suffix if self.study.split == "test" else f"{cell.suffix}-{self.study.split}"

    def applications(self, stage: str, i: int, part: Application) -> None:
        """Rows of continual learning, slimming or the analysis."""
        own = {name: value for name, value in _dump(part).items() if name not in CROSSED}
        variants = own.pop("variants", [""])
        crossed = (self.study.datasets, part.recipes, part.ipc, variants, part.protocols, part.students)
        for name, recipe_name, ipc, variant, protocol, network in itertools.product(*crossed):
            dataset, recipe = self.dataset(name), self.file("recipes", recipe_name)
            cell = Cell(name, recipe_name, ipc, variant)
            images = None if recipe.real else self.images(cell)
            if recipe.real or protocol == "default":
                protocol = own_protocol(recipe, dataset.family, ipc)
            row, origins = self.student(cell, images, protocol, network, part.seeds)
            origins = [Origin("studies", self.name, ((stage, i),), self.name), *origins]
            row, key = row | own, f"{cell.key(images)}-{network}-{protocol}"
            if isinstance(part, Slimming):
                row["pretrained"] = [self.pretrain(name, network, s) for s in part.seeds] if part.pretrained else None
                row |= {"variant": cell.variant, "split": self.study.split}
                key += ("-pretrained" if part.pretrained else "") + self.suffix(cell)
            self.add(stage, key, row, origins)

    def images(self, cell: Cell) -> str:
        choices, origin = self.section(cell, "recipes", cell.recipe, "synthesize", SynthesisChoices)
        own = self.study.variants.get(cell.variant, Variant()).seed
        row: Values = {"dataset": cell.dataset, "recipe": cell.recipe, "ipc": cell.ipc}
        row |= {"seed": self.study.seed if own is None else own, "statistics": None, "observers": [], "scorers": []}
        origins = [origin]
        if choices.optimise.iterations:
            row["observers"], origin = self.observers(cell, "recipes", cell.recipe, "match", "observers")
            origins.append(origin)
            if choices.match.needs_statistics:
                row["statistics"] = self.statistics(cell.dataset)
        if choices.initialise.method in SCORED:
            row["scorers"], origin = self.observers(cell, "recipes", cell.recipe, "score", "scorers")
            origins.append(origin)
        row |= _dump(choices)
        row["augment"]["flip"] = row["augment"]["flip"] and self.datasets[cell.dataset].flip
        key = f"{cell.dataset}-{cell.recipe}-ipc{cell.ipc}{cell.suffix}"
        return self.add("synthesize", key, row, origins)

    def statistics(self, name: str) -> str:
        choices = self.file("datasets", name).statistics
        row, origin = {"dataset": name, "observers": []}, Origin("datasets", name, (("statistics",),), self.name)
        return self.add("statistics", f"{name}-p{choices.patch}", row | _dump(choices), [origin])

    def group_statistics(self) -> None:
        """One pass over a dataset serves every observer that any recipe matches, in the order of the dataset's.

        Where a study matches some of them only, the pass bears their names: the same key means the same run anywhere.
        """
        pretrain, synthesize = self.rows["pretrain"], self.rows["synthesize"].values()
        for key, row in list(self.rows["statistics"].items()):
            users = [images for images in synthesize if images["statistics"] == key]
            order: list[str] = read("datasets", row["dataset"], None, self.where).observers
            # A study may name observers of its own; they come last.
            place = {network: i for i, network in enumerate(order)}
            matched = {observer for images in users for observer in images["observers"]}
            row["observers"] = sorted(matched, key=lambda o: (place.get(pretrain[o]["network"], len(order)), o))
            networks = [pretrain[observer]["network"] for observer in row["observers"]]
            if networks != order:
                name = _key("-".join([key, *networks]))
                self.rows["statistics"][name] = self.rows["statistics"].pop(key)
                self.origins["statistics", name] = self.origins.pop(("statistics", key))
                for images in users:
                    images["statistics"] = name

    def student(
        self, cell: Cell, images: str | None, protocol: str, network: str, seeds: list[int]
    ) -> tuple[Values, list[Origin]]:
        """The values of a student in training, its labels among the rows: see ``StudentRow``."""
        student, origin = self.section(cell, "protocols", protocol, "student", StudentChoices, ("students", network))
        ipc = cell.ipc if images is not None else 0
        row: Values = {"dataset": cell.dataset, "recipe": cell.recipe, "ipc": ipc, "student": network}
        row |= {"protocol": protocol, "regime": self.file("protocols", protocol).regime}
        row |= {"images": images, "labels": None, "seeds": list(seeds), **_dump(student)}
        if images is not None:
            row["batch"] = min(student.batch, self.datasets[cell.dataset].classes * cell.ipc)
            row["labels"] = self.labels(cell, images, protocol, row | {"epochs": student.label_epochs}, origin)
        return row, [origin, Origin("protocols", protocol, (("regime",),), self.name, gives="regime")]

    def labels(self, cell: Cell, images: str, protocol: str, student: Values, origin: Origin) -> str:
        """Soft labels as a student needs them: for each of its epochs with soft labels, in its batches."""
        dataset = self.datasets[cell.dataset]
        choices, own = self.section(cell, "protocols", protocol, "relabel", LabelChoices)
        teachers, chosen = self.observers(cell, "protocols", protocol, "label", "observers")
        row: Values = {"dataset": cell.dataset, "images": images, "observers": teachers}
        stored = min(student["epochs"], choices.views or student["epochs"])
        row |= {"epochs": stored, "batch": student["batch"], **_dump(choices)}
        row["flip"] = choices.flip and dataset.flip
        if choices.min_accuracy is None:
            row["min_accuracy"] = twice_chance(dataset.classes)
        return self.add("relabel", f"{images}-{protocol}", row, [own, chosen, origin])


def identity(row: Values) -> str:
    """The values of a row; which recipe condensed images bear the name of is none."""
    return repr(sorted((name, value) for name, value in row.items() if name != "recipe" or "initialise" not in row))


def _key(name: str) -> str:
    """A name as a key: other signs, as in torchvision:resnet18 and timm:resnet18.a1_in1k, mean something to DVC."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _dump(model: Model) -> Values:
    return model.model_dump(mode="json")


def _changes(laid: Values) -> bool:
    """Whether values laid over a recipe or protocol make another of it.

    Its observers depend on the dataset, and how often a student is evaluated plays no part in its training.
    """
    kept = [value for key, value in laid.items() if key not in {"observers", "validations"}]
    return any(not isinstance(value, dict) or _changes(value) for value in kept)
