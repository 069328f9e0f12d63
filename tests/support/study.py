"""A small study of handwritten digits that has every kind of run, spelled out without any file of its own."""

from typing import Any

from edc.config.expand import Builder
from edc.config.files import StudyFile
from edc.config.rows import Plan
from edc.config.validation import validate

APPLICATION: dict[str, Any] = {"recipes": ["edc"], "ipc": [1], "protocols": ["edc"], "students": ["convnet_d2"]}
STUDY: dict[str, Any] = {
    "description": "every kind of run",
    "datasets": ["digits"],
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
    "continual": [APPLICATION | {"steps": 2}],
    "slimming": [APPLICATION | {"students": ["vgg11_bn"], "ratios": [0.3], "finetune": 2, "min_accuracy": 0.0}],
    "analysis": [APPLICATION | {"gradients": {"batches": [5]}}],
}


def study(**changes: Any) -> StudyFile:
    """The study with some of its keys changed."""
    file: StudyFile = validate(StudyFile, STUDY | changes, "study")
    return file


def plan(**changes: Any) -> Plan:
    """Its plan; the current directory must be the repository's root."""
    return Builder("small", study(**changes)).build()
