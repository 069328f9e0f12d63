"""Checked values: the base of all models, their common types, and problems described in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic_core import CoreSchema, core_schema

from edc.errors import EdcError, unknown_name

# libyaml's are several times faster, and every PyYAML wheel has them; plans run to thousands of lines.
_FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
SCIENTIFIC = re.compile(r"[-+]?[0-9][0-9]*(?:\.[0-9]*)?[eE][-+]?[0-9]+$")
"""Numbers such as 1e-3: text in YAML 1.1, numbers in YAML 1.2, which DVC reads."""


class LOADER(_FAST):
    """Refuses what YAML 1.1 and 1.2, which DVC reads, take for different numbers, and a key given twice."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if not DECIMAL.fullmatch(node.value) or abs(int(node.value)) >= 2**63:
            found = f"expected a decimal number without leading zeros, of at most 63 bits; found {node.value}"
            raise yaml.constructor.ConstructorError(None, None, found, node.start_mark)
        return int(node.value)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        if ":" in node.value or "_" in node.value:
            raise yaml.constructor.ConstructorError(
                None, None, f"expected a decimal number; found {node.value}", node.start_mark
            )
        return float(super().construct_yaml_float(node))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} given twice", key.start_mark)
            seen.add(key.value)
        values: dict[Any, Any] = super().construct_mapping(node, deep)
        return values


LOADER.add_constructor("tag:yaml.org,2002:int", LOADER.construct_yaml_int)
LOADER.add_constructor("tag:yaml.org,2002:float", LOADER.construct_yaml_float)
LOADER.add_implicit_resolver("tag:yaml.org,2002:float", SCIENTIFIC, list("-+0123456789"))

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Model(BaseModel):
    """Base of every section: unknown keys and values of another type are refused, values cannot change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"expected the smaller limit first, found {limits[0]} before {limits[1]}")
    return limits


LIST = Field(strict=False)
"""For a tuple: YAML and JSON have lists."""
Range = Annotated[tuple[Positive, Positive], LIST, AfterValidator(_ascending)]
Share = Annotated[float, Field(gt=0, le=1)]
Area = Annotated[tuple[Share, Share], LIST, AfterValidator(_ascending)]
Shifts = Annotated[tuple[int, int], LIST, AfterValidator(_ascending)]
Betas = Annotated[tuple[Decay, Decay], LIST]


def _distinct(values: list[int]) -> list[int]:
    if len(set(values)) < len(values):
        raise ValueError(f"expected every number once, found {values}")
    return values


Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_distinct)]
Sizes = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), AfterValidator(_distinct)]
"""Of condensed sets, in images per class."""


class OneOf:
    """Annotation of a string that must be a name of a registry: ``Annotated[str, OneOf(REGISTRY)]``."""

    def __init__(self, registry: Mapping[str, object]) -> None:
        self.registry = registry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": list(self.registry), "type": "string"}

    def _check(self, name: str) -> str:
        if name not in self.registry:
            raise ValueError(str(unknown_name("name", name, self.registry)))
        return name


def describe(error: ValidationError, model: type[BaseModel], where: str) -> EdcError:
    """The first problem of a validation as one line: file, key, value, what was expected."""
    problems = error.errors()
    # A misspelt key is also a missing one.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    location = [str(part) for part in first["loc"]]
    key = ".".join(location) or "(top level)"
    if first["type"] == "extra_forbidden":
        section = ".".join(location[:-1])
        known = keys_at(model.model_json_schema(), location[:-1])
        return unknown_name("key", location[-1], known, f"{where}: {section}" if section else where)
    if first["type"] == "missing":
        return EdcError(f"{where}: missing key {key!r}")
    if first["type"] == "model_type":
        return EdcError(f"{where}: {key} = {first['input']!r}: expected a mapping of keys to values")
    expected = first["msg"].removeprefix("Value error, ")
    if first["type"] == "list_type":
        expected = f"expected a list, such as [{first['input']}]"
    if first["type"] == "too_short":
        expected = "expected at least one entry" if not first["input"] else expected
    expected = expected[0].lower() + expected[1:]
    if first["type"] == "value_error":
        return EdcError(f"{where}: {key}: {expected}")
    return EdcError(f"{where}: {key} = {first['input']!r}: {expected}")


def keys_at(schema: dict[str, Any], location: Sequence[str]) -> list[str]:
    """The keys a JSON schema lists for the mapping at a location."""
    nodes = list(_alternatives(schema, schema))
    for part in location:
        inner = [n.get("properties", {}).get(part, n.get("additionalProperties", n.get("items"))) for n in nodes]
        nodes = [leaf for node in inner if isinstance(node, dict) for leaf in _alternatives(schema, node)]
    return [key for node in nodes for key in node.get("properties", {})]


def _alternatives(schema: dict[str, Any], node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    for option in node.get("anyOf", []):
        yield from _alternatives(schema, option)
    yield node


def validate(model: type[BaseModel], values: object, where: str) -> Any:
    """Check values against a model; a problem becomes one line that starts with ``where``."""
    if not isinstance(values, dict):
        raise EdcError(f"{where}: expected a mapping of keys to values, found {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise describe(error, model, where) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a dictionary; an EdcError where it is missing, is not YAML, or is not a mapping."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
    except FileNotFoundError:
        raise EdcError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EdcError(f"{path}: cannot be read ({error})") from None
    except (yaml.YAMLError, ValueError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", error)
        line = f" line {mark.line + 1}" if mark else ""
        if isinstance(error, yaml.constructor.ConstructorError):
            raise EdcError(f"{path}:{line}: {problem}") from None
        raise EdcError(f"{path}:{line} is not valid YAML ({' '.join(str(problem).split())})") from None
    if not isinstance(values, dict):
        raise EdcError(f"{path}: expected a mapping of keys to values")
    return values
