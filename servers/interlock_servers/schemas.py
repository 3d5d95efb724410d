"""The schemas that we publish: whole and valid, in the fewest words.

Every byte is paid in every conversation, so what a generator adds and no reader needs is left out,
and definitions stand where they are used: some clients do not follow references.
"""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_DEFS = "#/$defs/"
# `propertyNames` is checked, but some clients do not know it; `_at` already says what is a moment.
_SAY_NOTHING = frozenset({"title", "$defs", "propertyNames", "format"})
_ARGUMENTS, _ANSWER, _ITEM = "arguments", "answer", "item"
_NULL = {"type": "null"}


def input_schema(schema: Schema) -> dict[str, Any]:
    """The arguments of a tool: an argument that may be null is one that may be left out."""
    return _node(_undescribed(schema), schema.get("$defs", {}), _ARGUMENTS)


def output_schema(schema: Schema) -> dict[str, Any]:
    """An answer: what is None is absent, so no member is ever null and none has a default.

    What is always there is told of rows only, where other fields depend on what was asked for.
    """
    return _node(_undescribed(schema), schema.get("$defs", {}), _ANSWER)


def _undescribed(schema: Schema) -> dict[str, Any]:
    """A model without its docstring, which is for us."""
    return {word: value for word, value in schema.items() if word != "description"}


def _node(schema: Schema, defs: Mapping[str, Schema], kind: str) -> dict[str, Any]:
    some = [choice for choice in schema.get("anyOf", ()) if choice != _NULL]
    if len(some) == 1 and kind != _ITEM:
        return _node(_merged(some[0], schema, "anyOf"), defs, kind)
    if "$ref" in schema:
        found = defs[schema["$ref"].removeprefix(_DEFS)]
        return _node(_merged(_undescribed(found), schema, "$ref"), defs, kind)
    return {
        word: _value(word, value, defs, kind)
        for word, value in schema.items()
        if not _says_nothing(word, value, kind)
    }


def _says_nothing(word: str, value: Any, kind: str) -> bool:
    if word == "default":
        return kind != _ARGUMENTS or value is None
    if word == "additionalProperties" and isinstance(value, bool):
        return kind != _ARGUMENTS or value
    return word in _SAY_NOTHING or (word == "required" and kind == _ANSWER)


def _value(word: str, value: Any, defs: Mapping[str, Schema], kind: str) -> Any:
    inside = _ARGUMENTS if kind == _ARGUMENTS else _ANSWER
    if word == "properties":
        return {name: _node(below, defs, inside) for name, below in value.items()}
    if word in {"items", "additionalProperties"} and isinstance(value, Mapping):
        return _node(value, defs, inside if inside == _ARGUMENTS else _ITEM)
    if word in {"anyOf", "oneOf", "prefixItems"}:
        return [_node(below, defs, inside) for below in value]
    return value


def _merged(inner: Schema, outer: Schema, without: str) -> dict[str, Any]:
    return {**inner, **{word: value for word, value in outer.items() if word != without}}
