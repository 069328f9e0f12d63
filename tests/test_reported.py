"""The transcription of the paper's figures against those collected from slides, logs and other papers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edc.reporting.reported import read_figures

PUBLISHED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "baselines.json").read_text(encoding="utf-8")
)["published"]
STUDENTS = {
    "R18": "resnet18",
    "R50": "resnet50",
    "R101": "resnet101",
    "MobileNetV2": "mobilenet_v2",
    "EfficientNet-B0": "efficientnet_b0",
    "DeiT-Tiny": "deit_tiny",
    "Swin-Tiny": "swin_tiny",
    "ConvNext-Tiny": "convnext_tiny",
    "ShuffleNetV2": "shufflenet_v2",
}
DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny": "Tiny-ImageNet",
    "in10": "ImageNet-10",
    "in1k": "ImageNet-1k",
}


def figure(*key: Any) -> float:
    found = read_figures().find(*key)
    assert found is not None, key
    return found.accuracy


@pytest.mark.parametrize("student", ["R18", "R101"])
def test_rded_in_table_1(student: str) -> None:
    for dataset, cells in PUBLISHED["rded"][student].items():
        for ipc, (mean, _) in cells.items():
            assert figure(1, DATASETS[dataset], int(ipc), STUDENTS[student], "rded") == mean


@pytest.mark.parametrize(
    ("recipe", "section"), [("rded", ("rded", "in1k_cross_arch")), ("edc", ("edc_cross_arch_for_reference",))]
)
def test_nine_students_of_table_2(recipe: str, section: tuple[str, ...]) -> None:
    cells = PUBLISHED
    for name in section:
        cells = cells[name]
    for ipc in (10, 20, 30, 40, 50):
        for student, mean in zip(cells["columns"], cells[str(ipc)], strict=True):
            if (recipe, ipc, student) == ("rded", 50, "R18"):
                mean = 56.5  # 56.3 in the scan of Table 2; the difference printed there and Table 1 say 56.5
            assert figure(2, "ImageNet-1k", ipc, STUDENTS[student], recipe) == mean


def test_zeta_of_table_3() -> None:
    for zeta, means in PUBLISHED["table3_left_configC_zeta"].items():
        for student, mean in zip(("resnet18", "resnet50", "resnet101"), means, strict=True):
            assert figure(3, "ImageNet-1k", 10, student, "config_c", f"zeta={zeta}") == mean


def test_table_22() -> None:
    names = {"SRe2L": "sre2l", "CDA": "cda", "RDED": "rded", "EDC": "edc", "Original": "full"}
    for method, recipe in names.items():
        ipc = 0 if recipe == "full" else 10
        assert figure(22, "ImageNet-21k", ipc, "resnet18", recipe) == PUBLISHED["table22_in21k_ipc10_R18"][method]
