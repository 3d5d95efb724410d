"""The other server's JSON schemas: checked against without fetching anything, shown without orders.

A reference to another document is never followed.
"""

from collections.abc import Mapping
from typing import Any

from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from interlock_servers.plant_text import plant_text
from interlock_tools.canonical import canonical
from interlock_tools.errors import InvalidRequestError

MAX_ARGUMENT_BYTES = 65_536
WRONG_SHOWN = 5
WORDS_CHARS = 200
DESCRIPTION_CHARS = 600
PARAMETER_CHARS = 300
# Where a schema says so by itself, or in a way that only a validator can follow, it stands.
_SAYS_MORE = frozenset(
    {
        "additionalProperties",
        "unevaluatedProperties",
        "patternProperties",
        "$ref",
        "$dynamicRef",
        "allOf",
        "anyOf",
        "oneOf",
        "if",
    }
)
_NOT_SHOWN = frozenset({"$schema", "$id", "$anchor", "$dynamicAnchor", "$comment", "x-mcp-header"})
_OF_NAMES = frozenset({"properties", "patternProperties", "$defs", "definitions"})

Schema = Mapping[str, Any]


def closed(schema: Schema) -> dict[str, Any]:
    """The schema, and no argument that it does not name: many servers drop those silently."""
    if _SAYS_MORE & schema.keys():
        return dict(schema)
    return {"properties": {}, **schema, "additionalProperties": False}


def why_unusable(schema: Schema) -> str | None:
    """Why nothing can be checked against this schema; None where it can."""
    try:
        _validator_class(schema).check_schema(dict(schema))
    except SchemaError as error:
        return plant_text(error.message, WORDS_CHARS)
    if schema.get("type", "object") != "object":
        return "its arguments are no object"
    return None


def check(name: str, schema: Schema, arguments: Mapping[str, Any]) -> None:
    """See that these arguments are what the schema says.

    Raises:
        InvalidRequestError: names what is wrong; or they are too large, or no canonical JSON.
    """
    size = len(canonical(arguments))
    if size > MAX_ARGUMENT_BYTES:
        raise InvalidRequestError(
            f"{name}: {size} bytes of arguments; {MAX_ARGUMENT_BYTES} at most"
        )
    checker: Validator = _validator_class(schema)(closed(schema), registry=Registry())
    try:
        wrong = [_words(error) for error in checker.iter_errors(dict(arguments))]
    except Unresolvable:
        raise InvalidRequestError(
            f"{name}: its schema refers to another document, which is not fetched"
        ) from None
    if wrong:
        raise InvalidRequestError(f"{name}: {'; '.join(wrong[:WRONG_SHOWN])}")


def shown(schema: Schema, at: str = "") -> dict[str, Any]:
    """The schema as a model sees it: closed, its words bounded, placed at the pointer `at`."""
    node = _shown(closed(schema), at)
    return {"type": "object", **node} if isinstance(node, dict) else {"type": "object"}


def _shown(node: Any, at: str, *, names: bool = False) -> Any:
    if isinstance(node, list):
        return [_shown(each, at) for each in node]
    if not isinstance(node, Mapping):
        return node
    if names:
        return {name: _shown(below, at) for name, below in node.items()}
    out: dict[str, Any] = {}
    for word, value in node.items():
        if word in _NOT_SHOWN:
            continue
        if word == "$ref" and isinstance(value, str) and value.startswith("#"):
            out[word] = f"#{at}{value[1:]}"
        elif word in {"description", "title"} and isinstance(value, str):
            out[word] = plant_text(value, PARAMETER_CHARS)
        elif word in {"enum", "const", "default", "examples", "required"}:
            out[word] = value
        else:
            out[word] = _shown(value, at, names=word in _OF_NAMES)
    return out


def _validator_class(schema: Schema) -> type[Validator]:
    found: type[Validator] = validator_for(dict(schema), default=Draft202012Validator)
    return found


def _words(error: ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path) or "arguments"
    return f"{plant_text(where)}: {plant_text(error.message, WORDS_CHARS)}"
