"""A policy as the engine's own JSON syntax tree, so that the bench needs no parser of its own."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import cedarpy

Tree = dict[str, Any]

COMPARISONS = frozenset({"<", "<=", ">", ">=", "==", "!="})
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_BOUNDARIES = {  # on which steps beside the number on the right the answer turns
    "<": (-1, 0),
    ">=": (-1, 0),
    "<=": (0, 1),
    ">": (0, 1),
}
_ALL_SIDES = (-1, 0, 1)
_PARENTHESES = re.compile(r"\(((?:context|principal|resource)\.\w+)\)")


class Read(NamedTuple):
    """One thing that a rule looks at.

    Attributes:
        path: such as `context.frozen` or `principal.scopes`.
        values: the numbers around which the answer turns, or the texts that it is compared with.
    """

    path: str
    values: frozenset[int | str]


def rules_in(text: str) -> list[Tree]:
    """The rules of a text that the gate has accepted, in their order."""
    parsed = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    return [parsed[key] for key in sorted(parsed, key=_position)]


def text_of(rules: Iterable[Tree]) -> str:
    """Cedar text of these rules."""
    return "\n".join(
        cedarpy.policies_from_json_str(
            json.dumps({"templates": {}, "staticPolicies": {"policy0": rule}, "templateLinks": []})
        )
        for rule in rules
    )


def id_of(rule: Tree) -> str:
    """Its `@id`."""
    return str(rule["annotations"]["id"])


def expression(tree: Tree) -> str:
    """Cedar text of one expression."""
    rule = {
        "effect": "permit",
        "principal": {"op": "All"},
        "action": {"op": "All"},
        "resource": {"op": "All"},
        "conditions": [{"kind": "when", "body": tree}],
    }
    text = text_of([rule]).partition(" when { ")[2].rpartition(" };")[0]
    return _PARENTHESES.sub(r"\1", text)  # `(context.gpus) > 0` is `context.gpus > 0` to a reader


def reads_of(rules: Iterable[Tree]) -> dict[str, frozenset[int | str]]:
    """What the rules look at: each path with the values on which an answer turns."""
    found: dict[str, frozenset[int | str]] = {}
    for rule in rules:
        for read in _reads_of_rule(rule):
            found[read.path] = found.get(read.path, frozenset()) | read.values
    return found


def _reads_of_rule(rule: Tree) -> Iterator[Read]:
    for scope, path in (("principal", "principal"), ("resource", "resource"), ("action", "action")):
        constraint = rule[scope]
        entities = [constraint.get("entity"), *constraint.get("entities", ())]
        ids = frozenset(
            f"{entity['type']}::{entity['id']}" if path == "principal" else str(entity["id"])
            for entity in entities
            if entity
        )
        if ids:
            yield Read(path, ids)
    for condition in rule["conditions"]:
        yield from _reads(condition["body"])


def _reads(tree: Any) -> Iterator[Read]:
    if isinstance(tree, list):
        for member in tree:
            yield from _reads(member)
    if not isinstance(tree, dict):
        return
    if (path := _path(tree)) is not None:
        yield Read(path, frozenset())
    for operator, member in tree.items():
        if operator in COMPARISONS or operator.startswith("contains"):
            yield from _turning(operator, member["left"], member["right"])
        yield from _reads(member)


def _turning(operator: str, left: Tree, right: Tree) -> Iterator[Read]:
    """The paths of one comparison, with the values on which its answer turns."""
    for one, other, seen_from_it in (
        (left, right, operator),
        (right, left, _MIRRORED.get(operator, operator)),
    ):
        texts = frozenset[int | str](v for v in _literals(other) if isinstance(v, str))
        numbers = [v for v in (*_literals(one), *_literals(other)) if _is_number(v)]
        simple = _path(one) is not None and "Value" in other
        steps = _BOUNDARIES.get(seen_from_it, _ALL_SIDES) if simple else _ALL_SIDES
        around = frozenset[int | str](v + step for v in numbers for step in steps if v + step >= 0)
        for read in _reads_below(one):
            yield Read(read, texts | around)


def _reads_below(tree: Any) -> set[str]:
    return {read.path for read in _reads(tree)}


def _path(tree: Mapping[str, Any]) -> str | None:
    for access in (".", "has"):
        inner = tree.get(access)
        if isinstance(inner, dict) and "Var" in inner.get("left", {}):
            return f"{inner['left']['Var']}.{inner['attr']}"
    return None


def _literals(tree: Any) -> Iterator[Any]:
    if isinstance(tree, list):
        for member in tree:
            yield from _literals(member)
    elif isinstance(tree, dict):
        for key, member in tree.items():
            if key == "Value":
                yield member
            else:
                yield from _literals(member)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _position(policy_id: str) -> int:
    return int(policy_id.removeprefix("policy"))
