"""Values from a JSON schema and against it, from one seed: what fits, and what nearly does."""

import math
import string
from collections.abc import Mapping
from random import Random
from typing import Any

Schema = Mapping[str, Any]

NASTY = [
    "",
    " ",
    "null",
    "true",
    "\x00",
    "\u202e",
    "../../etc/passwd",
    "'; DROP TABLE changes; --",
    "{{7*7}}",
    "%s%n",
    "é" * 300,
    "a" * 5000,
    "chg-000000000000",
    "person:admin",
    "\ud83d\ude00",
]
JUNK: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    10**30,
    0.5,
    -0.0,
    1e308,
    [],
    {},
    [[]],
    {"": None},
    *NASTY,
]


class Values:
    """Makes them up, always the same for one seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 (it has to be the same every time)

    def fitting(self, schema: Schema) -> Any:
        """A value that the schema takes."""
        rnd = self._random
        if "enum" in schema:
            return rnd.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self.fitting(rnd.choice(schema[word]))
        match schema.get("type"):
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema)
            case "string":
                return self._text(schema)
            case "integer":
                low, high = self._bounds(schema, 1000)
                return rnd.randint(math.ceil(low), math.floor(high))
            case "number":
                return rnd.uniform(*self._bounds(schema, 1000.0))
            case "boolean":
                return rnd.random() < 0.5
            case _:
                return None

    def against(self, schema: Schema) -> Any:
        """Arguments that are wrong in at least one thing, most others being right."""
        rnd = self._random
        arguments: dict[str, Any] = self.fitting(schema)
        names = list(schema.get("properties", {}))
        for _ in range(rnd.randint(1, 3)):
            match rnd.randrange(4):
                case 0 if names:
                    arguments[rnd.choice(names)] = rnd.choice(JUNK)
                case 1 if names:
                    arguments.pop(rnd.choice(names), None)
                case 2:
                    arguments[
                        rnd.choice(["dryrun", "approve", "vote", "token", "", "__class__"])
                    ] = rnd.choice(JUNK)
                case _ if names:
                    arguments[rnd.choice(names)] = self._nested(rnd.randint(1, 40))
        return arguments

    def _object(self, schema: Schema) -> dict[str, Any]:
        rnd = self._random
        required = set(schema.get("required", ()))
        made = {
            name: self.fitting(below)
            for name, below in schema.get("properties", {}).items()
            if name in required or rnd.random() < 0.5
        }
        more = schema.get("additionalProperties")
        if isinstance(more, Mapping):
            for _ in range(rnd.randint(schema.get("minProperties", 0), 3)):
                made[f"node-{rnd.randint(1, 99):03}"] = self.fitting(more)
        return made

    def _array(self, schema: Schema) -> list[Any]:
        least = schema.get("minItems", 0)
        most = min(schema.get("maxItems", least + 3), least + 3)
        return [
            self.fitting(schema.get("items", {})) for _ in range(self._random.randint(least, most))
        ]

    def _text(self, schema: Schema) -> str:
        rnd = self._random
        if schema.get("pattern", "").startswith("^chg-"):
            return "chg-" + "".join(rnd.choices("0123456789abcdef", k=12))
        least, most = schema.get("minLength", 0), schema.get("maxLength", 40)
        if rnd.random() < 0.3:
            nasty = rnd.choice(NASTY)
            if least <= len(nasty) <= most:
                return nasty
        letters = string.ascii_lowercase + string.digits + "-"
        return "".join(rnd.choices(letters, k=rnd.randint(max(least, 1), min(most, least + 40))))

    def _bounds(self, schema: Schema, reach: float) -> tuple[float, float]:
        low = schema.get("minimum", schema.get("exclusiveMinimum", -reach))
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + reach))
        step = 1 if schema.get("type") == "integer" else 1e-6
        return (
            low + (step if "exclusiveMinimum" in schema else 0),
            high - (step if "exclusiveMaximum" in schema else 0),
        )

    def _nested(self, deep: int) -> Any:
        value: Any = "x"
        for _ in range(deep):
            value = [value] if self._random.random() < 0.5 else {"a": value}
        return value
