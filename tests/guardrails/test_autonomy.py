"""Autonomy: from what evidence it is granted, what it opens, and how it is lost."""

from typing import Any

import pytest

from interlock_guardrails.authority_tables import autonomy_grants
from interlock_guardrails.autonomy import AutonomyGrant
from interlock_policies.bundles import load_bundle
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import ConflictError, InvalidRequestError, NotFoundError
from interlock_tools.identity import Principal
from interlock_tools.operation import Effect
from tests.guardrails.conftest import AGENT, House, person
from tests.guardrails.forging import rewrite, rewrite_document

OPERATOR = person("person:operator-1", "operator")
LEAD = person("person:lead-1", "site_lead")
MOVE = "valve.move_valve"
DAY_S = 86_400.0


def autonomous(house: House) -> None:
    """Serve the bundle that lets agents go where a grant is in force."""
    effects = {name: operation.effect for name, operation in house.guard.operations.items()}
    house.guard.gate = load_bundle("autonomous", effects)


async def carried_out(house: House, position_pct: int) -> Change:
    """A change that people approved, at its end."""
    change = await house.propose(position_pct)
    await house.approve(change, OPERATOR)
    async with house.working():
        return await house.end_of(change)


async def record(house: House) -> list[str]:
    """Two moves that succeeded: what the rules of this site ask for as evidence."""
    return [(await carried_out(house, position_pct)).change_id for position_pct in (90, 80)]


async def grant(house: House, evidence: list[str], **more: Any) -> AutonomyGrant:
    """Grant the move of the valve for a day."""
    return await house.autonomy.grant(
        more.pop("by", LEAD),
        more.pop("scope", MOVE),
        evidence=evidence,
        valid_s=more.pop("valid_s", DAY_S),
        why=more.pop("why", "two weeks without a fault"),
    )


@pytest.mark.parametrize("scope", [MOVE, "reversible"])
async def test_with_a_grant_an_agent_makes_a_small_cut_without_a_vote(
    house: House, scope: str
) -> None:
    """For the operation or for its effect; without it people are asked."""
    autonomous(house)
    evidence = await record(house)
    asked = await house.propose(70)
    assert asked.state is ChangeState.AWAITING_APPROVAL
    await house.approvals.withdraw(AGENT, asked.change_id, why="I ask again")

    granted = await grant(house, evidence, scope=scope)
    change = await house.propose(60)
    async with house.working():
        ended = await house.end_of(change)

    assert change.state is ChangeState.AUTHORISED
    assert ended.state is ChangeState.SUCCEEDED
    (body,) = (r["body"] for r in house.ledger.read(0, 999) if r["kind"] == "config_changed")
    assert (body["what"], body["by"], body["evidence"]) == ("autonomy", LEAD.id, evidence)
    assert await house.autonomy.standing() == [granted]


async def test_a_grant_opens_nothing_that_the_policy_does_not(house: House) -> None:
    """A rise of power still needs people, and under another bundle so does everything."""
    evidence = await record(house)
    await grant(house, evidence)
    assert (await house.propose(70)).state is ChangeState.AWAITING_APPROVAL

    autonomous(house)
    assert (await house.propose(95)).state is ChangeState.AWAITING_APPROVAL


async def test_a_grant_ends_by_itself(house: House) -> None:
    """At its moment; then people are asked again."""
    autonomous(house)
    await grant(house, await record(house), valid_s=100)
    house.clock.advance(99)
    assert (await house.propose(70)).state is ChangeState.AUTHORISED
    house.clock.advance(1)

    assert (await house.propose(60)).state is ChangeState.AWAITING_APPROVAL
    assert await house.autonomy.standing() == []


@pytest.mark.parametrize("by", [LEAD, OPERATOR, person("person:guest")])
async def test_a_grant_is_revoked_by_anybody_at_a_console(house: House, by: Principal) -> None:
    """It makes agents ask again, which is always safe; the ledger says by whom."""
    autonomous(house)
    granted = await grant(house, await record(house))
    await house.autonomy.revoke(by, granted.grant_id, why="a new valve comes tomorrow")

    assert (await house.propose(70)).state is ChangeState.AWAITING_APPROVAL
    with pytest.raises(ConflictError, match="was revoked"):
        await house.autonomy.revoke(by, granted.grant_id, why="again")
    bodies = [r["body"] for r in house.ledger.read(0, 999) if r["kind"] == "config_changed"]
    assert (bodies[-1]["what"], bodies[-1]["by"]) == ("autonomy_revoked", by.id)
    with pytest.raises(InvalidRequestError):
        await house.autonomy.revoke(AGENT, granted.grant_id, why="no")
    with pytest.raises(NotFoundError):
        await house.autonomy.revoke(LEAD, "aut-0", why="which one")


async def test_what_was_begun_under_a_grant_that_ended_is_not_carried_out(house: House) -> None:
    """The policy is asked again at the moment of the act."""
    autonomous(house)
    granted = await grant(house, await record(house))
    house.valve.acts.clear()
    change = await house.propose(70)
    assert change.state is ChangeState.AUTHORISED
    await house.autonomy.revoke(LEAD, granted.grant_id, why="stop that")

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUPERSEDED
    assert house.valve.acts == []


async def test_a_change_that_fails_ends_the_grant(house: House) -> None:
    """Trust is earned again with new evidence, of after the failure."""
    autonomous(house)
    evidence = await record(house)
    granted = await grant(house, evidence)
    house.valve.mishap = "ignores"
    change = await house.propose(70)
    async with house.working():
        failed = await house.end_of(change)
    house.valve.mishap = "none"

    assert failed.state is ChangeState.COMPENSATED
    assert (await house.propose(60)).state is ChangeState.AWAITING_APPROVAL
    assert await house.autonomy.trouble(granted) == change.change_id
    with pytest.raises(ConflictError, match=change.change_id):
        await grant(house, evidence)
    assert await house.autonomy.evidence(MOVE) == []


@pytest.mark.parametrize(("mishap", "ends"), [("mute", "stuck"), ("lost_before", "failed")])
async def test_evidence_from_before_a_failure_is_none(house: House, mishap: Any, ends: str) -> None:
    """Stuck or failed, and cleared or not."""
    evidence = await record(house)
    house.valve.mishap = mishap
    failed = await carried_out(house, 50)
    house.valve.mishap = "none"
    assert failed.state == ends

    with pytest.raises(ConflictError, match="went wrong"):
        await grant(house, evidence)
    if ends == "stuck":
        await house.clearing.clear(OPERATOR, failed.change_id, why="looked")
    house.clock.advance(3600)  # an agent is not that busy
    fresh = await record(house)
    assert sorted(await house.autonomy.evidence(MOVE)) == sorted(fresh)
    await grant(house, fresh)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"by": OPERATOR}, "has not the role"),
        ({"by": AGENT.model_copy(update={"roles": LEAD.roles})}, "only a person"),
        ({"by": person("person:lead-1", "site_lead", channel="token:x")}, "by a console"),
        ({"scope": "irreversible"}, "scope"),
        ({"scope": "read"}, "scope"),
        ({"scope": "everything"}, "scope"),
        ({"scope": "disruptive"}, "no change of disruptive"),
        ({"scope": "valve.close_valve"}, "no change of valve.close_valve"),
        ({"valid_s": 0}, "never without an end"),
        ({"valid_s": 29 * DAY_S}, "never without an end"),
        ({"why": ""}, "why"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(next(iter(value.values())))[:24],
)
async def test_only_a_site_lead_grants_and_only_what_can_be_granted(
    house: House, more: dict[str, Any], says: str
) -> None:
    """Never for ever, never what cannot be taken back, never another operation's record."""
    evidence = await record(house)

    with pytest.raises(InvalidRequestError, match=says):
        await grant(house, evidence, **more)


async def test_evidence_is_checked_against_the_store(house: House) -> None:
    """As many different changes as the rules say; each exists, and each succeeded."""
    first, second = await record(house)
    with pytest.raises(InvalidRequestError, match="2 different changes, not 1"):
        await grant(house, [first, first])
    with pytest.raises(NotFoundError):
        await grant(house, [first, "chg-0123456789ab"])

    row = await house.guard.get(second)
    await rewrite(house, row, effect=Effect.IRREVERSIBLE)
    with pytest.raises(InvalidRequestError, match="never alone"):
        await grant(house, [first, second])
    await rewrite(house, row, effect=row.effect)

    waiting = await house.propose(50)
    with pytest.raises(InvalidRequestError, match="is awaiting_approval"):
        await grant(house, [first, second, waiting.change_id])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2026-11-02T", "2026-11-03T"),
        (LEAD.id, "person:guest"),
        ('"site":"lab"', '"site":"hall"'),
    ],
    ids=["for longer", "by another person", "at another site"],
)
async def test_a_grant_is_a_signature_and_not_a_row(house: House, old: str, new: str) -> None:
    """Whoever writes the store lets no agent go."""
    autonomous(house)
    await grant(house, await record(house))
    await rewrite_document(house, autonomy_grants, old, new)

    assert (await house.propose(70)).state is ChangeState.AWAITING_APPROVAL


@pytest.mark.parametrize("column", [{"site": "lab"}, {"scope": MOVE}], ids=lambda c: next(iter(c)))
async def test_a_row_that_only_points_to_another_grant_grants_nothing(
    house: House, column: dict[str, str]
) -> None:
    """The columns find the note; what counts is where and what the note names."""
    autonomous(house)
    evidence = await record(house)
    if "site" in column:
        house.autonomy._rules = house.guard.rules.model_copy(update={"site_id": "hall"})
        await grant(house, evidence)
    else:
        for change_id in evidence:
            row = await house.guard.get(change_id)
            await rewrite(house, row, operation="valve.other")
        await grant(house, evidence, scope="valve.other")
    await house.guard.store.write(
        lambda connection: connection.execute(autonomy_grants.update().values(**column))
    )

    assert (await house.propose(70)).state is ChangeState.AWAITING_APPROVAL


async def test_a_clock_that_goes_back_does_not_predate_a_grant(house: House) -> None:
    """Before it was given it gave nothing."""
    autonomous(house)
    await grant(house, await record(house))
    house.clock.advance(-600)

    assert (await house.propose(70)).state is ChangeState.AWAITING_APPROVAL


async def test_a_failure_that_cannot_be_read_counts_as_one(house: House) -> None:
    """Nobody knows what went wrong there: that is no good record."""
    autonomous(house)
    evidence = await record(house)
    await grant(house, evidence)
    row = await house.guard.get(evidence[0])
    await rewrite(house, row, state=ChangeState.FAILED, history=())

    assert (await house.propose(70)).state is ChangeState.AWAITING_APPROVAL


async def test_an_agent_without_an_owner_changes_nothing(house: House) -> None:
    """With a grant neither: there is nobody to ask."""
    autonomous(house)
    await grant(house, await record(house))
    nobodys = AGENT.model_copy(update={"owner": None})

    change = await house.propose(70, requester=nobodys)

    assert change.state is ChangeState.REFUSED
    assert "agent-without-owner" in change.history[-1].why
