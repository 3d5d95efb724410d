"""What a change may become, in the order in which it can happen."""

import anyio
import pytest

from interlock_guardrails import changes
from interlock_tools.change import ChangeState
from interlock_tools.errors import ConflictError, InvalidRequestError, NotFoundError
from interlock_tools.identity import Principal, PrincipalKind
from tests.guardrails.conftest import AGENT, House, person

OPERATOR = person("person:operator-1", "operator")


async def test_an_approved_change_is_executed_once_and_verified_by_the_meter(house: House) -> None:
    """The whole way: proposed, voted, intent before act, act, independent reading, end."""
    change = await house.propose(50)
    assert change.state is ChangeState.AWAITING_APPROVAL
    assert house.valve.acts == []

    await house.approve(change, OPERATOR)
    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED
    assert house.valve.acts == [50]
    assert house.records(change) == [
        "requested",
        "decided",
        "vote",
        "intent",
        "outcome",
        "verified",
    ]


async def test_nothing_is_executed_without_a_vote_and_silence_is_a_no(house: House) -> None:
    """No timeout ever means yes."""
    change = await house.propose(50)

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.EXPIRED
    assert house.valve.acts == []


@pytest.mark.parametrize("kind", ["valve.serial", "valve.position"])
async def test_a_missing_fact_is_a_refusal_that_names_it(house: House, kind: str) -> None:
    """Unknown is never read as harmless."""
    house.valve.missing.add(kind)

    change = await house.propose(50)

    assert change.state is ChangeState.REFUSED
    assert kind in change.history[-1].why
    assert "facts-unknown" in change.history[-1].why


@pytest.mark.parametrize("age_s", [11.0, -6.0])
async def test_a_stale_or_future_fact_is_a_refusal(house: House, age_s: float) -> None:
    """A position of eleven seconds ago, or of the future, is not the position now."""
    house.valve.observed_at = house.clock.now()
    house.clock.advance(age_s)

    change = await house.propose(50)

    assert change.state is ChangeState.REFUSED


async def test_what_policy_forbids_is_refused_with_the_rule_and_never_done(house: House) -> None:
    """A broken floor cannot be bought with a vote."""
    change = await house.propose(5)

    assert change.state is ChangeState.REFUSED
    assert "slo-floor-broken" in change.history[-1].why
    with pytest.raises(ConflictError):
        await house.approve(change, OPERATOR)
    async with house.working():
        house.clock.advance(5.0)
    assert house.valve.acts == []


async def test_an_effect_that_does_not_show_is_failed_and_brought_back(house: House) -> None:
    """The valve says yes and does nothing: only the meter can tell."""
    house.valve.mishap = "ignores"
    change = await house.propose(50)
    await house.approve(change, OPERATOR)

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.COMPENSATED
    assert [step.state for step in ended.history][-3:-1] == [
        ChangeState.FAILED,
        ChangeState.COMPENSATING,
    ]
    assert house.valve.position_pct == 100


async def test_a_lost_answer_is_read_back_and_not_sent_again(house: House) -> None:
    """The link broke after the act: the plant knows, and it is asked."""
    house.valve.mishap = "answer_lost"
    change = await house.propose(50)
    await house.approve(change, OPERATOR)

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED
    assert ChangeState.UNKNOWN in [step.state for step in ended.history]
    assert house.valve.acts == [50]


async def test_a_lost_act_is_read_back_as_not_done(house: House) -> None:
    """The link broke before the act: it is failed, and there is nothing to bring back."""
    house.valve.mishap = "lost_before"
    change = await house.propose(50)
    await house.approve(change, OPERATOR)

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.FAILED
    assert house.valve.acts == []


async def test_a_plant_that_does_not_say_what_happened_leaves_it_to_a_person(house: House) -> None:
    """Unknown stays unknown: it is stuck, and not called failed or done."""
    house.valve.mishap = "mute"
    change = await house.propose(50)
    await house.approve(change, OPERATOR)

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.STUCK
    assert house.valve.acts == [50]


async def test_a_worker_that_starts_asks_what_another_left_in_the_middle(house: House) -> None:
    """The process died after the intent; the next one reads back and never acts twice."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    house.valve.position_pct = house.valve.flow_pct = 50
    house.valve.acts.append(50)
    await house.guard.store.write(
        lambda connection: changes.move(
            connection,
            change.change_id,
            ChangeState.EXECUTING,
            at=house.clock.now(),
            why="the intent is on the ledger",
            came_from=ChangeState.AUTHORISED,
        )
    )

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED
    assert house.valve.acts == [50]


async def test_a_plant_that_moved_after_the_vote_supersedes_the_change(house: House) -> None:
    """The people approved another valve: its serial number is an identity."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    house.valve.serial = "sn-2"

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUPERSEDED
    assert house.valve.acts == []


async def test_a_meter_that_moves_does_not_void_the_vote(house: House) -> None:
    """Measurements bind as the rules that they met, not to the last digit."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    house.valve.position_pct = 97

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED


async def test_a_fact_that_goes_missing_after_the_vote_stops_the_change(house: House) -> None:
    """An approval is no licence to act blind."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    house.valve.missing.add("valve.position")

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.REFUSED
    assert house.valve.acts == []


async def test_the_stop_holds_what_has_not_begun_until_a_person_resumes(house: House) -> None:
    """Anyone may stop; only a person may resume."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    await house.guard.stop(AGENT, "something smells")

    async with house.working():
        with anyio.move_on_after(0.2):
            await house.end_of(change)
        assert (await house.guard.get(change.change_id)).state is ChangeState.AUTHORISED
        assert house.valve.acts == []

        with pytest.raises(InvalidRequestError):
            await house.guard.resume(AGENT, "let me")
        await house.guard.resume(OPERATOR, "looked; a false alarm")
        ended = await house.end_of(change)

    assert ended.state in {ChangeState.SUCCEEDED, ChangeState.EXPIRED}


async def test_a_rehearsal_decides_and_does_nothing(house: House) -> None:
    """`dry_run` gives the decision and the people it would take; no row can be executed."""
    change = await house.propose(50, dry_run=True)

    assert change.decision is not None
    assert change.decision.quorum is not None
    assert change.decision.quorum.role == "operator"
    with pytest.raises(NotFoundError):
        await house.guard.get(change.change_id)


async def test_the_same_action_twice_is_one_change(house: House) -> None:
    """An agent that asks again is told where its first request stands."""
    first = await house.propose(50)
    second = await house.propose(50)

    assert second.change_id == first.change_id


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"position_pct": "50"}, "position_pct"),
        ({"position_pct": 50.5}, "position_pct"),
        ({"position_pct": 101}, "position_pct"),
        ({"force": True}, "force"),
    ],
)
async def test_arguments_that_cannot_work_name_themselves(
    house: House, arguments: dict[str, object], names: str
) -> None:
    """Wrong type, out of range, unknown: an error, nothing half done, and it is on the ledger."""
    with pytest.raises(InvalidRequestError, match=names):
        await house.propose(50, arguments=arguments)

    assert house.ledger.read(0, 10)[-1]["kind"] == "refused"


@pytest.mark.parametrize(
    "reason",
    ["", "   ", "x" * 501, "fine\n  digest 0123", "fine\x1b[2K", "enif\u202e", "\ud800"],
)
async def test_a_change_without_a_plain_reason_is_an_error(house: House, reason: str) -> None:
    """People approve reasons; one that moves the cursor or the letters shows them another."""
    with pytest.raises(InvalidRequestError, match="reason"):
        await house.propose(50, reason=reason)


async def test_who_may_not_propose_is_refused(house: House) -> None:
    """A token for reading does not change the plant."""
    reader = Principal(
        id="agent:reader",
        kind=PrincipalKind.AGENT,
        authenticated_by="token:local",
        scopes=frozenset({"interlock:read"}),
    )
    change = await house.propose(50, requester=reader)

    assert change.state is ChangeState.REFUSED
    assert "may-not-propose" in change.history[-1].why
