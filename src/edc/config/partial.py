"""Values of a layer, which need not be complete: every key of a model, each optional and checked wherever it stands."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import cache
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler, create_model
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticUndefined, core_schema

from edc.config.validation import Model

Values = dict[str, Any]


class Part:
    """Annotation of incomplete values of a model, kept as the dictionary that was written.

    ``Annotated[Values, Part(Optimiser)]`` accepts ``{"lr": 0.1}`` and refuses ``{"rate": 0.1}`` and ``{"lr": -1}``.
    ``also``: keys allowed beside the model's, each with its type.
    """

    def __init__(self, model: type[BaseModel], without: tuple[str, ...] = (), **also: Any) -> None:
        self.model = partial(model, without, tuple(also.items()))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            lambda part: part.model_dump(exclude_unset=True),
            handler.generate_schema(self.model),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda values: values),
        )


@cache
def partial(
    model: type[BaseModel], without: tuple[str, ...] = (), also: tuple[tuple[str, Any], ...] = ()
) -> type[Model]:
    """The same model with every field optional, at every depth."""
    fields: dict[str, Any] = {name: (kind, None) for name, kind in also}
    fields |= {name: _optional(field) for name, field in model.model_fields.items() if name not in without}
    made: type[Model] = create_model(f"{model.__name__}Part", __base__=Model, __doc__=model.__doc__, **fields)
    return made


def _optional(field: FieldInfo) -> tuple[Any, FieldInfo]:
    optional = copy(field)
    optional.annotation = _partial_type(field.annotation)
    if field.default is PydanticUndefined or isinstance(field.default, BaseModel):
        # Never used, for only what was written is kept; a factory leaves no default in the JSON schema.
        optional.default, optional.default_factory = PydanticUndefined, lambda: None
    return optional.annotation, optional


def _partial_type(kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return partial(kind)
    if type(None) in get_args(kind) and get_origin(kind) is not None:
        return Union[tuple(_partial_type(option) for option in get_args(kind))]  # noqa: UP007
    return kind


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """``over`` laid upon ``base``: mappings are merged key by key, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
