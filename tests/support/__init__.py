"""What several test files share: small networks, a small plan, recorded numbers, the repository's root."""

import contextlib
import json
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from edc.errors import EdcError

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


@contextlib.contextmanager
def one_line(*parts: str, start: str = "", match: str | None = None) -> Iterator[None]:
    """What the block does is refused in one line that has these parts."""
    with pytest.raises(EdcError, match=match) as error:
        yield
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith(start)
    for part in parts:
        assert part in line


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
