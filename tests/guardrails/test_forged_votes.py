"""Votes at the moment of execution: signatures are believed, rows are not."""

from datetime import timedelta
from typing import Any

import pytest

from interlock_guardrails.approvals import quorum_voted
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.verify import parse_key
from interlock_policies.bundles import load_bundle
from interlock_tools.change import Change, ChangeState
from interlock_tools.operation import Effect
from tests.guardrails.conftest import House, person
from tests.guardrails.forging import invented, rewrite, signed
from tests.guardrails.valve import MoveValve

OPERATOR = person("person:operator-1", "operator")
SECOND = person("person:operator-2", "operator")
CONSOLE = Signer.generate("votes")
KEYS = (parse_key(CONSOLE.vkey),)


class InterruptWork(MoveValve):
    """The same move, declared to interrupt running work: two people have to agree."""

    effect = Effect.DISRUPTIVE


def interrupting(house: House) -> None:
    """Let the valve's move need two people."""
    operation = InterruptWork(house.valve)
    house.guard.operations = {operation.name: operation}
    house.guard.gate = load_bundle("supervised", {operation.name: operation.effect})


async def ends_refused(house: House, change: Change) -> bool:
    """Whether the worker refuses it and the valve stays as it is."""
    async with house.working():
        ended = await house.end_of(change)
    return ended.state is ChangeState.REFUSED and house.valve.acts == []


async def test_a_row_that_only_says_authorised_is_not_carried_out(house: House) -> None:
    """Whoever can write the store has no vote."""
    change = await house.propose(50)
    await rewrite(house, change, state=ChangeState.AUTHORISED)

    assert await ends_refused(house, change)


async def test_a_vote_by_a_key_of_no_console_does_not_count(house: House) -> None:
    """The note is well formed and says the right thing; only its key is a stranger's."""
    change = await house.propose(50)
    voted = await house.approve(change, OPERATOR)
    (vote,) = voted.votes
    said = vote.signature.partition("\n\n")[0] + "\n"
    stranger = Signer.generate("votes").sign_note(said)
    forged = vote.model_copy(update={"signature": stranger})
    await rewrite(house, change, votes=(forged,))

    assert await ends_refused(house, change)


async def test_without_a_voting_key_no_vote_counts(house: House) -> None:
    """A guard that was given no key believes nobody."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    house.guard.vote_keys = ()

    assert await ends_refused(house, change)


async def test_a_vote_for_the_same_action_at_another_time_is_not_replayed(house: House) -> None:
    """The same words give the same digest; a vote is for one change all the same."""
    first = await house.propose(50)
    voted = await house.approve(first, OPERATOR)
    async with house.working():
        await house.end_of(first)
    house.valve.position_pct = house.valve.flow_pct = 100
    house.valve.acts.clear()
    second = await house.propose(50)
    assert second.binding_digest == first.binding_digest
    await rewrite(
        house,
        second,
        state=ChangeState.AUTHORISED,
        votes=voted.votes,
        created_at=first.created_at,
        expires_at=first.expires_at,
    )

    assert await ends_refused(house, second)


@pytest.mark.parametrize(
    "forged",
    [
        {"voter": "person:operator-9"},
        {"role": "site_lead"},
        {"on_behalf_of": "person:operator-9"},
        {"channel": "console:other"},
        {"at": timedelta(seconds=1)},
    ],
    ids=lambda forged: next(iter(forged)),
)
async def test_a_vote_says_exactly_what_its_note_says(house: House, forged: dict[str, Any]) -> None:
    """One word of the row that differs from what was signed makes it no vote."""
    change = await house.propose(50)
    voted = await house.approve(change, OPERATOR)
    (vote,) = voted.votes
    if "at" in forged:
        forged = {"at": vote.at + forged["at"]}
    await rewrite(house, change, votes=(vote.model_copy(update=forged),))

    assert await ends_refused(house, change)


async def test_a_rejection_is_not_turned_into_an_approval(house: House) -> None:
    """The note of a no says no."""
    change = await house.propose(50)
    rejected = await house.approve(change, OPERATOR, approve=False)
    (vote,) = rejected.votes
    await rewrite(
        house,
        change,
        state=ChangeState.AUTHORISED,
        votes=(vote.model_copy(update={"approve": True}),),
    )

    assert await ends_refused(house, change)


async def test_one_vote_copied_is_one_vote(house: House) -> None:
    """Two rows of one person, and the same person's vote beside an invented one."""
    interrupting(house)
    change = await house.propose(50)
    voted = await house.approve(change, OPERATOR)
    (vote,) = voted.votes
    keys = house.guard.vote_keys

    for votes in ((vote, vote), (vote, invented(change, SECOND.id, vote.signature))):
        assert not quorum_voted(voted.model_copy(update={"votes": votes}), keys)
    both = await house.approve(change, SECOND)
    assert quorum_voted(both, keys)


async def test_a_smaller_quorum_in_the_row_buys_nothing(house: House) -> None:
    """The quorum is part of what was bound, and of what the policy asks for now."""
    interrupting(house)
    change = await house.propose(50)
    voted = await house.approve(change, OPERATOR)
    assert voted.decision is not None
    assert voted.decision.quorum is not None
    fewer = voted.decision.quorum.model_copy(update={"people": 1})
    decision = voted.decision.model_copy(update={"quorum": fewer})
    await rewrite(house, change, state=ChangeState.AUTHORISED, decision=decision)

    assert await ends_refused(house, change)


async def test_other_arguments_under_an_old_digest_are_not_carried_out(house: House) -> None:
    """People approved 50; the row says 20 beside the digest of 50."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    await rewrite(house, change, arguments={"position_pct": 20, "host": "node-001"})

    assert await ends_refused(house, change)


async def test_other_arguments_under_a_digest_of_their_own_were_never_voted_on(
    house: House,
) -> None:
    """A digest is no secret: anybody can compute the one that fits; nobody has signed it."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    other = await house.propose(20)
    await rewrite(
        house,
        change,
        arguments=other.arguments,
        action_digest=other.action_digest,
        binding_digest=other.binding_digest,
    )

    assert await ends_refused(house, change)


async def test_a_longer_life_in_the_row_does_not_lengthen_an_approval(house: House) -> None:
    """Until when it holds was signed with the vote."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    house.clock.advance(400)
    await rewrite(house, change, expires_at=change.expires_at + timedelta(hours=1))

    assert await ends_refused(house, change)


async def test_a_vote_after_the_end_does_not_count_even_when_it_is_genuine(house: House) -> None:
    """A console with a wrong clock signs what is too late; the guard does not take it."""
    change = await house.propose(50)
    vote = invented(change, OPERATOR.id)
    late = vote.model_copy(update={"at": change.expires_at})

    in_time = change.model_copy(update={"votes": (signed(CONSOLE, change, vote),)})
    too_late = change.model_copy(update={"votes": (signed(CONSOLE, change, late),)})
    assert quorum_voted(in_time, KEYS)
    assert not quorum_voted(too_late, KEYS)


async def test_a_genuine_vote_of_another_role_or_beside_a_no_does_not_count(house: House) -> None:
    """The rules name the role, and any no is a no, whatever state the row claims."""
    change = await house.propose(50)
    yes = signed(CONSOLE, change, invented(change, OPERATOR.id))
    lead = invented(change, "person:lead-1").model_copy(update={"role": "site_lead"})
    no = invented(change, SECOND.id).model_copy(update={"approve": False})

    for votes in ((signed(CONSOLE, change, lead),), (yes, signed(CONSOLE, change, no))):
        assert not quorum_voted(change.model_copy(update={"votes": votes}), KEYS)


async def test_a_genuine_vote_of_who_asked_or_answers_for_it_does_not_count(house: House) -> None:
    """However it came to be signed: nobody approves their own."""
    change = await house.propose(50)

    for name in ("person:owner", "agent:power"):
        vote = signed(CONSOLE, change, invented(change, name))
        assert not quorum_voted(change.model_copy(update={"votes": (vote,)}), KEYS)
