"""The small study of digits as files, with values that let every stage run in seconds."""

from typing import Any

from support.laboratory import DATA
from support.study import APPLICATION
from support.study import STUDY as EVERY_KIND

DATASET: dict[str, Any] = {
    "description": "a few handwritten digits",
    "title": "digits, a few",
    "data": {name: value for name, value in DATA.items() if name != "name"} | {"test_per_class": 5},
    "observers": ["convnet_w32", "wrn_16_2"],
    "pretrain": {
        "epochs": 10,
        "batch": 16,
        "optimiser": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
        "schedule": {"name": "smoothing", "zeta": 1.0},
    },
    "networks": {"convnet_w32": {"epochs": 20}},
    "statistics": {"patch": 4, "batch": 32},
}
STUDENT: dict[str, Any] = {"epochs": 6, "batch": 5, "validations": 2, "ema": 0.5}
STUDENT["optimiser"] = {"name": "adamw", "lr": 0.003}
PROTOCOL = {"families": {"digits": {"student": STUDENT}}}
STUDY: dict[str, Any] = EVERY_KIND | {
    "datasets": ["tiny"],
    "slimming": [
        APPLICATION
        | {"recipes": ["random"], "students": ["vgg11_bn"], "sparsity": 0.001, "ratios": [0.3], "finetune": 2}
        | {"min_accuracy": 0.0}
    ],
    "analysis": [],
    "overrides": {
        "recipes": {"edc": {"families": {"digits": {"synthesize": {"optimise": {"iterations": 6}}}}}},
        "protocols": dict.fromkeys(("edc", "hard_label", "real_data"), PROTOCOL)
        | {"rded": PROTOCOL | {"ipc": {1: {"student": {"batch": 5}}}}},
    },
}
