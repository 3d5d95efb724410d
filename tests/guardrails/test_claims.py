"""What a caller claims counts only where a source of ours says the same."""

from datetime import datetime

import pytest

from interlock_guardrails.plans import propose_plan
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import InvalidRequestError
from interlock_tools.fact import Claim, Fact, FactNeed, Nature, Unknown
from interlock_tools.identity import Target
from tests.guardrails.conftest import AGENT, House, person
from tests.guardrails.valve import MoveValve, MoveValveArguments, Valve

OPERATOR = person("person:operator-1", "operator")
TICKET = "t-7"
NAMED = "ticket.state of ticket/t-7"


class TicketArguments(MoveValveArguments):
    """Where to, and the ticket that asks for it."""

    ticket_id: str | None = None


class MoveForTicket(MoveValve):
    """Move the valve to a position, perhaps because a ticket asks for it."""

    arguments = TicketArguments

    def claims(self, arguments: MoveValveArguments) -> tuple[Claim, ...]:
        """That the ticket is open."""
        if not isinstance(arguments, TicketArguments) or arguments.ticket_id is None:
            return ()
        ticket = Target(kind="ticket", id=arguments.ticket_id)
        need = FactNeed(kind="ticket.state", subject=ticket, max_age_s=60)
        return (Claim(need=need, value="open"),)


class Tickets:
    """The ticket system: what it says of each ticket, and of which version."""

    def __init__(self, valve: Valve) -> None:
        self.states: dict[str, object] = {TICKET: "open"}
        self.version = "1"
        self.observed_at: datetime | None = None
        self._clock = valve.clock

    @property
    def kinds(self) -> frozenset[str]:
        """The state of a ticket."""
        return frozenset({"ticket.state"})

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """What is known of the ticket, which is an identity."""
        if need.subject.id not in self.states:
            return Unknown(kind=need.kind, subject=need.subject, why="there is no such ticket")
        return Fact(
            kind=need.kind,
            subject=need.subject,
            value=self.states[need.subject.id],
            origin="tickets",
            version=self.version,
            observed_at=self.observed_at or self._clock.now(),
            nature=Nature.IDENTITY,
        )


@pytest.fixture
def tickets(house: House) -> Tickets:
    """A ticket system that the guard asks, and an operation that names tickets."""
    source = Tickets(house.valve)
    house.guard.facts.add(source)
    house.guard.operations[MoveValve.name] = MoveForTicket(house.valve)
    return source


async def claimed(house: House, ticket_id: str | None = TICKET) -> Change:
    """Propose a move for a ticket."""
    return await house.propose(50, arguments={"ticket_id": ticket_id})


def assert_unconfirmed(change: Change, says: str) -> None:
    """It was refused by that rule, which names the claim and what is known instead."""
    assert change.decision is not None
    assert change.state is ChangeState.REFUSED
    assert [rule.rule_id for rule in change.decision.rules] == ["claim-unconfirmed"]
    assert f"not confirmed: {NAMED} is 'open'" in change.history[-1].why
    assert says in change.history[-1].why
    assert "ticket.state" not in {fact.kind for fact in change.facts}


async def test_without_a_claim_nothing_has_to_be_confirmed(house: House, tickets: Tickets) -> None:
    """An argument that is left out claims nothing."""
    tickets.states.clear()

    change = await claimed(house, ticket_id=None)

    assert change.state is ChangeState.AWAITING_APPROVAL


async def test_a_claim_that_nobody_knows_of_is_refused(house: House, tickets: Tickets) -> None:
    """Also where no source answers for such things at all."""
    tickets.states.clear()

    assert_unconfirmed(await claimed(house), "unknown: there is no such ticket")


async def test_a_claim_that_no_source_answers_is_refused(house: House) -> None:
    """A site without a ticket system confirms no ticket."""
    house.guard.operations[MoveValve.name] = MoveForTicket(house.valve)

    assert_unconfirmed(await claimed(house), "unknown: no source answers this kind")


async def test_a_claim_whose_source_is_out_of_date_is_refused(
    house: House, tickets: Tickets
) -> None:
    """It was open two minutes ago; nobody knows whether it is."""
    tickets.observed_at = house.clock.now()
    house.clock.advance(120)

    assert_unconfirmed(await claimed(house), "120.0 s old")


@pytest.mark.parametrize("value", ["closed", True, 1, None, {"state": "open"}, float("nan")])
async def test_a_claim_whose_source_says_something_else_is_refused(
    house: House, tickets: Tickets, value: object
) -> None:
    """Exactly the value that was claimed, or it is another."""
    tickets.states[TICKET] = value

    assert_unconfirmed(await claimed(house), "compared" if value != value else "tickets says")


async def test_what_is_unconfirmed_is_on_the_ledger_by_name(house: House, tickets: Tickets) -> None:
    """So that another policy can be asked the same later."""
    tickets.states[TICKET] = "closed"
    await claimed(house)

    (found,) = [r["body"] for r in house.ledger.read(0, 100) if r["kind"] == "decided"]
    assert found["situation"]["claims_unconfirmed"] == [NAMED]


async def test_a_missing_fact_is_not_taken_for_a_claim(house: House, tickets: Tickets) -> None:
    """Without the facts nothing can be decided, whatever is claimed."""
    house.valve.missing.add("valve.serial")
    change = await claimed(house)

    assert change.decision is not None
    assert [rule.rule_id for rule in change.decision.rules] == ["facts-unknown"]


async def test_a_confirmed_claim_is_shown_and_carried_out(house: House, tickets: Tickets) -> None:
    """Its fact is among those that the approvers see, and on the ledger."""
    change = await claimed(house)
    assert change.state is ChangeState.AWAITING_APPROVAL
    assert "ticket.state" in {fact.kind for fact in change.facts}
    (found,) = [r["body"] for r in house.ledger.read(0, 100) if r["kind"] == "decided"]
    assert "ticket.state" in {fact["kind"] for fact in found["facts"]}

    await house.approve(change, OPERATOR)
    async with house.working():
        assert (await house.end_of(change)).state is ChangeState.SUCCEEDED


async def test_an_identity_that_was_claimed_binds_the_vote(house: House, tickets: Tickets) -> None:
    """People approved for this ticket as it was; it was written anew since."""
    change = await claimed(house)
    await house.approve(change, OPERATOR)
    tickets.version = "2"

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUPERSEDED
    assert house.valve.acts == []


@pytest.mark.parametrize("value", ["closed", None])
async def test_a_claim_that_is_true_no_more_after_the_vote_stops_the_change(
    house: House, tickets: Tickets, value: str | None
) -> None:
    """The worker asks again before the act; a vote does not stand in for it."""
    change = await claimed(house)
    await house.approve(change, OPERATOR)
    tickets.states[TICKET] = value

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.REFUSED
    assert "claim-unconfirmed" in ended.history[-1].why
    assert NAMED in ended.history[-1].why
    assert house.valve.acts == []


async def test_a_plan_claims_what_its_steps_claim(house: House, tickets: Tickets) -> None:
    """A step that claims what is not so is none to plan; what ends later stops the plan."""
    steps = [
        ("valve.move_valve", {"position_pct": 80, "ticket_id": TICKET}),
        ("valve.move_valve", {"position_pct": 60, "ticket_id": TICKET}),
    ]
    plan = await propose_plan(house.guard, AGENT, steps, reason="in steps", dry_run=False)
    assert [fact.kind for fact in plan.facts].count("ticket.state") == 1
    await house.approve(plan, OPERATOR)
    tickets.states[TICKET] = "closed"

    async with house.working():
        ended = await house.end_of(plan)

    assert ended.state is ChangeState.REFUSED
    assert NAMED in ended.history[-1].why
    assert house.valve.acts == []
    with pytest.raises(InvalidRequestError, match=NAMED):
        await propose_plan(house.guard, AGENT, steps, reason="again", dry_run=False)
