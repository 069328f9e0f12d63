"""What several test files share: small networks, a small plan, recorded numbers, the repository's root."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]


@cache
def golden(name: str) -> dict[str, Any]:
    """Numbers that published code computes from small inputs: ``edc`` or ``baselines``."""
    numbers: dict[str, Any] = json.loads((REPOSITORY / "tests" / "golden" / f"{name}.json").read_text(encoding="utf-8"))
    return numbers


def edited(text: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The values of a plan with some changed, each named by its keys joined with dots."""
    values: dict[str, Any] = yaml.safe_load(text)
    for name, value in changes.items():
        *sections, last = name.split(".")
        section = values
        for key in sections:
            section = section.setdefault(key, {})
        section[last] = value
    return values
