"""The gate: the only way to Cedar, closed against the ways in which it fails open.

A `forbid` that cannot be evaluated is skipped by the engine, and one whose action group got lost
never matches. So only a plain Allow passes; no decision, a diagnostic or an exception is a no.
"""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import cedarpy

from interlock_policies.canary import canary_for
from interlock_policies.rules import BundleError, Rule, read_rule
from interlock_policies.schema import CANARY_OPERATIONS, SCHEMA_FILE, schema_for
from interlock_policies.situation import Situation
from interlock_tools.canonical import digest
from interlock_tools.identity import Principal, PrincipalKind, Target
from interlock_tools.operation import Effect

_ENTITY_TYPE = {
    PrincipalKind.AGENT: "Agent",
    PrincipalKind.PERSON: "Person",
    PrincipalKind.SERVICE: "Service",
}

KNOWN_PAIRS = 256  # of principal and target, whose entities are kept

# Added for the canaries only: whatever still stops a request is then a forbid.
_PERMIT_ALL = """
@id("canary-permits-all") @reason("Only canaries meet this rule.") @runbook("none")
permit(principal, action, resource);
"""


class Evaluation(NamedTuple):
    """What the engine answered to one question.

    Attributes:
        allowed: a permit applies, no forbid does, and nothing went wrong.
        rules: the permits that allowed it, or the forbids that stopped it (possibly none).
        trouble: why the engine gave no usable answer; `allowed` is then False.
    """

    allowed: bool
    rules: tuple[Rule, ...] = ()
    trouble: str | None = None


class _Compiled(NamedTuple):
    """A parsed policy set and its rules by the engine's own policy ids."""

    handle: cedarpy.PolicySet
    rules: Mapping[str, Rule]


class _Asked(NamedTuple):
    """Who asks and what about, as the engine takes them; the same for both questions."""

    principal: Mapping[str, str]
    target: Mapping[str, str]
    entities: cedarpy.Entities


class PolicyGate:
    """A bundle that passed every check, ready to be asked.

    Attributes:
        operations: the registered operations and their effects; no other can be asked about.
        policies: the texts that it was made from, by file.
        rules: every rule, in the order of the files.
        version: SHA-256 over schema and policies; another rule or operation is another version.
    """

    def __init__(self, policies: Mapping[str, str], operations: Mapping[str, Effect]) -> None:
        """Check and compile the policy texts (by file name) for these operations.

        Raises:
            BundleError: a text does not parse or validate, a rule lacks an annotation, two rules
                share an id, or a forbid does not stop its canary. The message names file and rule.
        """
        schema_text = schema_for(operations)
        self.operations: Mapping[str, Effect] = MappingProxyType(dict(operations))
        self.policies: Mapping[str, str] = MappingProxyType(dict(policies))
        self.version = digest({"schema": schema_text, "policies": list(policies.values())})
        try:
            self._schema = cedarpy.Schema.from_str(schema_text)
        except ValueError as error:
            raise BundleError(f"{SCHEMA_FILE}: {error}") from error
        self.rules = tuple(
            rule for file, text in policies.items() for rule in _rules_of(file, text, self._schema)
        )
        if not self.rules:
            raise BundleError("the bundle holds no rule")
        self._policies = _compile("\n".join(policies.values()), self.rules)
        # The actions stand in every entity set that is built with the schema.
        self._actions = len(cedarpy.Entities.from_json_str("[]", self._schema))
        self._entities_of = lru_cache(KNOWN_PAIRS)(self._build_entities)
        self._prove_forbids("\n".join(policies.values()))

    def evaluate(self, situation: Situation, *, quorum_voted: bool) -> Evaluation:
        """Ask once: as things stand, or as if the people that the rules ask for had voted."""
        try:
            registered = self.operations.get(situation.operation)
            if registered is None:
                return _trouble(f"{situation.operation} is not a registered operation")
            if registered != situation.effect:
                return _trouble(f"{situation.operation} is registered as {registered}")
            return self._ask(self._policies, situation, quorum_voted=quorum_voted)
        except Exception as error:  # whatever it was, it must not become a yes
            return _trouble(f"{type(error).__name__}: {error}")

    def _ask(self, policies: _Compiled, situation: Situation, *, quorum_voted: bool) -> Evaluation:
        asked = self._entities_of(situation.principal, situation.target)
        if len(asked.entities) != self._actions + 2:
            return _trouble("principal and target are not both known to the policy")
        request = {
            "principal": asked.principal,
            "action": {"type": "Action", "id": situation.operation},
            "resource": asked.target,
            "context": situation.facts(quorum_voted=quorum_voted),
        }
        result = cedarpy.is_authorized(request, policies.handle, asked.entities, self._schema)
        if result.diagnostics.errors:
            return _trouble("; ".join(result.diagnostics.errors))
        rules = tuple(policies.rules[policy_id] for policy_id in sorted(result.diagnostics.reasons))
        if result.decision is cedarpy.Decision.Deny:
            return Evaluation(allowed=False, rules=rules)
        if result.decision is cedarpy.Decision.Allow and rules and all(r.permits for r in rules):
            return Evaluation(allowed=True, rules=rules)
        return _trouble(f"the engine answered {result.decision.value} without a rule")

    def _build_entities(self, principal: Principal, target: Target) -> _Asked:
        who, what = _principal_entity(principal), _target_entity(target)
        # Built with the schema: otherwise the action groups, and every forbid on them, are lost.
        entities = cedarpy.Entities.from_json_str(json.dumps([who, what]), self._schema)
        return _Asked(who["uid"], what["uid"], entities)

    def _prove_forbids(self, text: str) -> None:
        """Let each forbid stop, alone, a request that everything else lets through."""
        everything = {**CANARY_OPERATIONS, **self.operations}
        permit_all = _rules_of("canary", _PERMIT_ALL, self._schema)
        permitted = _compile(text + _PERMIT_ALL, (*self.rules, *permit_all))
        for rule in self.rules:
            if rule.permits:
                continue
            canary = canary_for(rule, everything)
            for policies in (self._policies, permitted):
                found = self._ask(policies, canary, quorum_voted=True)
                if found.trouble or found.rules != (rule,):
                    instead = found.trouble or [other.rule_id for other in found.rules]
                    raise BundleError(
                        f"{rule.file}: {rule.rule_id} does not stop its canary, or not alone; "
                        f"what decided was {instead}"
                    )


def _trouble(why: str) -> Evaluation:
    return Evaluation(allowed=False, trouble=why)


def _principal_entity(principal: Principal) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "roles": sorted(principal.roles),
        "scopes": sorted(principal.scopes),
    }
    if principal.owner is not None:
        attributes["owner"] = principal.owner
    # Identifiers in their structured form only: the textual one would be parsed.
    uid = {"type": _ENTITY_TYPE[principal.kind], "id": principal.id}
    return {"uid": uid, "attrs": attributes, "parents": []}


def _target_entity(target: Target) -> dict[str, Any]:
    uid = {"type": "Target", "id": str(target)}
    return {"uid": uid, "attrs": {"kind": target.kind, "id": target.id}, "parents": []}


def _rules_of(file: str, text: str, schema: cedarpy.Schema) -> list[Rule]:
    """The rules of one file, after the engine has parsed and validated it."""
    try:
        parsed = cedarpy.PolicySet.from_str(text).to_pst()
    except ValueError as error:
        raise BundleError(f"{file}: {_unparsable(text)}: {error}") from error
    if parsed.templates:
        raise BundleError(f"{file}: templates are not used here; write the rule out")
    validation = cedarpy.validate_policies(text, schema)
    if not validation.validation_passed:
        names = validation.id_annotations_by_policy_id
        found = (f"{names.get(e.policy_id, e.policy_id)}: {e.error}" for e in validation.errors)
        raise BundleError(f"{file}: " + "; ".join(found))
    return [
        read_rule(
            file,
            policy.effect,
            policy.annotations,
            asks_for_votes="quorum_voted" in repr(policy.clauses),
        )
        for policy in parsed.static_policies.values()
    ]


def _unparsable(text: str) -> str:
    """The `@id` of the first rule that does not parse by itself; the engine names no place."""
    for start, rule_id in re.findall(r'(?ms)^(@id\("([^"]*)"\).*?)(?=^@id\(|\Z)', text):
        try:
            cedarpy.PolicySet.from_str(start)
        except ValueError:
            return str(rule_id)
    return "a rule that does not begin with @id"


def _compile(text: str, rules: tuple[Rule, ...]) -> _Compiled:
    by_id: dict[str, Rule] = {}
    for rule in rules:
        first = by_id.setdefault(rule.rule_id, rule)
        if first is not rule:
            raise BundleError(f"{rule.file}: {rule.rule_id} already stands in {first.file}")
    handle = cedarpy.PolicySet.from_str(text)
    policies = handle.to_pst().static_policies
    return _Compiled(handle, {key: by_id[p.annotations["id"]] for key, p in policies.items()})
