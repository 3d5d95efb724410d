"""Who may vote, on what, and how often."""

import anyio
import pytest
from sqlalchemy import Connection

from interlock_guardrails import changes
from interlock_policies.bundles import load_bundle
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import ConflictError, InvalidRequestError
from interlock_tools.identity import Principal, PrincipalKind
from interlock_tools.operation import Effect
from tests.guardrails.conftest import AGENT, House, person
from tests.guardrails.valve import MoveValve

OPERATOR = person("person:operator-1", "operator")


@pytest.mark.parametrize(
    ("voter", "says"),
    [
        (AGENT, "only a person"),
        (person("person:guest"), "has no say"),
        (person("person:lead", "site_lead"), "has no say"),
        (person("person:owner", "operator"), "owner cannot"),
        (
            person("person:operator-1", "operator", channel="token:local"),
            "authenticated by a console",
        ),
    ],
    ids=["agent", "no role", "other role", "owner of the agent", "with an MCP token"],
)
async def test_only_a_distinct_person_of_the_role_at_a_console_can_vote(
    house: House, voter: Principal, says: str
) -> None:
    """The requester, its owner, agents, other roles and MCP tokens have no vote."""
    change = await house.propose(50)

    with pytest.raises(InvalidRequestError, match=says):
        await house.approve(change, voter)

    assert (await house.guard.get(change.change_id)).state is ChangeState.AWAITING_APPROVAL


async def test_a_person_who_asked_cannot_approve(house: House) -> None:
    """Two pairs of eyes means two people."""
    asker = Principal(
        id="person:operator-1",
        kind=PrincipalKind.PERSON,
        authenticated_by="console:local",
        roles=frozenset({"operator"}),
        scopes=frozenset({"interlock:propose"}),
    )
    change = await house.propose(50, requester=asker)

    with pytest.raises(InvalidRequestError, match="cannot approve"):
        await house.approve(change, asker)


async def test_a_vote_for_something_else_does_not_count(house: House) -> None:
    """The digest that was shown is the digest that is approved."""
    change = await house.propose(50)
    other = await house.propose(60)

    with pytest.raises(ConflictError, match="not what would be done"):
        await house.approve(change, OPERATOR, shown_digest=other.binding_digest)


async def test_a_late_vote_does_not_count(house: House) -> None:
    """After its expiry a change cannot be brought to life."""
    change = await house.propose(50)
    house.clock.advance(300)

    with pytest.raises(ConflictError, match="expired"):
        await house.approve(change, OPERATOR)


async def test_a_clock_that_goes_back_does_not_lengthen_an_approval(house: House) -> None:
    """Before it was proposed nobody can have approved it, and nothing is begun on such a clock."""
    change = await house.propose(50)
    approved = await house.propose(60)
    await house.approve(approved, OPERATOR)
    house.clock.advance(-3600)

    with pytest.raises(ConflictError, match="expired"):
        await house.approve(change, OPERATOR)
    async with house.working():
        ended = [await house.end_of(change), await house.end_of(approved)]

    assert [each.state for each in ended] == [ChangeState.EXPIRED, ChangeState.EXPIRED]
    assert house.valve.acts == []


async def test_a_vote_on_an_old_look_of_the_change_does_not_overwrite_another(
    house: House,
) -> None:
    """Two people vote at once on two replicas: the second must look again."""
    change = await house.propose(50)

    def vote_twice(connection: Connection) -> None:
        seen = changes.get(connection, change.change_id)
        changes.amend(connection, seen, evidence={"vote": "the first"})
        changes.amend(connection, seen, evidence={"vote": "the second"})

    with pytest.raises(ConflictError, match="look again"):
        await house.guard.store.write(vote_twice)


async def test_a_rejection_ends_it(house: House) -> None:
    """One no is a no; a later yes finds nothing open."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR, approve=False)

    with pytest.raises(ConflictError):
        await house.approve(change, person("person:operator-2", "operator"))

    assert (await house.guard.get(change.change_id)).state is ChangeState.REJECTED


async def test_sixteen_voters_at_once_authorise_it_once(house: House) -> None:
    """One change, one approval, one execution, whoever is quick."""
    change = await house.propose(50)
    outcomes: list[str] = []

    async def vote(number: int) -> None:
        try:
            await house.approve(change, person(f"person:{number}", "operator"))
            outcomes.append("counted")
        except ConflictError:
            outcomes.append("closed")

    async with anyio.create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(vote, number)
    async with house.working():
        await house.end_of(change)

    assert outcomes.count("counted") == 1
    assert house.valve.acts == [50]


async def test_an_agent_is_not_a_person_whatever_it_calls_itself(house: House) -> None:
    """The kind comes from authentication; a role on an agent buys nothing."""
    pretender = Principal(
        id="person:operator-1",
        kind=PrincipalKind.AGENT,
        authenticated_by="console:local",
        roles=frozenset({"operator"}),
    )
    change = await house.propose(50)

    with pytest.raises(InvalidRequestError):
        await house.approve(change, pretender)


class InterruptWork(MoveValve):
    """The same move, declared to interrupt running work: two people have to agree."""

    effect = Effect.DISRUPTIVE


async def test_two_people_are_two_people(house: House) -> None:
    """One vote of two does nothing, the same person twice is one, and the second begins it once."""
    operation = InterruptWork(house.valve)
    house.guard.operations = {operation.name: operation}
    house.guard.gate = load_bundle("supervised", {operation.name: operation.effect})
    change = await house.propose(50)

    async with house.working():
        first = await house.approve(change, OPERATOR)
        with pytest.raises(ConflictError, match="voted already"):
            await house.approve(change, OPERATOR)
        house.clock.advance(2.0)
        await anyio.wait_all_tasks_blocked()
        assert first.state is ChangeState.AWAITING_APPROVAL
        assert house.valve.acts == []
        await house.approve(change, person("person:operator-2", "operator"))
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED
    assert [vote.voter for vote in ended.votes] == ["person:operator-1", "person:operator-2"]
    assert house.valve.acts == [50]


@pytest.mark.parametrize(
    "by",
    [AGENT, person("person:owner"), OPERATOR],
    ids=["who asked", "who answers for it", "of the role"],
)
async def test_a_change_is_withdrawn_before_it_begins(house: House, by: Principal) -> None:
    """By whoever asked for it or decides on it; it ends as rejected, on the ledger too."""
    change = await house.propose(50)

    withdrawn = await house.approvals.withdraw(by, change.change_id, why="not needed any more")

    assert withdrawn.state is ChangeState.REJECTED
    assert withdrawn.history[-1].why == f"withdrawn by {by.id}: not needed any more"
    record = house.ledger.read(0, 10)[-1]
    assert (record["kind"], record["body"]["by"]) == ("change_state", by.id)
    with pytest.raises(ConflictError):
        await house.approve(change, OPERATOR)


async def test_an_approved_change_is_withdrawn_as_long_as_it_has_not_begun(house: House) -> None:
    """A vote is no promise to act."""
    await house.guard.stop(OPERATOR, "hold")
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    await house.approvals.withdraw(OPERATOR, change.change_id, why="the row was wrong")
    await house.guard.resume(OPERATOR, "go on")

    async with house.working():
        house.clock.advance(5.0)
        await anyio.wait_all_tasks_blocked()

    assert (await house.guard.get(change.change_id)).state is ChangeState.REJECTED
    assert house.valve.acts == []


async def test_what_has_begun_or_ended_is_not_withdrawn(house: House) -> None:
    """What runs is finished to its verification."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    async with house.working():
        await house.end_of(change)

    with pytest.raises(ConflictError, match="succeeded"):
        await house.approvals.withdraw(OPERATOR, change.change_id, why="too late")


@pytest.mark.parametrize(
    "by",
    [
        person("person:guest"),
        person("person:lead", "site_lead"),
        person("person:operator-1", "operator", channel="token:local"),
        AGENT.model_copy(update={"id": "agent:other"}),
        OPERATOR.model_copy(update={"id": AGENT.id, "roles": frozenset()}),
    ],
    ids=["no role", "other role", "with an MCP token", "another agent", "a person of its name"],
)
async def test_others_do_not_withdraw_a_change(house: House, by: Principal) -> None:
    """Stopping everything is for anyone; picking one change is not."""
    change = await house.propose(50)

    with pytest.raises(InvalidRequestError, match="neither asked"):
        await house.approvals.withdraw(by, change.change_id, why="I do not like it")


async def stuck(house: House) -> Change:
    """A change that acted, and of which the plant does not say what happened."""
    house.valve.mishap = "mute"
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    async with house.working():
        ended = await house.end_of(change)
    assert ended.state is ChangeState.STUCK
    house.valve.mishap = "none"
    return ended


async def test_what_is_stuck_keeps_others_off_until_a_person_clears_it(house: House) -> None:
    """Nobody knows what the plant is like there, so nothing else may begin on it."""
    change = await stuck(house)
    refused = await house.propose(60)
    assert refused.state is ChangeState.REFUSED
    assert "overlaps-open-reservation" in refused.history[-1].why

    cleared = await house.clearing.clear(OPERATOR, change.change_id, why="looked: it is at 50")

    assert cleared.state is ChangeState.STUCK
    assert cleared.evidence["cleared"]["by"] == OPERATOR.id
    record = house.ledger.read(0, 100)[-1]["body"]
    assert (record["what"], record["why"]) == ("cleared", "looked: it is at 50")
    assert (await house.propose(61)).state is ChangeState.AWAITING_APPROVAL


@pytest.mark.parametrize(
    "by",
    [AGENT, person("person:guest"), person("person:operator-1", "operator", channel="token:local")],
    ids=["agent", "no role", "with an MCP token"],
)
async def test_only_an_operator_clears_and_only_with_a_reason(house: House, by: Principal) -> None:
    """It says that somebody went and looked."""
    change = await stuck(house)

    with pytest.raises(InvalidRequestError):
        await house.clearing.clear(by, change.change_id, why="fine")
    with pytest.raises(InvalidRequestError, match="why"):
        await house.clearing.clear(OPERATOR, change.change_id, why=" ")


async def test_what_runs_or_holds_nothing_is_not_cleared(house: House) -> None:
    """A running change's lock is not a person's to give away."""
    change = await house.propose(50)
    with pytest.raises(ConflictError, match="nothing to clear"):
        await house.clearing.clear(OPERATOR, change.change_id, why="fine")

    ended = await stuck(house)
    await house.clearing.clear(OPERATOR, ended.change_id, why="fine")
    with pytest.raises(ConflictError, match="holds nothing"):
        await house.clearing.clear(OPERATOR, ended.change_id, why="fine")
