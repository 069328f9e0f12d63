"""Where a file may write a value, and what comes out: values are merged from the weakest layer to the strongest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edc.config.files import ProtocolFile, RecipeFile
from edc.config.partial import Values, merge
from edc.config.validation import Model, validate

Place = tuple[str | int, ...]
"""Keys that lead to a value or a section."""


def places(section: Place, family: str, ipc: int) -> list[Place]:
    """Where a recipe or protocol may write a section for a dataset family and images per class, weakest first."""
    return [section, ("families", family, *section), ("ipc", ipc, *section), ("families", family, "ipc", ipc, *section)]


def value_at(values: Any, place: Place) -> Any:
    """What stands at a place in nested models and mappings; None where nothing does."""
    for part in place:
        values = values.get(part) if isinstance(values, Mapping) else getattr(values, str(part), None)
    return values


def strongest(file: Model, places: Sequence[Place]) -> Any:
    """The value of the last of these places that has one; None where none has."""
    return next((value for place in reversed(places) if (value := value_at(file, place)) is not None), None)


def own_protocol(recipe: RecipeFile, family: str, ipc: int) -> str:
    """The protocol a recipe brings along for a dataset family and number of images per class."""
    return str(strongest(recipe, places(("protocol",), family, ipc)))


def resolve(
    file: RecipeFile | ProtocolFile, places: Sequence[Place], model: type[Model], where: str, over: Values | None = None
) -> Any:
    """One section of a recipe or protocol, merged from its places, weakest first, and what a variant lays on top.

    Raises:
        EdcError: a key is missing, or values contradict one another.
    """
    values: Values = {}
    for place in places:
        values = merge(values, value_at(file, place) or {})
    section = ".".join(map(str, places[0]))
    return validate(model, merge(values, over or {}), f"{where}: {section}")
