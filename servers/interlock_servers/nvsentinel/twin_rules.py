"""Rule sets of fault-quarantine: TOML whose expressions are a small, honest part of CEL.

Known are `||`, `&&`, `!`, comparisons, `in`, literals, lists, members, indices and parentheses.
What else CEL has is an error that names it, as a rule that does not compile is one upstream.

Source: charts/fault-quarantine of NVSentinel v1.19.0; CEL's language definition.
"""

import operator
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from interlock_servers.nvsentinel.twin_names import MANAGED, MANAGED_NEW, PREFIX
from interlock_tools.errors import InvalidRequestError

Json = dict[str, Any]
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<text>'[^']*'|"[^"]*")|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*)
    |(?P<sign>\|\||&&|==|!=|<=|>=|[<>!().,\[\]]))""",
    re.VERBOSE,
)
_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda one, many: one in many,
}
_WORDS: Final = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class RuleSet:
    """One rule set: who matches, and what is then done to the node."""

    name: str
    priority: int
    needs_all: tuple[tuple[str, str], ...]  # kind and expression
    needs_any: tuple[tuple[str, str], ...]
    cordons: bool
    taint: Mapping[str, str] | None
    label: Mapping[str, str] | None

    def matches(self, event: Json, node: Json) -> bool:
        """Whether it is for this event on this node.

        Raises:
            InvalidRequestError: an expression cannot be evaluated.
        """
        of_node = {"metadata": {"labels": {}, "annotations": {}, **node["metadata"]}}
        variables = {"event": event, "node": {**of_node, "spec": node.get("spec") or {}}}
        met = [evaluate(expression, variables) for _, expression in self.needs_all]
        either = [evaluate(expression, variables) for _, expression in self.needs_any]
        return all(met) and (any(either) if either else True)


def parse_rules(text: str) -> list[RuleSet]:
    """The rule sets that are switched on, the most important first.

    Raises:
        InvalidRequestError: it is not TOML, or a rule set lacks a part.
    """
    try:
        found = [
            _rule_set(raw)
            for raw in tomllib.loads(text).get("rule-sets", [])
            if raw.get("enabled", True)
        ]
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequestError(f"the rule sets cannot be read: {error}") from error
    return sorted(found, key=lambda rules: -rules.priority)


def _rule_set(raw: Json) -> RuleSet:
    match = raw["match"]
    all_, any_ = (
        tuple((str(rule["kind"]), str(rule["expression"])) for rule in match.get(how, ()))
        for how in ("all", "any")
    )
    return RuleSet(
        name=str(raw["name"]),
        priority=int(raw.get("priority", 0)),
        needs_all=all_,
        needs_any=any_,
        cordons=bool(raw.get("cordon", {}).get("shouldCordon", False)),
        taint=raw.get("taint"),
        label=raw.get("label"),
    )


def evaluate(expression: str, variables: Json) -> bool:
    """Whether an expression holds.

    Raises:
        InvalidRequestError: it is no expression of this part of CEL, or is of the wrong type.
    """
    found = _Reading(expression, variables).whole()
    if not isinstance(found, bool):
        raise InvalidRequestError(f"{expression!r} is {found!r}, neither true nor false")
    return found


class _Reading:
    """One expression, read from left to right and evaluated on the way."""

    def __init__(self, expression: str, variables: Json) -> None:
        self._text, self._variables = expression, variables
        self._tokens = self._split(expression.strip())
        self._at = 0

    def _split(self, text: str) -> list[str]:
        tokens, at = [], 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise self._wrong(f"{text[at : at + 20]!r} is not understood")
            tokens.append(found.group().strip())
            at = found.end()
        return tokens

    def whole(self) -> Any:
        value = self._either()
        if self._peek():
            raise self._wrong(f"{self._peek()!r} is too much")
        return value

    def _either(self) -> Any:
        value = self._both()
        while self._take("||"):
            other = self._both()
            value = self._is(value) or self._is(other)
        return value

    def _both(self) -> Any:
        value = self._compare()
        while self._take("&&"):
            other = self._compare()
            value = self._is(value) and self._is(other)
        return value

    def _compare(self) -> Any:
        value = self._not()
        sign = self._peek()
        if sign in _COMPARE:
            self._at += 1
            other = self._not()
            if isinstance(value, _Missing) or isinstance(other, _Missing):
                return _Missing()
            try:
                return _COMPARE[sign](value, other)
            except TypeError as error:
                raise self._wrong(str(error)) from error
        return value

    def _not(self) -> Any:
        return not self._is(self._not()) if self._take("!") else self._member()

    def _member(self) -> Any:
        value = self._one()
        while sign := self._take(".", "["):
            if sign == "[":
                key = self._either()
                self._must("]")
            else:
                key = self._next()
                if self._peek() == "(":
                    raise self._wrong(f"the twin knows no {key}()")
            value = self._of(value, key)
        return value

    def _one(self) -> Any:
        word = self._next()
        if word == "(":
            value = self._either()
            self._must(")")
            return value
        if word == "[":
            return self._list()
        if word[0] in "'\"":
            return word[1:-1]
        if word[0].isdigit():
            return float(word) if "." in word else int(word)
        if word in _WORDS:
            return _WORDS[word]
        if word in self._variables:
            return self._variables[word]
        raise self._wrong(f"there is no {word!r}")

    def _list(self) -> list[Any]:
        found: list[Any] = []
        while not self._take("]"):
            found.append(self._either())
            self._take(",")
        return found

    def _of(self, value: Any, key: Any) -> Any:
        try:
            return value[key]
        except (KeyError, IndexError, TypeError):
            return _Missing()

    def _is(self, value: Any) -> bool:
        # CEL's && and || pass over an error where the other side settles it: so does a missing key.
        if isinstance(value, _Missing):
            return False
        if not isinstance(value, bool):
            raise self._wrong(f"{value!r} is neither true nor false")
        return value

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        if not token:
            raise self._wrong("it ends too early")
        self._at += 1
        return token

    def _take(self, *signs: str) -> str:
        return self._next() if self._peek() in signs else ""

    def _must(self, sign: str) -> None:
        if not self._take(sign):
            raise self._wrong(f"{sign!r} is missing")

    def _wrong(self, why: str) -> InvalidRequestError:
        return InvalidRequestError(f"the rule {self._text!r}: {why}")


class _Missing:
    """What a key is that is not there."""


_DEFAULT: Final = (
    (
        "GPU fatal error ruleset",
        "event.agent == 'gpu-health-monitor' && event.componentClass == 'GPU'",
    ),
    ("CSP health monitor fatal error ruleset", "event.agent == 'csp-health-monitor'"),
    ("Syslog fatal error ruleset", "event.agent == 'syslog-health-monitor'"),
    (
        "NIC fatal error ruleset",
        "event.agent == 'nic-health-monitor' && event.componentClass == 'NIC'",
    ),
    ("Kubernetes object monitor ruleset", "event.agent == 'kubernetes-object-monitor'"),
    (
        "Preflight ruleset",
        "event.agent in ['preflight-dcgm-diag', 'preflight-nccl-loopback',"
        " 'preflight-nccl-allreduce']",
    ),
)
MAINTENANCE_RULES: Final = "MaintenanceRequest ruleset"


def default_rules(*, maintenance: bool) -> str:
    """The `config.toml` of a default install, in our own words."""
    opted_out = " || ".join(
        f"('{key}' in node.metadata.labels && node.metadata.labels['{key}'] == \\\"false\\\")"
        for key in (MANAGED, MANAGED_NEW)
    )
    wanted = [(name, [who, "event.isFatal == true"]) for name, who in _DEFAULT]
    if maintenance:
        wanted.append((MAINTENANCE_RULES, ["event.agent == 'lifecycle-manager'"]))
    lines = [f'label-prefix = "{PREFIX}"']
    for name, expressions in wanted:
        lines += ["", "[[rule-sets]]", "enabled = true", 'version = "1"', f'name = "{name}"']
        for kind, expression in [
            *(("HealthEvent", each) for each in expressions),
            ("Node", f"!({opted_out})"),
        ]:
            lines += ["[[rule-sets.match.all]]", f'kind = "{kind}"', f'expression = "{expression}"']
        lines += ["[rule-sets.cordon]", "shouldCordon = true"]
    return "\n".join(lines) + "\n"
