"""A small study of a few handwritten digits that runs every stage in seconds."""

from __future__ import annotations

from typing import Any

DATASET: dict[str, Any] = {
    "description": "a few handwritten digits",
    "title": "digits, a few",
    "data": {
        "family": "digits",
        "kind": "digits",
        "image_size": 8,
        "channels": 1,
        "classes": 10,
        "mean": [0.306],
        "std": [0.342],
        "pad": 1,
        "flip": False,
        "val_fraction": 0.25,
        "train_per_class": 20,
        "test_per_class": 5,
    },
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
STUDENT: dict[str, Any] = {
    "epochs": 6,
    "batch": 5,
    "validations": 2,
    "ema": 0.5,
    "optimiser": {"name": "adamw", "lr": 0.003},
}
STUDY: dict[str, Any] = {
    "description": "the whole DAG in seconds",
    "datasets": ["tiny"],
    "recipes": ["edc", "random"],
    "ipc": [1],
    "protocols": ["edc", "hard_label"],
    "students": ["convnet_d2"],
    "seeds": [0, 1],
    "machine": {"device": "cpu", "threads": 1},
    "variants": {"ema=no": {"protocol": {"student": {"ema": None}}}},
    "grids": [
        {},
        {"recipes": ["rded", "full"], "protocols": ["default"]},
        {"recipes": ["edc"], "protocols": ["edc"], "variants": ["ema=no"]},
    ],
    "continual": [{"recipes": ["edc"], "ipc": [1], "protocols": ["edc"], "students": ["convnet_d2"], "steps": 2}],
    "slimming": [
        {
            "recipes": ["random"],
            "ipc": [1],
            "protocols": ["edc"],
            "students": ["vgg11_bn"],
            "sparsity": 0.001,
            "ratios": [0.3],
            "finetune": 2,
        }
    ],
    "overrides": {
        "recipes": {"edc": {"families": {"digits": {"synthesize": {"optimise": {"iterations": 6}}}}}},
        "protocols": {
            "edc": {"families": {"digits": {"student": STUDENT}}},
            "hard_label": {"families": {"digits": {"student": STUDENT}}},
            "rded": {"families": {"digits": {"student": STUDENT}}, "ipc": {1: {"student": {"batch": 5}}}},
            "real_data": {"families": {"digits": {"student": STUDENT}}},
        },
    },
}
