"""Label and field selectors: parsed once, asked of every object.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from interlock_servers.transports.kube.embedded.statuses import bad_request

Labels = Mapping[str, str]
Match = Callable[[Labels], bool]

_SET: Final = re.compile(r"^([^\s!=,()]+)\s+(in|notin)\s*\(([^()]*)\)$")
_EQUAL: Final = re.compile(r"^([^\s!=,()]+)\s*(==|=|!=)\s*([^\s!=,()]*)$")
_EXISTS: Final = re.compile(r"^(!?)\s*([^\s!=,()]+)$")
_COMPARED: Final = re.compile(r"^([^\s!=,()<>]+)\s*([<>])\s*(-?\d+)$")


def label_selector(text: str) -> Match | None:
    """Whether labels match; None where everything does.

    Raises:
        ApiError: 400, it cannot be parsed.
    """
    parts = [part.strip() for part in re.split(r",(?![^()]*\))", text)] if text.strip() else []
    tests = [_requirement(part) for part in parts]
    return (lambda labels: all(test(labels) for test in tests)) if tests else None


def _requirement(part: str) -> Match:
    if (found := _SET.match(part)) is not None:
        key, operator, listed = found.groups()
        return _expression(key, operator, frozenset(v.strip() for v in listed.split(",")))
    if (found := _COMPARED.match(part)) is not None:
        key, operator, bound = found.group(1), found.group(2), int(found.group(3))
        return lambda labels: _compare(labels.get(key, ""), operator, bound)
    if (found := _EQUAL.match(part)) is not None:
        key, operator, value = found.groups()
        return _expression(key, "notin" if operator == "!=" else "in", frozenset({value}))
    if (found := _EXISTS.match(part)) is not None:
        return _expression(found.group(2), "!" if found.group(1) else "exists", frozenset())
    raise bad_request(f"unable to parse requirement: found {part!r}, expected: a requirement")


def _compare(value: str, operator: str, bound: int) -> bool:
    if re.fullmatch(r"-?\d+", value) is None:
        return False
    return int(value) > bound if operator == ">" else int(value) < bound


def _expression(key: str, operator: str, values: frozenset[str]) -> Match:
    if operator == "in":
        return lambda labels: labels.get(key) in values
    if operator == "notin":  # what has no such label is matched too
        return lambda labels: labels.get(key) not in values
    if operator == "exists":
        return lambda labels: key in labels
    return lambda labels: key not in labels


def object_selector(selector: Mapping[str, Any] | None) -> Match:
    """A LabelSelector as objects hold it (`matchLabels`, `matchExpressions`); none matches none."""
    if selector is None:
        return lambda _: False
    tests = [
        _expression(key, "in", frozenset({value}))
        for key, value in (selector.get("matchLabels") or {}).items()
    ]
    names = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
    tests += [
        _expression(each["key"], names[each["operator"]], frozenset(each.get("values") or ()))
        for each in selector.get("matchExpressions") or ()
    ]
    return lambda labels: all(test(labels) for test in tests)


def selector_text(selector: Mapping[str, Any] | None) -> str:
    """A LabelSelector as a Scale's status writes it."""
    selector = selector or {}
    parts = [f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())]
    for each in selector.get("matchExpressions") or ():
        key, listed = each["key"], ",".join(each.get("values") or ())
        parts.append(
            {
                "In": f"{key} in ({listed})",
                "NotIn": f"{key} notin ({listed})",
                "Exists": key,
                "DoesNotExist": f"!{key}",
            }[each["operator"]]
        )
    return ",".join(parts)


def field_selector(text: str, known: frozenset[str]) -> Match | None:
    """Whether an object's indexed fields match; None where everything does.

    Raises:
        ApiError: 400, it cannot be parsed, or the field cannot be selected by.
    """
    tests: list[tuple[str, bool, str]] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        if (found := re.match(r"^([^=!]+)(==|=|!=)(.*)$", part)) is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        field, operator, value = found.groups()
        if field not in known:
            raise bad_request(f"field label not supported: {field}")
        tests.append((field, operator != "!=", value))
    if not tests:
        return None
    return lambda fields: all((fields.get(f, "") == v) is equal for f, equal, v in tests)
