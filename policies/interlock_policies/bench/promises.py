"""Promises: what must hold in every combination, written down a second time and without Cedar.

Half of them say what must never be a yes; the other half what must still be possible, so that a
policy that refuses everything, or asks too many people, does not pass for a safe one.
"""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from interlock_policies.bench.errors import CaseError
from interlock_policies.decide import NO_USABLE_ANSWER
from interlock_policies.situation import Situation
from interlock_tools.decision import Answer, Decision, Quorum
from interlock_tools.identity import PrincipalKind
from interlock_tools.operation import Effect

Values = frozenset[int | str]
READ, PROPOSE = "interlock:read", "interlock:propose"


class Limits(BaseModel):
    """The figures that the promises are about; None where a policy has no such limit.

    Attributes:
        interrupted_hosts_permille: share of the hosts, with what is open, that may be interrupted.
        agent_changes_per_hour: changes within the hour from which on an agent is refused.
        agent_budget_permille: share of its budget past which, with this change, it is refused.
        unattended_gpus_permille: share of the GPUs on which an agent may cut power by itself.
        unattended_power_domains: in how many power domains.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    interrupted_hosts_permille: int | None = Field(default=None, ge=0, le=1000)
    agent_changes_per_hour: int | None = Field(default=None, ge=1)
    agent_budget_permille: int | None = Field(default=None, ge=1)
    unattended_gpus_permille: int | None = Field(default=None, ge=1, le=1000)
    unattended_power_domains: int | None = Field(default=None, ge=1)


class Asked(NamedTuple):
    """A situation with its facts, which every promise looks at."""

    situation: Situation
    facts: Mapping[str, Any]

    @property
    def effect(self) -> Effect:
        """The effect of what is asked for."""
        return self.situation.effect

    @property
    def by_agent(self) -> bool:
        """Whether an agent asks."""
        return self.situation.principal.kind is PrincipalKind.AGENT


class Promise(NamedTuple):
    """One thing that holds wherever `when` says so.

    Attributes:
        name: as a case file lists it.
        sentence: what it promises.
        when: where it applies.
        holds: whether a decision keeps it.
        must_allow: it says what must stay possible; otherwise what must not happen.
        looks_at: what has to be varied to try it, whether or not a rule reads it.
        about_permits: it belongs with the permits; otherwise with the forbids.
    """

    name: str
    sentence: str
    when: Callable[[Asked, Limits], bool]
    holds: Callable[[Decision], bool]
    must_allow: bool = False
    looks_at: Callable[[Limits], Mapping[str, Values]] = lambda _: {}
    about_permits: bool = False


def over_a_limit(asked: Asked, limits: Limits) -> bool:
    """Whether a change passes what no vote can buy."""
    facts = asked.facts
    hosts, changes = limits.interrupted_hosts_permille, limits.agent_changes_per_hour
    budget = limits.agent_budget_permille
    interrupts = asked.effect in {Effect.DISRUPTIVE, Effect.IRREVERSIBLE}
    return bool(
        facts["slo_floors_broken"]
        or facts["budgets_broken"]
        or facts["protected_reached"]
        or facts["frozen"]
        or facts["overlaps_open"]
        or facts["claims_unconfirmed"]
        or PROPOSE not in asked.situation.principal.scopes
        or (asked.by_agent and not asked.situation.principal.owner)
        or (hosts is not None and interrupts and facts["open_host_share_permille"] > hosts)
        or (changes is not None and asked.by_agent and facts["changes_last_hour"] >= changes)
        or (budget is not None and asked.by_agent and facts["agent_budget_spent_permille"] > budget)
    )


def small_cut(asked: Asked, limits: Limits) -> bool:
    """Whether it is the power cut that an agent may make by itself."""
    facts, share = asked.facts, limits.unattended_gpus_permille
    return bool(
        share is not None
        and asked.by_agent
        and asked.effect is Effect.REVERSIBLE
        and facts["autonomy_granted"]
        and facts["in_window"]
        and facts["power_rise_w"] == 0
        and not _left_out(asked)
        and not facts["power_taken_from"]
        and facts["watts_moved"] > 0
        and facts["gpus"] > 0
        and facts["gpu_share_permille"] <= share
        and 0 < facts["power_domains"] <= (limits.unattended_power_domains or 0)
    )


def chosen(names: Iterable[str], file: str) -> tuple[Promise, ...]:
    """The promises of these names, and those that hold for any policy.

    Raises:
        CaseError: there is no such promise; names the file and the nearest.
    """
    for name in names:
        if name not in PROMISES:
            near = get_close_matches(name, PROMISES, n=1)
            hint = f"the nearest is {near[0]}" if near else f"there are {', '.join(PROMISES)}"
            raise CaseError(f"{file}: there is no promise {name}; {hint}")
    wanted = {*names, *ALWAYS}
    return tuple(promise for name, promise in PROMISES.items() if name in wanted)


def _mutates(asked: Asked, _: Limits) -> bool:
    return asked.effect is not Effect.READ


def _within(asked: Asked, limits: Limits) -> bool:
    return asked.effect is not Effect.READ and not over_a_limit(asked, limits)


def _refused(decision: Decision) -> bool:
    return decision.answer is Answer.REFUSE


def _not_alone(decision: Decision) -> bool:
    return decision.answer is not Answer.ALLOW


def _asks_only(people: int, role: str, *, typed: bool = False) -> Callable[[Decision], bool]:
    """Refused, or exactly these people; fewer is unsafe, and more is a policy nobody can use."""
    quorum = Quorum(people=people, role=role, typed_target=typed)
    return lambda decision: (
        decision.answer is Answer.REFUSE
        or (decision.answer is Answer.REQUIRE_APPROVAL and decision.quorum == quorum)
    )


def _around(value: int | None, *steps: int) -> Values:
    return frozenset[int | str](value + step for step in steps) if value is not None else Values()


def _limits(limits: Limits) -> Mapping[str, Values]:
    """What `over_a_limit` looks at, with both sides of each limit."""
    return {
        "context.slo_floors_broken": Values(),
        "context.budgets_broken": Values(),
        "context.protected_reached": Values(),
        "context.frozen": Values(),
        "context.overlaps_open": Values(),
        "context.claims_unconfirmed": Values(),
        "principal.scopes": frozenset({READ, PROPOSE}),
        "principal.owner": Values(),
        "context.open_host_share_permille": _around(limits.interrupted_hosts_permille, 0, 1),
        "context.changes_last_hour": _around(limits.agent_changes_per_hour, -1, 0),
        "context.agent_budget_spent_permille": _around(limits.agent_budget_permille, 0, 1),
    }


def _cuts(limits: Limits) -> Mapping[str, Values]:
    """What `small_cut` looks at."""
    return {
        "principal.scopes": frozenset({READ, PROPOSE}),
        "context.autonomy_granted": Values(),
        "context.in_window": Values(),
        "context.power_rise_w": frozenset({0, 1}),
        "context.power_taken_from": Values(),
        "context.watts_moved": frozenset({0, 1}),
        **_TERMS,
        "context.gpus": frozenset({0, 1}),
        "context.gpu_share_permille": _around(limits.unattended_gpus_permille, 0, 1),
        "context.power_domains": frozenset({0, 1}) | _around(limits.unattended_power_domains, 0, 1),
    }


def _rise(_: Limits) -> Mapping[str, Values]:
    return {"context.power_rise_w": frozenset({0, 1})}


def _takes(asked: Asked) -> bool:
    """Whether some work loses by it what other work gains, at once or when power is short."""
    return bool(asked.facts["power_taken_from"])


def _taking(_: Limits) -> Mapping[str, Values]:
    return {"context.power_taken_from": Values()}


_TERMS: Mapping[str, Values] = {"context.all_feeds": Values(), "context.open_ended": Values()}


def _left_out(asked: Asked) -> int:
    """How many of its feeds and its end a target of the grid leaves out."""
    return int(asked.facts["all_feeds"]) + int(asked.facts["open_ended"])


def _terms(_: Limits) -> Mapping[str, Values]:
    return _TERMS


def _scopes(_: Limits) -> Mapping[str, Values]:
    return {"principal.scopes": frozenset({READ, PROPOSE})}


_ALL = (
    Promise(
        "every-answer-says-why",
        "Every decision names a rule of the policy and gives its sentence.",
        lambda _, __: True,
        lambda d: (
            bool(d.rules) and all(r.reason and r.rule_id != NO_USABLE_ANSWER for r in d.rules)
        ),
    ),
    Promise(
        "nothing-is-changed", "No change is possible, with or without votes.", _mutates, _refused
    ),
    Promise(
        "limits-hold",
        "What passes a limit is refused, whatever else is true.",
        lambda asked, limits: _mutates(asked, limits) and over_a_limit(asked, limits),
        _refused,
        looks_at=_limits,
    ),
    Promise(
        "nothing-goes-without-people",
        "No change is made without a vote.",
        _mutates,
        _not_alone,
        about_permits=True,
    ),
    Promise(
        "only-small-cuts-go-without-people",
        "Only a small power cut by an agent in a window is made without a vote.",
        lambda asked, limits: _mutates(asked, limits) and not small_cut(asked, limits),
        _not_alone,
        looks_at=_cuts,
        about_permits=True,
    ),
    Promise(
        "a-rise-needs-people",
        "Power never rises without a vote, not by a watt.",
        lambda asked, _: asked.facts["power_rise_w"] > 0 and asked.effect is not Effect.READ,
        _not_alone,
        looks_at=_rise,
        about_permits=True,
    ),
    Promise(
        "two-operators-for-disruptive",
        "A disruptive change takes exactly two operators.",
        lambda asked, _: asked.effect is Effect.DISRUPTIVE,
        _asks_only(2, "operator"),
        about_permits=True,
    ),
    Promise(
        "two-operators-for-taken-power",
        "Raising some by what is taken from others takes exactly two operators.",
        lambda asked, _: (
            asked.effect is Effect.REVERSIBLE and _takes(asked) and _left_out(asked) < 2
        ),
        _asks_only(2, "operator"),
        looks_at=_taking,
        about_permits=True,
    ),
    Promise(
        "two-operators-for-what-a-target-leaves-out",
        "A target of the grid for all feeds, or for ever, takes exactly two operators.",
        lambda asked, _: asked.effect is Effect.REVERSIBLE and _left_out(asked) == 1,
        _asks_only(2, "operator"),
        looks_at=_terms,
        about_permits=True,
    ),
    Promise(
        "three-operators-for-all-that-a-target-leaves-out",
        "A target of the grid for all feeds and for ever takes exactly three operators.",
        lambda asked, _: asked.effect is Effect.REVERSIBLE and _left_out(asked) == 2,
        _asks_only(3, "operator"),
        looks_at=_terms,
        about_permits=True,
    ),
    Promise(
        "two-leads-for-irreversible",
        "An irreversible change takes exactly two site leads, who type the target.",
        lambda asked, _: asked.effect is Effect.IRREVERSIBLE,
        _asks_only(2, "site_lead", typed=True),
        about_permits=True,
    ),
    Promise(
        "reads-need-the-scope",
        "Nobody reads without the scope interlock:read.",
        lambda asked, _: (
            asked.effect is Effect.READ and READ not in asked.situation.principal.scopes
        ),
        _refused,
        looks_at=_scopes,
        about_permits=True,
    ),
    Promise(
        "reads-pass",
        "Whoever holds the scope reads, in a freeze too.",
        lambda asked, _: asked.effect is Effect.READ and READ in asked.situation.principal.scopes,
        lambda d: d.answer is Answer.ALLOW,
        must_allow=True,
        looks_at=_scopes,
    ),
    Promise(
        "within-the-limits-people-can",
        "With votes, every change that passes no limit is possible.",
        _within,
        lambda d: d.answer is not Answer.REFUSE,
        must_allow=True,
        looks_at=_limits,
    ),
    Promise(
        "small-cuts-need-nobody",
        "An agent makes a small power cut in a window, at every limit and past none, by itself.",
        lambda asked, limits: _within(asked, limits) and small_cut(asked, limits),
        lambda d: d.answer is Answer.ALLOW,
        must_allow=True,
        looks_at=_cuts,
        about_permits=True,
    ),
    Promise(
        "one-operator-for-reversible",
        "A reversible change never takes more than one operator, unless it takes power from others "
        "or is of a target that leaves something out.",
        lambda asked, _: (
            asked.effect is Effect.REVERSIBLE and not _takes(asked) and not _left_out(asked)
        ),
        lambda d: d.answer is Answer.ALLOW or _asks_only(1, "operator")(d),
        must_allow=True,
        about_permits=True,
    ),
)
PROMISES: Mapping[str, Promise] = MappingProxyType({promise.name: promise for promise in _ALL})
ALWAYS = ("every-answer-says-why",)
