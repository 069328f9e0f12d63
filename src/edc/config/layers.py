"""Values laid over one another: a file's own, its family's, its number of images per class', a study's."""

from __future__ import annotations

from typing import Any

from edc.errors import EdcError
from edc.config.files import Layer, ProtocolFile, RecipeFile, Values, merge
from edc.config.validation import Model, validate


def layers(file: RecipeFile | ProtocolFile, family: str, ipc: int) -> list[tuple[str, Layer]]:
    """The layers of a file that apply, weakest first, each with the key it stands under."""
    found: list[tuple[str, Layer]] = []
    if family in file.families:
        found.append((f"families.{family}", file.families[family]))
    if ipc in file.ipc:
        found.append((f"ipc.{ipc}", file.ipc[ipc]))
    if family in file.families and ipc in file.families[family].ipc:
        found.append((f"families.{family}.ipc.{ipc}", file.families[family].ipc[ipc]))
    return found


def own_protocol(recipe: RecipeFile, family: str, ipc: int) -> str:
    """The protocol a recipe brings along for a dataset family and number of images per class."""
    own = recipe.protocol
    for _, layer in layers(recipe, family, ipc):
        own = layer.protocol or own
    return own


def resolve(
    file: RecipeFile | ProtocolFile,
    section: str,
    family: str,
    ipc: int,
    model: type[Model],
    where: str,
    over: list[tuple[str, Values]] | None = None,
) -> Any:
    """One section of a recipe or protocol for a dataset family and a number of images per class, checked.

    Args:
        file: the recipe or protocol.
        section: which values.
        family, ipc: which layers apply.
        model: what the values must be.
        where: the file, for the error line.
        over: what else is laid on top, each with where it comes from.

    Raises:
        EdcError: names the file, the layer and the key that is wrong.
    """
    values: Values = dict(getattr(file, section))
    stages = [("", values)]
    for key, layer in layers(file, family, ipc):
        values = merge(values, getattr(layer, section))
        stages.append((f" ({key})", values))
    for key, more in over or []:
        values = merge(values, more)
        stages.append((f" ({key})", values))
    resolved = None
    for key, values in stages:
        # Only the last layer must be complete; the ones before are checked to blame the right place.
        resolved = _check(model, values, f"{where}{key}: {section}", complete=values is stages[-1][1])
    return resolved


def _check(model: type[Model], values: Values, where: str, complete: bool) -> Any:
    try:
        return validate(model, values, where)
    except EdcError as error:
        if complete or "missing key" not in str(error):
            raise
        return None
