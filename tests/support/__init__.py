"""What several test files share: small networks, a small plan, recorded numbers, the repository's root."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


@cache
def golden(name: str) -> dict[str, Any]:
    """Numbers that published code computes from small inputs: ``edc`` or ``baselines``."""
    numbers: dict[str, Any] = json.loads((REPOSITORY / "tests" / "golden" / f"{name}.json").read_text(encoding="utf-8"))
    return numbers
