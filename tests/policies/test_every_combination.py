"""Every combination of the boundary values, and what must hold in all of them."""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

import pytest

from interlock_policies.decide import decide
from interlock_policies.gate import PolicyGate
from interlock_policies.situation import Situation
from interlock_tools.decision import Answer, Decision, Quorum
from interlock_tools.identity import PrincipalKind
from interlock_tools.operation import Effect

AGENT, PERSON = PrincipalKind.AGENT, PrincipalKind.PERSON
CHANGES = (Effect.REVERSIBLE, Effect.DISRUPTIVE, Effect.IRREVERSIBLE)

# Each on top of a situation where every counted limit is reached and none is passed.
WRONG: dict[str, dict[str, Any]] = {
    "nothing": {},
    "slo": {"reach": {"slo_floors_broken": {"job-1"}}},
    "budget": {"reach": {"budgets_broken": {"feed-1"}}},
    "frozen": {"frozen": True},
    "overlap": {"overlaps_open": True},
    "protected": {"protected": {"node-001"}},
    "scope": {"scopes": frozenset({"interlock:read"})},
    "hosts": {"open_reach": {"hosts": {f"other-{number}" for number in range(25)}}},
    "busy": {"changes_last_hour": 30},
    "frozen and busy": {"frozen": True, "changes_last_hour": 30},
}


class Case(NamedTuple):
    """One combination."""

    effect: Effect
    kind: PrincipalKind
    in_window: bool
    gpus: int
    domains: int
    rise_w: int
    wrong: str

    @property
    def forbidden(self) -> bool:
        """Whether a limit is passed, written down a second time and without Cedar."""
        if self.wrong == "hosts":
            return self.effect is not Effect.REVERSIBLE
        if self.wrong == "busy":
            return self.kind is AGENT
        return self.wrong != "nothing"

    @property
    def small_power_cut(self) -> bool:
        """Whether it is what an agent may do in a window."""
        return self.effect is Effect.REVERSIBLE and (self.gpus, self.domains, self.rise_w) == (
            5,
            1,
            0,
        )


def cases() -> Iterator[Case]:
    """All of them: 960."""
    for combination in product(
        CHANGES, (AGENT, PERSON), (True, False), (5, 6), (1, 2), (0, 1), WRONG
    ):
        yield Case(*combination)


@pytest.fixture(scope="module")
def decided(
    situation: Callable[..., Situation], gates: Mapping[str, PolicyGate]
) -> list[tuple[str, Case, Decision]]:
    """The bundle, the case and what was decided."""

    def of(case: Case) -> Situation:
        changed = dict(WRONG[case.wrong])
        reach = {
            "gpus": case.gpus,
            "power_domains": {f"feed-{number}" for number in range(case.domains)},
            "power_rise_w": case.rise_w,
            **changed.pop("reach", {}),
        }
        at_the_limit = {
            "open_reach": {"hosts": {f"other-{number}" for number in range(24)}},
            "changes_last_hour": 29,
        }
        return situation(
            case.effect,
            case.kind,
            reach,
            in_window=case.in_window,
            **{**at_the_limit, **changed},
        )

    situations = [(case, of(case)) for case in cases()]
    return [
        (name, case, decide(gate, asked))
        for name, gate in gates.items()
        for case, asked in situations
    ]


def holds(
    decided: list[tuple[str, Case, Decision]],
    when: Callable[[str, Case], bool],
    promise: Callable[[Decision], bool],
) -> bool:
    """The promise holds wherever `when` says so, and that is not nowhere."""
    met = [(name, case, found) for name, case, found in decided if when(name, case)]
    broken = [(name, case, found.sentence()) for name, case, found in met if not promise(found)]
    assert met
    assert not broken, broken[:3]
    return True


Decided = list[tuple[str, Case, Decision]]


def test_observe_never_changes_anything(decided: Decided) -> None:
    """Safety: not in any combination."""
    assert holds(decided, lambda b, _: b == "observe", lambda d: d.answer is Answer.REFUSE)


def test_what_passes_a_limit_is_refused_whatever_else_is_true(decided: Decided) -> None:
    """Safety: no combination of the other facts opens it."""
    assert holds(decided, lambda _, c: c.forbidden, lambda d: d.answer is Answer.REFUSE)


def test_only_a_small_power_cut_by_an_agent_in_a_window_goes_without_people(
    decided: Decided,
) -> None:
    """Safety: everything else that is allowed has people behind it."""
    assert holds(
        decided,
        lambda b, c: (
            not (b == "autonomous" and c.kind is AGENT and c.in_window and c.small_power_cut)
        ),
        lambda d: d.answer is not Answer.ALLOW,
    )


def test_a_disruptive_change_never_has_fewer_than_two_people(decided: Decided) -> None:
    """Safety: where it is not refused, two operators."""
    assert holds(
        decided,
        lambda _, c: c.effect is Effect.DISRUPTIVE,
        lambda d: d.answer is Answer.REFUSE or d.quorum == Quorum(people=2, role="operator"),
    )


def test_an_irreversible_change_never_has_fewer_than_two_site_leads(decided: Decided) -> None:
    """Safety: where it is not refused, two site leads who type the target."""
    leads = Quorum(people=2, role="site_lead", typed_target=True)
    assert holds(
        decided,
        lambda _, c: c.effect is Effect.IRREVERSIBLE,
        lambda d: d.answer is Answer.REFUSE or d.quorum == leads,
    )


def test_power_never_rises_without_people(decided: Decided) -> None:
    """Safety: one watt is enough to need a vote."""
    assert holds(decided, lambda _, c: c.rise_w > 0, lambda d: d.answer is not Answer.ALLOW)


def test_what_passes_no_limit_is_never_refused_outright(decided: Decided) -> None:
    """Must still allow: with votes, every change within the limits is possible."""
    assert holds(
        decided,
        lambda b, c: b != "observe" and not c.forbidden,
        lambda d: d.answer is not Answer.REFUSE,
    )


def test_an_agent_may_make_a_small_power_cut_in_a_window(decided: Decided) -> None:
    """Must still allow: at every limit and past none, without a vote."""
    assert holds(
        decided,
        lambda b, c: (
            (b, c.kind, c.in_window, c.forbidden) == ("autonomous", AGENT, True, False)
            and c.small_power_cut
        ),
        lambda d: d.answer is Answer.ALLOW,
    )


def test_a_reversible_change_never_takes_more_than_one_operator(decided: Decided) -> None:
    """Must still allow: what can be taken back stays cheap to ask for."""
    one = Quorum(people=1, role="operator")
    assert holds(
        decided,
        lambda _, c: c.effect is Effect.REVERSIBLE,
        lambda d: d.answer is not Answer.REQUIRE_APPROVAL or d.quorum == one,
    )


def test_every_answer_gives_a_rule_and_its_sentence(decided: Decided) -> None:
    """Nobody is refused, or asked, without being told why."""
    assert holds(decided, lambda *_: True, lambda d: all(r.rule_id and r.reason for r in d.rules))
    assert all(found.rules for _, _, found in decided)
