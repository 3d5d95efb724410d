"""Mutants: the same policy with one small fault, such as a slip of the pen would make.

They are made on the engine's own syntax tree and written back as text, so each passes through the
gate like any bundle.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from interlock_policies.bench.syntax import (
    COMPARISONS,
    Tree,
    expression,
    id_of,
    rules_in,
    text_of,
)
from interlock_tools.operation import Effect

_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "!=", "!=": "=="}
_SWAPPED = {"&&": "||", "||": "&&"}
_ANYTHING = {"op": "All"}
_GROUPS = ("mutate", *(effect.value for effect in Effect))
_PRINCIPALS = ("Agent", "Person", "Service")


class Mutant(NamedTuple):
    """One fault.

    Attributes:
        rule_id: the rule that it is in.
        change: what was changed, in words and Cedar; with the rule it names the mutant.
        policies: the policy with the fault, by file.
    """

    rule_id: str
    change: str
    policies: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.rule_id}: {self.change}"


def mutants(policies: Mapping[str, str]) -> list[Mutant]:
    """Every mutant of these texts, in the order of files and rules; no two have the same text."""
    out: list[Mutant] = []
    for file, text in policies.items():
        rules = rules_in(text)
        seen = {text_of(rules)}
        for number, rule in enumerate(rules):
            for change, changed in _of_rule(rule):
                others = [*rules[:number], *([changed] if changed else []), *rules[number + 1 :]]
                mutated = text_of(others)
                if mutated not in seen:
                    seen.add(mutated)
                    out.append(Mutant(id_of(rule), change, {**policies, file: mutated}))
    return out


def _of_rule(rule: Tree) -> Iterator[tuple[str, Tree | None]]:
    """What can be wrong in one rule, and the rule with that; None where it is gone."""
    yield "the rule is removed", None
    for change, annotations in _annotations(rule["annotations"]):
        yield change, {**rule, "annotations": annotations}
    for part in ("principal", "action", "resource"):
        for change, constraint in _scopes(part, rule[part]):
            yield change, {**rule, part: constraint}
    conditions: list[Tree] = rule["conditions"]
    for number, condition in enumerate(conditions):
        kind, body = condition["kind"], condition["body"]
        before, after = conditions[:number], conditions[number + 1 :]
        yield (
            f"{kind} {{ {expression(body)} }} is removed",
            {**rule, "conditions": [*before, *after]},
        )
        for change, changed in _bodies(body):
            new = {**condition, "body": changed}
            yield f"{kind}: {change}", {**rule, "conditions": [*before, new, *after]}


def _annotations(annotations: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Fewer people, other people, or a target that nobody types."""
    if "quorum" not in annotations:
        return
    fewer = int(annotations["quorum"]) - 1
    yield f"@quorum is {fewer}", {**annotations, "quorum": str(fewer)}
    yield '@role is "anybody"', {**annotations, "role": "anybody"}
    if annotations.get("typed_target") == "true":
        yield '@typed_target is "false"', {**annotations, "typed_target": "false"}


def _scopes(part: str, constraint: Tree) -> Iterator[tuple[str, Tree]]:
    """A rule that holds for everybody or everything, for others, or for some of it only."""
    if constraint != _ANYTHING:
        yield f"it holds for every {part}", _ANYTHING
    kind = constraint.get("entity_type")
    for other in _PRINCIPALS if kind in _PRINCIPALS else ():
        if other != kind:
            yield f"it holds for {other}, not for {kind}", {**constraint, "entity_type": other}
    entity = constraint.get("entity", {})
    for group in _GROUPS if part == "action" and entity.get("id") in _GROUPS else ():
        if group != entity["id"]:
            yield (
                f"it holds for {group}, not for {entity['id']}",
                {**constraint, "entity": {**entity, "id": group}},
            )
    entities = constraint.get("entities", [])
    for dropped in entities if len(entities) > 1 else ():
        rest = [other for other in entities if other is not dropped]
        yield f"it does not hold for {dropped['id']}", {**constraint, "entities": rest}


def _bodies(body: Tree) -> Iterator[tuple[str, Tree]]:
    """The faults of one condition."""
    for path, node in _nodes(body):
        (operator,) = node
        inner = node[operator]
        if operator in _SWAPPED:
            swapped = {_SWAPPED[operator]: inner}
            for side, other in (("left", "right"), ("right", "left")):
                if _SWAPPED.keys() & inner[side].keys():
                    continue  # its own operands are dropped by themselves
                yield (
                    f"{expression(inner[side])} is dropped",
                    _replaced(body, path, inner[other]),
                )
            yield (
                f"{expression(node)} becomes {expression(swapped)}",
                _replaced(body, path, swapped),
            )
            continue
        if operator in COMPARISONS:
            for changed in _comparisons(operator, inner):
                yield (
                    f"{expression(node)} becomes {expression(changed)}",
                    _replaced(body, path, changed),
                )
        if _is_boolean(operator):
            yield f"{expression(node)} is negated", _replaced(body, path, {"!": {"arg": node}})
    if _SWAPPED.keys() & body.keys():
        yield f"{expression(body)} is negated", {"!": {"arg": body}}


def _comparisons(operator: str, inner: Tree) -> Iterator[Tree]:
    """The comparison turned round, and each number in it moved by one."""
    yield {_FLIPPED[operator]: inner}
    for side in ("left", "right"):
        for path, node in _nodes(inner[side], everything=True):
            value = node.get("Value")
            if isinstance(value, int) and not isinstance(value, bool):
                for step in (-1, 1):
                    moved = _replaced(inner[side], path, {"Value": value + step})
                    yield {operator: {**inner, side: moved}}


def _nodes(
    tree: Tree, path: tuple[str, ...] = (), *, everything: bool = False
) -> Iterator[tuple[tuple[str, ...], Tree]]:
    """The boolean nodes of a condition from the top down, or `everything` below one."""
    yield path, tree
    for operator, inner in tree.items():
        if not isinstance(inner, dict):
            continue
        for name, below in inner.items():
            deeper = everything or operator in {*_SWAPPED, "!", "if-then-else"}
            if deeper and isinstance(below, dict):
                yield from _nodes(below, (*path, operator, name), everything=everything)


def _replaced(tree: Tree, path: tuple[str, ...], new: Tree) -> Tree:
    if not path:
        return new
    out = deepcopy(tree)
    below: Any = out
    for key in path[:-1]:
        below = below[key]
    below[path[-1]] = new
    return out


def _is_boolean(operator: str) -> bool:
    """Whether it can stand alone in a condition: an attribute, a comparison or a test of a set."""
    return (
        operator in COMPARISONS
        or operator.startswith(("contains", "is"))
        or operator in {".", "has", "like", "in", "!"}
    )
