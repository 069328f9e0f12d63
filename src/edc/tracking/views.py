"""Lists of runs as MLflow opens them: which runs, in which order, metrics first.

MLflow's own list shows neither metrics nor parameters until somebody picks columns. It keeps such choices as saved
views in tags of the experiment; links in the experiment's description open them.
"""

from __future__ import annotations

import json

STUDY = {
    "accuracy": (
        "tags.`edc.stage` = 'evaluate' and tags.`edc.seed` = 'all'",
        "final_accuracy final_accuracy_std best_accuracy image_kb label_kb seconds",
    ),
    "applications": (
        "tags.`edc.stage` != 'evaluate'",
        "average_accuracy forgetting accuracy_before accuracy_after seconds",
    ),
}
STAGES = {"seconds": ("", "seconds val_accuracy agreement image_kb")}
PARAMS = "recipe ipc student protocol regime variant network iterations epochs batch lr"
NAME = "attributes.`Run Name`"


def tags(experiment: str, number: str) -> dict[str, str]:
    """Tags of an experiment, from its name and its identifier: its views, and a description that links them."""
    views = STAGES if experiment.endswith(" stages") else STUDY
    link = f"#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey="
    made = {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": "Lists with metrics first: " + ", ".join(f"[{name}]({link}{name})" for name in views),
    }
    for name, (runs, metrics) in views.items():
        columns = [f"metrics.`{metric}`" for metric in metrics.split()] + [f"params.`{p}`" for p in PARAMS.split()]
        state = {"searchFilter": runs, "orderByKey": columns[0], "orderByAsc": False, "selectedColumns": columns}
        state |= {"columnOrder": [NAME, *columns], "columnWidths": {NAME: 320} | dict.fromkeys(columns, 125)}
        view = {"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
        made[f"mlflow.sharedViewState.{name}"] = json.dumps(view)
    return made
