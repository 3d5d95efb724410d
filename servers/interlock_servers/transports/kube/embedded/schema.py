"""Structural schemas: pruning, defaults and validation, as CustomResourceDefinitions declare them.

CEL rules (`x-kubernetes-validations`) are accepted and not evaluated.
Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

import copy
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from interlock_servers.transports.kube.embedded.statuses import Cause

Schema = Mapping[str, Any]
ANYTHING: Final[Schema] = {"x-kubernetes-preserve-unknown-fields": True}
_INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED: Final = ("apiVersion", "kind", "metadata")


def child(schema: Schema, key: str) -> Schema:
    """The schema of a member; of one that is not declared, that of anything."""
    found: Schema | None = (schema.get("properties") or {}).get(key)
    if found is not None:
        return found
    more = schema.get("additionalProperties")
    return more if isinstance(more, Mapping) else ANYTHING


def items_of(schema: Schema) -> Schema:
    """The schema of a list's items."""
    found = schema.get("items")
    return found if isinstance(found, Mapping) else ANYTHING


def prune(value: Any, schema: Schema, *, root: bool = False) -> Any:
    """The value without members that the schema does not declare."""
    if isinstance(value, list):
        inner = items_of(schema)
        return [prune(each, inner) for each in value]
    if not isinstance(value, dict):
        return value
    declared: Mapping[str, Schema] = schema.get("properties") or {}
    more = schema.get("additionalProperties")
    keep = bool(schema.get(_PRESERVE)) or more is True
    whole = root or schema.get("x-kubernetes-embedded-resource")
    done = {}
    for key, each in value.items():
        if whole and key in _EMBEDDED:
            done[key] = each
        elif key in declared:
            done[key] = prune(each, declared[key])
        elif isinstance(more, Mapping):
            done[key] = prune(each, more)
        elif keep:
            done[key] = each
    return done


def undeclared(value: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """Where members are that the schema does not declare: `.spec.zork`."""
    pruned = prune(value, schema, root=not path)
    if isinstance(value, dict):
        for key, each in value.items():
            if key not in pruned:
                yield f"{path}.{key}"
            elif path or key not in _EMBEDDED:
                yield from undeclared(each, child(schema, key), f"{path}.{key}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from undeclared(each, items_of(schema), f"{path}[{number}]")


def set_defaults(value: Any, schema: Schema) -> None:
    """Fill in, in place, what the schema has a default for and the value lacks."""
    if isinstance(value, list):
        inner = items_of(schema)
        for each in value:
            set_defaults(each, inner)
    if not isinstance(value, dict):
        return
    declared: Mapping[str, Schema] = schema.get("properties") or {}
    for key, inner in declared.items():
        if "default" in inner and (
            key not in value or (value[key] is None and not inner.get("nullable"))
        ):
            value[key] = copy.deepcopy(inner["default"])
        if key in value:
            set_defaults(value[key], inner)
    more = schema.get("additionalProperties")
    if isinstance(more, Mapping):
        for key, each in value.items():
            if key not in declared:
                set_defaults(each, more)


def validate(value: Any, schema: Schema, path: str = "") -> list[Cause]:
    """Every way in which the value breaks the schema."""
    if value is None:
        return (
            []
            if schema.get("nullable") or not schema.get("type")
            else [_of_type(path, value, schema)]
        )
    if schema.get(_INT_OR_STRING):
        fits = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
        return [] if fits else [_of_type(path, value, {"type": "integer,string"})]
    if not _has_type(value, schema.get("type")):
        return [_of_type(path, value, schema)]
    found = list(_logic(value, schema, path))
    if isinstance(value, dict):
        found += _members(value, schema, path)
    elif isinstance(value, list):
        found += _items(value, schema, path)
    elif isinstance(value, str):
        found += _text(value, schema, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        found += _number(value, schema, path)
    if "enum" in schema and value not in schema["enum"]:
        found.append(Cause.unsupported(path, value, schema["enum"]))
    return found


def _has_type(value: Any, wanted: str | None) -> bool:
    if wanted is None:
        return True
    if wanted == "integer":
        whole = isinstance(value, float) and value.is_integer()
        return (isinstance(value, int) or whole) and not isinstance(value, bool)
    if wanted == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(
        value, {"object": dict, "array": list, "string": str, "boolean": bool}[wanted]
    )


def type_name(value: Any) -> str:
    """The JSON type of a value, as messages name it."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer"}
    return "null" if value is None else names.get(type(value), "number")


def _of_type(path: str, value: Any, schema: Schema) -> Cause:
    is_of = type_name(value)
    return Cause.invalid(path, is_of, f'{path} in body must be of type {schema["type"]}: "{is_of}"')


def _members(value: dict[str, Any], schema: Schema, path: str) -> Iterator[Cause]:
    declared: Mapping[str, Schema] = schema.get("properties") or {}
    more = schema.get("additionalProperties")
    for key in schema.get("required") or ():
        if key not in value:
            yield Cause.required(f"{path}.{key}".lstrip("."))
    for key, each in value.items():
        inner = declared.get(key, more if isinstance(more, Mapping) else None)
        if inner is not None:
            yield from validate(each, inner, f"{path}.{key}".lstrip("."))
    most, least = schema.get("maxProperties"), schema.get("minProperties")
    if most is not None and len(value) > most:
        yield Cause.invalid(
            path, len(value), f"{path} in body should have at most {most} properties"
        )
    if least is not None and len(value) < least:
        yield Cause.invalid(
            path, len(value), f"{path} in body should have at least {least} properties"
        )


def _items(value: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    inner = items_of(schema)
    for number, each in enumerate(value):
        yield from validate(each, inner, f"{path}[{number}]")
    most, least = schema.get("maxItems"), schema.get("minItems")
    if most is not None and len(value) > most:
        yield Cause.invalid(path, len(value), f"{path} in body should have at most {most} items")
    if least is not None and len(value) < least:
        yield Cause.invalid(path, len(value), f"{path} in body should have at least {least} items")
    kind = schema.get("x-kubernetes-list-type")
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    seen: list[Any] = []
    for number, each in enumerate(value):
        same = [each.get(key) for key in keys] if kind == "map" and isinstance(each, dict) else each
        if kind in ("map", "set") and same in seen:
            yield Cause(f"{path}[{number}]", "FieldValueDuplicate", f"Duplicate value: {same}")
        seen.append(same)


def _text(value: str, schema: Schema, path: str) -> Iterator[Cause]:
    most, least = schema.get("maxLength"), schema.get("minLength")
    if most is not None and len(value) > most:
        yield Cause.invalid(path, value, f"{path} in body should be at most {most} chars long")
    if least is not None and len(value) < least:
        yield Cause.invalid(path, value, f"{path} in body should be at least {least} chars long")
    pattern = schema.get("pattern")
    if pattern is not None and _compiled(pattern).search(value) is None:
        yield Cause.invalid(path, value, f"{path} in body should match '{pattern}'")
    if schema.get("format") == "date-time" and not _is_moment(value):
        yield Cause.invalid(path, value, f'{path} in body must be of type date-time: "{value}"')


def _number(value: float, schema: Schema, path: str) -> Iterator[Cause]:
    most, least = schema.get("maximum"), schema.get("minimum")
    if most is not None and (value > most or (value == most and schema.get("exclusiveMaximum"))):
        yield Cause.invalid(path, value, f"{path} in body should be less than or equal to {most}")
    if least is not None and (value < least or (value == least and schema.get("exclusiveMinimum"))):
        yield Cause.invalid(
            path, value, f"{path} in body should be greater than or equal to {least}"
        )
    step = schema.get("multipleOf")
    if step and value % step:
        yield Cause.invalid(path, value, f"{path} in body should be a multiple of {step}")


def _logic(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    """`allOf`, `anyOf`, `oneOf` and `not`; they may add rules of value, not of type."""
    for each in schema.get("allOf") or ():
        yield from validate(value, each, path)
    anyof, oneof = schema.get("anyOf"), schema.get("oneOf")
    if anyof and all(validate(value, each, path) for each in anyof):
        yield Cause.invalid(
            path, type_name(value), f"{path} in body must validate at least one schema (anyOf)"
        )
    if oneof and sum(not validate(value, each, path) for each in oneof) != 1:
        yield Cause.invalid(
            path, type_name(value), f"{path} in body must validate one and only one schema (oneOf)"
        )
    if "not" in schema and not validate(value, schema["not"], path):
        yield Cause.invalid(
            path, type_name(value), f"{path} in body must not validate the schema (not)"
        )


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of Go's RE2, which Python's `re` reads alike but for a `$` before a newline."""
    return re.compile(re.sub(r"(?<!\\)\$$", r"\\Z", pattern))


def _is_moment(value: str) -> bool:
    try:
        return (
            "T" in value and datetime.fromisoformat(value.replace("Z", "+00:00")).tzinfo is not None
        )
    except ValueError:
        return False
