"""The policy in force as resources: every rule, one rule with its runbook, and why it refused."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from interlock_guardrails.guard import Guard
from interlock_policies.rules import Rule
from interlock_servers import runbooks
from interlock_servers.page import Listing, Page, Row
from interlock_servers.surface.completing import among
from interlock_servers.surface.offering import Attached, Surface
from interlock_tools.decision import Quorum
from interlock_tools.errors import NotFoundError

ALL = "policy://rules"
ONE = "policy://rule/{rule_id}"

RuleId = Annotated[
    str, Field(pattern=r"^[\w.-]{1,100}$", description="as a refusal names it; policy://rules")
]


class RuleRow(Row):
    """One rule: whether it permits or forbids, what it says, and whom it asks."""

    identity: ClassVar[tuple[str, ...]] = ("rule_id", "effect")

    rule_id: str
    effect: Literal["permit", "forbid"]
    sentence: str
    people: int | None = Field(default=None, description="who must have voted; absent: nobody")
    of_role: str | None = None
    typed_target: bool | None = None

    @classmethod
    def of(cls, rule: Rule) -> "RuleRow":
        """The row of a rule."""
        return cls(**_said(rule))


class RulesInForce(Listing):
    """Every rule of the bundle; another version is another policy."""

    listed: ClassVar[str] = "rules"

    policy_version: str
    rules: list[RuleRow]


class RuleInFull(Page):
    """One rule and what people do about it; a built-in one has no policy behind it."""

    policy_version: str
    rule_id: str
    effect: Literal["permit", "forbid"]
    sentence: str
    people: int | None = None
    of_role: str | None = None
    typed_target: bool | None = None
    file: str | None = None
    runbook: str | None = Field(default=None, description="where it says what to do next")
    what_to_do: str | None = None


def offer_policy(surface: Surface, guard: Guard) -> None:
    """The rules in force, and what to do when one refuses."""
    gate = guard.gate
    rules = {rule.rule_id: rule for rule in gate.rules}

    async def in_force(prefix: str) -> Sequence[str]:
        return among(rules, prefix)

    async def refusing(prefix: str) -> Sequence[str]:
        return among([*rules, *runbooks.BUILT_IN], prefix)

    def in_full(rule: Rule) -> RuleInFull:
        return RuleInFull(
            observed_at=guard.clock.now(),
            origin="policy",
            policy_version=gate.version,
            **_said(rule),
            file=rule.file,
            runbook=rule.runbook,
            what_to_do=runbooks.section(rule.rule_id),
        )

    def found(rule_id: str) -> Rule:
        if rule_id not in rules:
            raise NotFoundError(f"no rule {rule_id!r} is in force; policy://rules lists them")
        return rules[rule_id]

    @surface.resource(ALL, shared=True)
    async def policy_rules() -> RulesInForce:
        """The policy in force: each rule, what it says, whom it asks."""
        return RulesInForce(
            observed_at=guard.clock.now(),
            origin="policy",
            policy_version=gate.version,
            rules=[RuleRow.of(rule) for rule in gate.rules],
        )

    @surface.resource(ONE, complete={"rule_id": in_force}, shared=True)
    async def policy_rule(rule_id: RuleId) -> RuleInFull:
        """One rule in force, with what to do when it refuses."""
        return in_full(found(rule_id))

    @surface.prompt(runbooks.text("runbook_refused"), complete={"rule_id": refusing}, shared=True)
    async def runbook_refused(rule_id: RuleId) -> Sequence[Attached]:
        """What to do after a refusal that names this rule."""
        if rule_id in runbooks.BUILT_IN and rule_id not in rules:
            page = RuleInFull(
                observed_at=guard.clock.now(),
                origin="policy",
                policy_version=gate.version,
                rule_id=rule_id,
                effect="forbid",
                sentence=runbooks.BUILT_IN[rule_id],
                what_to_do=runbooks.section(rule_id),
            )
        else:
            page = in_full(found(rule_id))
        return [Attached(f"policy://rule/{rule_id}", page)]


def _said(rule: Rule) -> dict[str, Any]:
    quorum: Quorum | None = rule.quorum
    return {
        "rule_id": rule.rule_id,
        "effect": "permit" if rule.permits else "forbid",
        "sentence": rule.reason,
        "people": None if quorum is None else quorum.people,
        "of_role": None if quorum is None else quorum.role,
        "typed_target": None if quorum is None else quorum.typed_target,
    }
