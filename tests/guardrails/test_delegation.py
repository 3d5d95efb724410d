"""A role that is lent: for how long, to whom, and whose eyes it makes."""

from typing import Any

import pytest

from interlock_guardrails.approvals import quorum_voted
from interlock_guardrails.authority_tables import delegations
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.verify import parse_key
from interlock_policies.bundles import load_bundle
from interlock_tools.change import ChangeState
from interlock_tools.errors import ConflictError, FactoryError, InvalidRequestError, NotFoundError
from interlock_tools.identity import Principal
from interlock_tools.operation import Effect
from tests.guardrails.conftest import AGENT, House, person
from tests.guardrails.forging import invented, rewrite_document, signed
from tests.guardrails.valve import MoveValve

OPERATOR = person("person:operator-1", "operator")
SECOND = person("person:operator-2", "operator")
DEPUTY = person("person:deputy-1")
HOUR_S = 3600.0


class InterruptWork(MoveValve):
    """The same move, declared to interrupt running work: two people have to agree."""

    effect = Effect.DISRUPTIVE


def interrupting(house: House) -> None:
    """Let the valve's move need two people."""
    operation = InterruptWork(house.valve)
    house.guard.operations = {operation.name: operation}
    house.guard.gate = load_bundle("supervised", {operation.name: operation.effect})


async def lend(house: House, by: Principal = OPERATOR, to: Principal = DEPUTY, **more: Any) -> str:
    """Lend the operator's role for an hour; the id of the delegation."""
    delegation = await house.delegations.delegate(
        by,
        more.pop("name", to.id),
        more.pop("role", "operator"),
        valid_s=more.pop("valid_s", HOUR_S),
        why=more.pop("why", "away until noon"),
    )
    return delegation.delegation_id


async def test_a_delegate_votes_in_the_role_and_both_are_named(house: House) -> None:
    """On the change and on the ledger."""
    delegation_id = await lend(house)
    change = await house.propose(50)

    await house.approve(change, DEPUTY)
    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED
    (vote,) = ended.votes
    assert (vote.voter, vote.on_behalf_of) == (DEPUTY.id, OPERATOR.id)
    assert "approved by person:deputy-1 for person:operator-1" in [s.why for s in ended.history]
    given, *_ = (r["body"] for r in house.ledger.read(0, 9) if r["kind"] == "config_changed")
    assert (given["what"], given["by"], given["delegate"]) == ("delegation", OPERATOR.id, DEPUTY.id)
    assert given["delegation_id"] == vote.delegation_id == delegation_id


async def test_without_a_delegation_a_deputy_has_no_say(house: House) -> None:
    """Otherwise the test above would prove nothing."""
    change = await house.propose(50)

    with pytest.raises(InvalidRequestError, match="has no say"):
        await house.approve(change, DEPUTY)


async def test_a_delegation_ends_by_itself(house: House) -> None:
    """At its moment, not a second later."""
    await lend(house, valid_s=100)
    house.clock.advance(99)
    change = await house.propose(50)
    house.clock.advance(1)

    with pytest.raises(InvalidRequestError, match="has no say"):
        await house.approve(change, DEPUTY)
    assert await house.delegations.standing() == []


async def test_a_clock_that_goes_back_does_not_revive_or_predate_a_delegation(house: House) -> None:
    """Before it was given it gave nothing."""
    await lend(house)
    house.clock.advance(-60)
    change = await house.propose(50)

    with pytest.raises(InvalidRequestError, match="has no say"):
        await house.approve(change, DEPUTY)


@pytest.mark.parametrize(
    "by",
    [OPERATOR, DEPUTY, person("person:lead", "site_lead")],
    ids=["who lent it", "who borrowed it", "a site lead"],
)
async def test_a_delegation_is_revoked_at_once(house: House, by: Principal) -> None:
    """By either of its people, or by a site lead; the ledger says by whom."""
    delegation_id = await lend(house)
    change = await house.propose(50)
    await house.delegations.revoke(by, delegation_id, why="back early")

    with pytest.raises(InvalidRequestError, match="has no say"):
        await house.approve(change, DEPUTY)
    with pytest.raises(ConflictError, match="revoked by"):
        await house.delegations.revoke(by, delegation_id, why="again")
    record = house.ledger.read(0, 99)[-1]["body"]
    assert (record["what"], record["by"]) == ("delegation_revoked", by.id)


async def test_others_revoke_nothing(house: House) -> None:
    """An operator who is not part of it, and what does not exist."""
    delegation_id = await lend(house)

    with pytest.raises(InvalidRequestError, match="only its two people"):
        await house.delegations.revoke(SECOND, delegation_id, why="mine now")
    with pytest.raises(NotFoundError):
        await house.delegations.revoke(OPERATOR, "dlg-0", why="which one")


@pytest.mark.parametrize(
    ("by", "more", "says"),
    [
        (DEPUTY, {"name": "person:deputy-2"}, "no role 'operator' of their own"),
        (OPERATOR, {"role": "site_lead"}, "no role 'site_lead' of their own"),
        (person("person:1", "break_glass"), {"role": "break_glass"}, "used in person"),
        (OPERATOR, {"name": OPERATOR.id}, "another person"),
        (OPERATOR, {"name": " "}, "another person"),
        (OPERATOR, {"valid_s": 0}, "never without an end"),
        (OPERATOR, {"valid_s": 8 * 86_400.0}, "never without an end"),
        (OPERATOR, {"valid_s": float("nan")}, "never without an end"),
        (OPERATOR, {"why": ""}, "why"),
        (AGENT, {}, "only a person"),
        (person("person:operator-1", "operator", channel="token:x"), {}, "by a console"),
    ],
    ids=[
        "a borrowed role",
        "a role not held",
        "break_glass",
        "oneself",
        "nobody",
        "for no time",
        "for too long",
        "for no number",
        "no reason",
        "an agent",
        "with an MCP token",
    ],
)
async def test_what_cannot_be_lent(
    house: House, by: Principal, more: dict[str, Any], says: str
) -> None:
    """Nothing that is not one's own, nothing for ever, and a borrowed role is not lent again."""
    await lend(house)

    with pytest.raises(InvalidRequestError, match=says):
        await lend(house, by, **more)


async def test_who_lends_and_who_borrows_are_one_pair_of_eyes(house: House) -> None:
    """In either order; a third person is the second pair."""
    interrupting(house)
    await lend(house)
    first = await house.propose(50)
    await house.approve(first, OPERATOR)
    with pytest.raises(ConflictError, match="one pair of eyes"):
        await house.approve(first, DEPUTY)
    assert (await house.approve(first, SECOND)).state is ChangeState.AUTHORISED

    other = await house.propose(60)
    await house.approve(other, DEPUTY)
    with pytest.raises(ConflictError, match="one pair of eyes"):
        await house.approve(other, OPERATOR)
    assert (await house.approve(other, SECOND)).state is ChangeState.AUTHORISED


async def test_two_deputies_of_one_person_are_one_pair_of_eyes(house: House) -> None:
    """Who lends twice does not vote twice, and who borrows of two does not either."""
    interrupting(house)
    another = person("person:deputy-2")
    await lend(house)
    await lend(house, to=another)
    change = await house.propose(50)
    await house.approve(change, DEPUTY)
    with pytest.raises(ConflictError, match="one pair of eyes"):
        await house.approve(change, another)

    await lend(house, SECOND)
    with pytest.raises(ConflictError, match="voted already"):
        await house.approve(change, DEPUTY)
    await lend(house, SECOND, another)
    assert (await house.approve(change, another)).state is ChangeState.AUTHORISED


async def test_deputies_for_a_chain_of_people_share_their_eyes(house: House) -> None:
    """A lends to B, B votes for A; C, who borrows of B, is the same pair."""
    interrupting(house)
    both = person("person:operator-3", "operator")
    await lend(house, both)
    await lend(house, OPERATOR, person("person:operator-4"))
    change = await house.propose(50)
    await house.approve(change, both)

    with pytest.raises(ConflictError, match="one pair of eyes"):
        await house.approve(change, DEPUTY)


async def test_votes_that_share_eyes_count_once_even_when_each_is_genuine(house: House) -> None:
    """However they came into the row: the guard counts pairs of eyes, not votes."""
    interrupting(house)
    console = Signer.generate("votes")
    keys = (parse_key(console.vkey),)
    change = await house.propose(50)
    own = signed(console, change, invented(change, OPERATOR.id))
    second = signed(console, change, invented(change, SECOND.id))
    lent = invented(change, DEPUTY.id).model_copy(update={"on_behalf_of": OPERATOR.id})
    lent = signed(console, change, lent)

    for votes in ((own, lent), (lent, own)):
        assert not quorum_voted(change.model_copy(update={"votes": votes}), keys)
    assert quorum_voted(change.model_copy(update={"votes": (second, lent)}), keys)


@pytest.mark.parametrize(
    ("lender", "borrower"),
    [
        (person("person:owner", "operator"), DEPUTY),
        (OPERATOR, person("person:owner")),
    ],
    ids=["lent by the owner", "lent to the owner"],
)
async def test_who_is_behind_a_change_judges_it_through_nobody(
    house: House, lender: Principal, borrower: Principal
) -> None:
    """The agent's owner lends no vote on it and borrows none."""
    await lend(house, lender, borrower)
    change = await house.propose(50)

    with pytest.raises(InvalidRequestError, match="owner cannot approve"):
        await house.approve(change, borrower)


async def test_another_lender_serves_where_the_first_cannot(house: House) -> None:
    """The owner's role does not stand in the way of somebody else's."""
    await lend(house, person("person:owner", "operator"))
    await lend(house)
    change = await house.propose(50)

    voted = await house.approve(change, DEPUTY)

    assert voted.votes[0].on_behalf_of == OPERATOR.id


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (DEPUTY.id, "person:guest"),
        ('"operator"', '"site_lead"'),
        ("2026-11-01T13", "2026-11-02T13"),
    ],
    ids=["to another person", "of another role", "for longer"],
)
async def test_a_row_that_was_changed_lends_nothing(house: House, old: str, new: str) -> None:
    """A delegation is a signed note; whoever writes the store cannot give himself a role."""
    await lend(house)
    await rewrite_document(house, delegations, old, new)
    change = await house.propose(50)

    with pytest.raises(FactoryError):
        await house.approve(change, DEPUTY)


async def test_a_row_that_only_points_to_another_lends_nothing(house: House) -> None:
    """The column finds the note; what counts is whom the note names."""
    await lend(house)
    await house.guard.store.write(
        lambda connection: connection.execute(delegations.update().values(delegate="person:guest"))
    )
    change = await house.propose(50)

    with pytest.raises(InvalidRequestError, match="has no say"):
        await house.approve(change, person("person:guest"))


async def test_a_delegate_may_withdraw(house: House) -> None:
    """The role is lent whole."""
    await lend(house)
    change = await house.propose(50)

    withdrawn = await house.approvals.withdraw(DEPUTY, change.change_id, why="not now")

    assert withdrawn.state is ChangeState.REJECTED
