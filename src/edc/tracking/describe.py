"""What MLflow shows: of a finished run its name, the values a person compares, metrics, pictures; and lists of runs.

MLflow's own list shows neither metrics nor parameters until somebody picks columns. It keeps such choices as saved
views in tags of the experiment; links in the experiment's description open them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edc.config.rows import Plan
from edc.storage import checked, read_json, run_folder

RUN, DIGEST, STAGE, SEED = "edc.run", "edc.digest", "edc.stage", "edc.seed"
"""Tags of MLflow's runs; that of a whole evaluation has the seed ``all``."""
PLAIN = "dataset recipe ipc variant network student protocol regime split seed images mix epochs batch ema precision"
PARAMS = {name: name for name in PLAIN.split()} | {
    "optimiser": "optimiser.name",
    "lr": "optimiser.lr",
    "schedule": "schedule.name",
    "loss": "loss.name",
    "initialise": "initialise.method",
    "match": "match.target",
    "regularise": "regularise.method",
    "iterations": "optimise.iterations",
}
"""Parameters in MLflow, and where they stand in a row; those a stage does not have are left out."""
METRICS = {
    "final": "final_accuracy",
    "best": "best_accuracy",
    "average": "average_accuracy",
    "before": "accuracy_before",
    "after": "accuracy_after",
}
"""Scores of a manifest that have another name in MLflow."""
HISTORIES = {"pretrain": "epoch", "synthesize": "iteration", "evaluate": "epoch"}
"""Stages whose history becomes metrics, and the column that gives the step."""
POINTS = 200
"""Of a curve: MLflow draws no more."""
VIEWS = {
    "accuracy": (
        f"tags.`{STAGE}` = 'evaluate' and tags.`{SEED}` = 'all'",
        "final_accuracy final_accuracy_std best_accuracy image_kb label_kb seconds",
    ),
    "applications": (
        f"tags.`{STAGE}` != 'evaluate'",
        "average_accuracy forgetting accuracy_before accuracy_after seconds",
    ),
}
"""Lists of a study's experiment: which runs, and their metrics; the first sorts."""
STAGE_VIEWS = {"seconds": ("", "seconds val_accuracy agreement image_kb")}
VIEW_PARAMS = "recipe ipc student protocol regime variant split network iterations epochs batch lr"
VIEW_NAME = "attributes.`Run Name`"

Metric = tuple[str, float, int]
"""Name, value, step."""


@dataclass(frozen=True)
class Finished:
    """A finished run: its name in MLflow, its manifest, and the manifest's fingerprint."""

    stage: str
    key: str
    name: str
    manifest: dict[str, Any]
    digest: str

    @property
    def path(self) -> str:
        """What MLflow's runs are recognised by."""
        return f"{self.stage}/{self.key}"

    @property
    def row(self) -> dict[str, Any]:
        """The values of the run."""
        return dict(self.manifest["params"][self.stage])

    @property
    def seeds(self) -> list[int]:
        """Seeds with a run of their own in MLflow."""
        return list(self.row["seeds"]) if self.stage == "evaluate" else []


@dataclass(frozen=True)
class Tracked:
    """A run as MLflow gets it: the dataset as name and digest, times in milliseconds since 1970."""

    name: str
    tags: dict[str, str]
    params: dict[str, object]
    metrics: list[Metric]
    dataset: tuple[str, str]
    start: int
    end: int
    pictures: list[Path]
    children: list[Tracked] = field(default_factory=list)


def names(plan: Plan, runs: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Short names of the runs of one experiment that start with what differs: ``edc ipc10 convnet_d2``."""
    words = {(stage, key): _words(stage, key, plan.row(stage, key)) for stage, key in runs}
    every = [set(values) for values in zip(*(words for words in words.values() if len(words) > 2), strict=True)]
    differs = [i for i, values in enumerate(every) if len(values) > 1]
    order = differs + [i for i in (2, 3, 4) if i not in differs]  # recipe, IPC and student always
    picked = {run: [of[i] for i in order] if len(of) > 2 else of for run, of in words.items()}
    return {run: " ".join(filter(None, of)) for run, of in picked.items()}


def _words(stage: str, key: str, row: Any) -> list[str]:
    if not hasattr(row, "student"):
        return [stage, key.removeprefix(f"{row.dataset}-").replace("-", " ")]
    ipc, protocol = f"ipc{row.ipc}" if row.ipc else "", row.protocol if row.protocol != row.recipe else ""
    split = "val" if getattr(row, "split", "test") == "val" else ""
    first = [stage if stage != "evaluate" else "", row.dataset]
    return [*first, row.recipe, ipc, row.student, protocol, getattr(row, "variant", ""), split]


def describe(run: Finished) -> Tracked:
    """What MLflow gets of a run, read from its folder."""
    import pandas as pd

    folder = run_folder(run.stage, run.key)
    environment = read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    end = int((folder / "manifest.json").stat().st_mtime * 1000)
    pictures = sorted(folder.glob("*.png"))
    if run.row.get("images") and run.stage != "relabel":
        pictures += run_folder("synthesize", run.row["images"]).glob("contact_sheet.png")
    tracked = Tracked(
        name=run.name,
        tags=_tags(run, environment),
        params=_params(run),
        metrics=list(_scores(run.manifest, environment)),
        dataset=(run.row["dataset"], run.manifest["dataset_digest"][:16]),
        start=end - int(1000 * environment.get("seconds", 0)),
        end=end,
        pictures=pictures,
    )
    path, axis = folder / "history.csv", HISTORIES.get(run.stage, "epoch")
    known = run.stage in HISTORIES and path.exists()
    if known and path.name in run.manifest["files"]:
        checked(folder, run.manifest, path.name)
    history = pd.read_csv(path) if known else pd.DataFrame(columns=["seed", axis, "lr", "train_loss"])
    children = [_seed(run, tracked, seed, history[history["seed"] == seed]) for seed in run.seeds]
    own = history.drop(columns="train_loss") if children else history
    return replace(tracked, metrics=[*tracked.metrics, *_series(own, axis)], children=children)


def _seed(run: Finished, parent: Tracked, seed: int, history: Any) -> Tracked:
    """The run of one seed of an evaluation."""
    scores, place = run.manifest["scores"], run.seeds.index(seed)
    final_best = [(METRICS[name], round(scores[name][place], 4), 0) for name in ("final", "best")]
    return replace(
        parent,
        name=f"seed {seed} {run.name}",
        tags=parent.tags | {RUN: f"{run.path}/{seed}", SEED: str(seed)},
        params=parent.params | {"seed": seed},
        metrics=[*final_best, *_series(history.drop(columns="lr"), "epoch")],  # that is the same for every seed
        pictures=[],
    )


def _params(run: Finished) -> dict[str, object]:
    values: dict[str, object] = {"optimiser_steps": run.manifest.get("steps")}
    for name, (first, *rest) in ((name, path.split(".")) for name, path in PARAMS.items()):
        value = run.row.get(first)
        values[name] = (value or {}).get(rest[0]) if rest else value
    return {name: value for name, value in values.items() if value not in (None, "")}


def _tags(run: Finished, environment: Mapping[str, Any]) -> dict[str, str]:
    tags: dict[str, object] = {RUN: run.path, DIGEST: run.digest, STAGE: run.stage, SEED: "all"}
    tags |= {"mlflow.source.name": f"edc {run.stage}", "mlflow.source.git.commit": environment.get("commit")}
    tags |= {f"edc.{name}": environment.get(name) for name in ("commit", "dirty", "device")}
    return {name: str(value) for name, value in tags.items() if value is not None}


def experiment_tags(experiment: str, number: str) -> dict[str, str]:
    """Tags of an experiment, from its name and its identifier: its views, and a description that links them."""
    views = STAGE_VIEWS if experiment.endswith(" stages") else VIEWS
    link = f"#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey="
    made = {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": "Lists with metrics first: " + ", ".join(f"[{name}]({link}{name})" for name in views),
    }
    for name, (runs, metrics) in views.items():
        columns = [f"metrics.`{metric}`" for metric in metrics.split()] + [f"params.`{p}`" for p in VIEW_PARAMS.split()]
        state = {"searchFilter": runs, "orderByKey": columns[0], "orderByAsc": False, "selectedColumns": columns}
        state |= {"columnOrder": [VIEW_NAME, *columns], "columnWidths": {VIEW_NAME: 320} | dict.fromkeys(columns, 125)}
        view = {"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
        made[f"mlflow.sharedViewState.{name}"] = json.dumps(view)
    return made


def _scores(manifest: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterator[Metric]:
    """Numbers of a whole run: scores (those that are lists by classes or pruned percent), kB, seconds."""
    scores = manifest.get("scores", {})
    axis = scores.get("classes") or [round(100 * ratio) for ratio in scores.get("ratios", [])]
    for key, value in scores.items():
        base = key.removesuffix("_mean").removesuffix("_std")
        name = METRICS.get(base, base) + ("_std" if key.endswith("_std") else "")
        if isinstance(value, (int, float)):
            yield name, round(value, 4), 0
        elif key.endswith("_mean"):
            yield from ((name, round(v, 4), step) for step, v in zip(axis, value, strict=True) if v is not None)
    numbers = {f"{name}_kb": manifest.get(f"{name}_bytes", 0) / 1000 for name in ("image", "label")}
    numbers |= {"seconds": environment.get("seconds"), "agreement": manifest.get("agreement")}
    if isinstance(accuracies := manifest.get("val_accuracy"), Mapping):  # of each teacher
        numbers["val_accuracy"] = sum(accuracies.values()) / max(len(accuracies), 1)
    yield from ((name, round(value, 4), 0) for name, value in numbers.items() if value)


def _series(history: Any, axis: str) -> Iterator[Metric]:
    """Columns of a history by epoch or iteration, means of seeds or groups, at most POINTS of each and the last."""
    means = history.groupby(axis).mean().drop(columns=["seed", "group", "observer"], errors="ignore")
    for name in means:
        values = means[name].dropna()
        values = values[:: -(len(values) // POINTS + 1)]
        yield from ((name, float(f"{value:.6g}"), int(step)) for step, value in values.items())
