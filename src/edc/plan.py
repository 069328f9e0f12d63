"""Study -> plan: every run of every stage, with every value, in ``params.yaml``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from edc import STAGES, dag
from edc.errors import EdcError, unknown_name
from edc.nets import check_name
from edc.params import (
    Dataset,
    LabelChoices,
    Model,
    Plan,
    StudentChoices,
    SynthesisChoices,
    check_references,
    twice_chance,
    validate,
)
from edc.storage import STATE, write_text
from edc.studies import DatasetFile, ProtocolFile, RecipeFile, StudyFile, layers, merge, names, read, resolve

HEADER = """\
# The active plan: study {study!r}, every run with every value. Written by `edc plan {study}`.
# Values may be edited here; the runs they belong to, and what depends on those, become stale.
"""


class _Builder:
    """Collects the rows of one study; rows with the same values are one row."""

    def __init__(self, name: str, study: StudyFile) -> None:
        self.name, self.study = name, study
        self.rows: dict[str, dict[str, dict[str, Any]]] = {stage: {} for stage in STAGES if stage != "tables"}
        self.datasets: dict[str, Dataset] = {}

    def add(self, stage: str, key: str, row: dict[str, Any]) -> str:
        """Put a row under its key; the same key with other values gets a number behind it."""
        # Other signs, as in torchvision:resnet18 and timm:resnet18.a1_in1k, mean something to DVC.
        key = re.sub(r"[^A-Za-z0-9_-]", "_", key)
        rows, candidate, count = self.rows[stage], key, 1
        while candidate in rows and rows[candidate] != row:
            count += 1
            candidate = f"{key}-{count}"
        rows[candidate] = row
        return candidate

    def dataset(self, name: str) -> DatasetFile:
        file: DatasetFile = read("datasets", name, self.study.overrides.get("datasets", {}).get(name), self.where)
        values = {"name": name, "family": name} | file.data
        self.datasets[name] = validate(Dataset, values, f"workflow/datasets/{name}.yaml: data")
        for network in file.networks:
            try:  # it need not be among the observers, which an inheriting file may have cut down
                check_name(network)
            except EdcError as error:
                raise EdcError(f"workflow/datasets/{name}.yaml: networks: {error}") from None
        return file

    @property
    def where(self) -> str:
        return f"workflow/studies/{self.name}.yaml"

    def pretrain(self, name: str, file: DatasetFile, network: str) -> str:
        values = merge(_dump(file.pretrain), file.networks.get(network, {}))
        validate(type(file.pretrain), values, f"workflow/datasets/{name}.yaml: networks.{network}")
        return self.add("pretrain", f"{name}-{network}", {"dataset": name, "network": network} | values)

    def observers(self, name: str, data: DatasetFile, recipe: str, file: RecipeFile, use: Any, ipc: int) -> list[str]:
        """Rows of the observers a recipe matches or labels with; default all of the dataset's."""
        wanted = file.observers.get(use)
        for _, layer in layers(file, self.datasets[name].family, ipc):
            wanted = layer.observers.get(use, wanted)
        for network in wanted or []:
            if network not in data.observers:
                known = ", ".join(data.observers)
                raise EdcError(
                    f"workflow/recipes/{recipe}.yaml: observers.{use}: {network!r} is no observer of {name} ({known})"
                )
        return [self.pretrain(name, data, network) for network in (data.observers if wanted is None else wanted)]

    def build(self) -> Plan:
        study = self.study
        self.check_overrides()
        for name in study.datasets:
            data = self.dataset(name)
            for recipe_name in study.recipes:
                overrides = study.overrides.get("recipes", {}).get(recipe_name)
                recipe: RecipeFile = read("recipes", recipe_name, overrides, self.where)
                for ipc in study.ipc:
                    self.recipe(name, data, recipe_name, recipe, ipc)
        values = {
            "study": self.name,
            "machine": _dump(study.machine),
            "datasets": {name: _dump(dataset) for name, dataset in self.datasets.items()},
            **self.rows,
            "tables": {self.name: {"evaluate": list(self.rows["evaluate"])}},
        }
        self.group_statistics(values)
        plan: Plan = validate(Plan, values, self.where)
        check_references(plan, self.where)
        return plan

    def check_overrides(self) -> None:
        """An override of something the study doesn't use is a misspelling."""
        study = self.study
        for kind, wanted in (("datasets", study.datasets), ("protocols", study.protocols)):
            for name in wanted:
                if name != "default":
                    read(kind, name, None, self.where)
        own = [read("recipes", recipe, None, self.where).protocol for recipe in study.recipes]
        used = {"datasets": study.datasets, "recipes": study.recipes, "protocols": [*study.protocols, *own]}
        for kind, entries in study.overrides.items():
            for name in entries:
                if name not in used[kind]:
                    raise unknown_name(kind.removesuffix("s"), name, used[kind], f"{self.where}: overrides.{kind}")

    def recipe(self, name: str, data: DatasetFile, recipe_name: str, recipe: RecipeFile, ipc: int) -> None:
        dataset = self.datasets[name]
        where = f"workflow/recipes/{recipe_name}.yaml"
        choices = resolve(recipe, "synthesize", dataset.family, ipc, SynthesisChoices, where)
        row: dict[str, Any] = {"dataset": name, "recipe": recipe_name, "ipc": ipc, "seed": self.study.seed}
        if choices.optimise.iterations:
            row["statistics"] = self.statistics(name, data)
            row["observers"] = self.observers(name, data, recipe_name, recipe, "match", ipc)
        else:
            row |= {"statistics": None, "observers": []}
        row |= _dump(choices)
        row["augment"]["flip"] = row["augment"]["flip"] and dataset.flip
        images = self.add("synthesize", f"{name}-{recipe_name}-ipc{ipc}", row)
        own = recipe.protocol
        for _, layer in layers(recipe, dataset.family, ipc):
            own = layer.protocol or own
        for protocol_name in dict.fromkeys(own if p == "default" else p for p in self.study.protocols):
            overrides = self.study.overrides.get("protocols", {}).get(protocol_name)
            protocol: ProtocolFile = read("protocols", protocol_name, overrides, self.where)
            labellers = self.observers(name, data, recipe_name, recipe, "label", ipc)
            self.protocol(name, recipe_name, ipc, images, labellers, protocol_name, protocol)

    def statistics(self, name: str, data: DatasetFile) -> str:
        key = f"{name}-p{data.statistics.patch}"
        self.rows["statistics"].setdefault(key, {"dataset": name, "observers": []} | _dump(data.statistics))
        return key

    @staticmethod
    def group_statistics(values: dict[str, Any]) -> None:
        """One pass over a dataset serves every observer that any recipe matches."""
        for row in values["synthesize"].values():
            if row["statistics"] is not None:
                group = values["statistics"][row["statistics"]]["observers"]
                group.extend(observer for observer in row["observers"] if observer not in group)

    def protocol(
        self,
        name: str,
        recipe: str,
        ipc: int,
        images: str,
        labellers: list[str],
        protocol: str,
        file: ProtocolFile,
    ) -> None:
        dataset = self.datasets[name]
        where = f"workflow/protocols/{protocol}.yaml"
        student: StudentChoices = resolve(file, "student", dataset.family, ipc, StudentChoices, where)
        label: LabelChoices = resolve(file, "relabel", dataset.family, ipc, LabelChoices, where)
        batch = min(student.batch, dataset.classes * ipc)
        label_row = {
            "dataset": name,
            "images": images,
            "observers": labellers,
            "epochs": student.epochs,
            "batch": batch,
            "flip": dataset.flip,
            **_dump(label),
        }
        if label.min_accuracy is None:
            label_row["min_accuracy"] = twice_chance(dataset.classes)
        labels = self.add("relabel", f"{images}-b{batch}-e{student.epochs}", label_row)
        for network in self.study.students:
            row = {
                "dataset": name,
                "recipe": recipe,
                "ipc": ipc,
                "student": network,
                "protocol": protocol,
                "regime": file.regime,
                "images": images,
                "labels": labels,
                "seeds": list(self.study.seeds),
                **_dump(student),
                "batch": batch,
            }
            self.add("evaluate", f"{name}-{recipe}-ipc{ipc}-{network}-{protocol}", row)


def _dump(model: Model) -> dict[str, Any]:
    return model.model_dump(mode="json")


def make_plan(name: str) -> Plan:
    """Spell a study out.

    Raises:
        EdcError: the study, or anything it names, is unknown or holds a value that is not allowed.
    """
    return _Builder(name, read("studies", name)).build()


def render(plan: Plan) -> str:
    """``params.yaml`` as text: plain YAML, keys in the order of the models."""
    body = yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False, width=110, default_flow_style=None)
    return HEADER.format(study=plan.study) + body


def write_plan(plan: Plan, root: Path = Path(".")) -> Path | None:
    """Write ``params.yaml`` and the ``dvc.yaml`` that belongs to it; each appears whole or not at all.

    Returns:
        Where the ``params.yaml`` that stood there is kept, if it was another one: it may have been edited by hand.
    """
    path, kept = root / "params.yaml", None
    text = render(plan)
    if path.exists() and (old := path.read_text(encoding="utf-8")) != text:
        kept = root / STATE / "params.previous.yaml"
        write_text(kept, old)
    write_text(path, text)
    write_dag(plan, root)
    return kept


def write_dag(plan: Plan, root: Path = Path(".")) -> None:
    """Write the ``dvc.yaml`` of a plan."""
    write_text(root / "dvc.yaml", dag.render(plan))


def list_studies() -> list[tuple[str, StudyFile | EdcError, Plan | None]]:
    """Every study with its plan, or with what is wrong with it."""
    found: list[tuple[str, StudyFile | EdcError, Plan | None]] = []
    for name in names("studies"):
        try:
            found.append((name, read("studies", name), make_plan(name)))
        except EdcError as error:
            found.append((name, error, None))
    return found
