"""Glass that is broken: by whom, for what, how loudly, and who judges it afterwards."""

import logging
from typing import Any

import anyio
import pytest

from interlock_guardrails.break_glass import BreakGlass
from interlock_guardrails.rules import SiteRules
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import ConflictError, InvalidRequestError, NotFoundError
from interlock_tools.identity import Principal
from tests.guardrails.conftest import AGENT, House, person
from tests.guardrails.forging import rewrite

BREAKER = person("person:on-call-1", "break_glass")
OPERATOR = person("person:operator-1", "operator")
SECOND = person("person:operator-2", "operator")
LEAD = person("person:lead-1", "site_lead")
WEEK_S = 7 * 86_400


async def break_glass(house: House, change: Change, by: Principal = BREAKER, **more: Any) -> Change:
    """Break the glass for a change as it is shown."""
    return await house.break_glass.authorise(
        by,
        change.change_id,
        reason=more.pop("reason", "the hall is too hot"),
        shown_digest=more.pop("shown_digest", change.binding_digest),
        typed_target=more.pop("typed_target", change.target.id),
    )


async def test_one_person_authorises_at_once_and_everybody_hears_it(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """On the change, on the ledger, in the log at its highest level, and on the pager."""
    change = await house.propose(50)

    with caplog.at_level(logging.CRITICAL):
        broken = await break_glass(house, change)
    async with house.working():
        ended = await house.end_of(change)

    assert broken.state is ChangeState.AUTHORISED
    assert ended.state is ChangeState.SUCCEEDED
    assert ended.glass_broken is not None
    assert (ended.glass_broken.by, ended.glass_broken.reason) == (BREAKER.id, "the hall is too hot")
    assert house.records(change)[2] == "break_glass"
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.CRITICAL] == [
        "glass was broken"
    ]
    assert [paged.change_id for paged in house.paged] == [change.change_id]


@pytest.mark.parametrize(
    ("by", "more", "says"),
    [
        (OPERATOR, {}, "has not the role"),
        (AGENT.model_copy(update={"roles": BREAKER.roles}), {}, "only a person"),
        (person("person:1", "break_glass", channel="token:x"), {}, "by a console"),
        (BREAKER, {"reason": " "}, "reason"),
        (BREAKER, {"typed_target": None}, "type the target's name"),
        (BREAKER, {"typed_target": "valve-2"}, "type the target's name"),
    ],
    ids=["no role", "an agent", "an MCP token", "no reason", "nothing typed", "another target"],
)
async def test_who_breaks_glass_holds_the_role_says_why_and_types_the_target(
    house: House, by: Principal, more: dict[str, Any], says: str
) -> None:
    """Whatever the rules ask of a voter: alone, it takes all of it."""
    change = await house.propose(50)

    with pytest.raises(InvalidRequestError, match=says):
        await break_glass(house, change, by, **more)
    assert (await house.guard.get(change.change_id)).state is ChangeState.AWAITING_APPROVAL
    assert house.paged == []


async def test_nothing_else_is_broken_open_than_what_was_shown(house: House) -> None:
    """The digest binds here as it binds a vote."""
    change = await house.propose(50)
    other = await house.propose(60)

    with pytest.raises(ConflictError, match="not what would be done"):
        await break_glass(house, change, shown_digest=other.binding_digest)


async def test_what_is_forbidden_cannot_be_broken_open(house: House) -> None:
    """It stands in for votes, and no vote buys a broken floor."""
    change = await house.propose(5)
    assert change.state is ChangeState.REFUSED

    with pytest.raises(ConflictError, match="no vote is open"):
        await break_glass(house, change)


async def test_a_refusal_that_its_row_calls_waiting_cannot_be_broken_open(house: House) -> None:
    """It is the decision that asks for votes, not the state."""
    change = await house.propose(5)
    await rewrite(house, change, state=ChangeState.AWAITING_APPROVAL)

    with pytest.raises(ConflictError, match="no votes are asked for"):
        await break_glass(house, change)


async def test_a_forbid_that_comes_into_force_after_it_stops_the_change(house: House) -> None:
    """The policy is asked again when it begins; broken glass answers for the quorum only."""
    change = await house.propose(50)
    await break_glass(house, change)
    house.guard.rules = house.guard.rules.model_copy(update={"protected": frozenset({"valve-1"})})

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.REFUSED
    assert "protected-target" in ended.history[-1].why
    assert house.valve.acts == []


async def test_the_stop_holds_what_was_broken_open(house: House) -> None:
    """The red button is pressed for a reason that whoever breaks glass may not know."""
    await house.guard.stop(OPERATOR, "people are in the hall")
    change = await house.propose(50)
    await break_glass(house, change)

    async with house.working():
        house.clock.advance(5.0)
        await anyio.wait_all_tasks_blocked()

    assert (await house.guard.get(change.change_id)).state is ChangeState.AUTHORISED
    assert house.valve.acts == []


async def test_it_is_used_once_and_in_time(house: House) -> None:
    """Not twice for one change, and not for one that has expired."""
    change = await house.propose(50)
    await break_glass(house, change)
    with pytest.raises(ConflictError, match="no vote is open"):
        await break_glass(house, change)

    late = await house.propose(60)
    house.clock.advance(300)
    with pytest.raises(ConflictError, match="expired"):
        await break_glass(house, late)


async def test_a_plant_that_moved_supersedes_what_was_broken_open(house: House) -> None:
    """It holds for exactly the bound digest."""
    change = await house.propose(50)
    await break_glass(house, change)
    house.valve.serial = "sn-2"

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUPERSEDED
    assert house.valve.acts == []


@pytest.mark.parametrize("forged", ["for another change", "by another person", "unsigned"])
async def test_broken_glass_is_a_signature_and_not_a_row(house: House, forged: str) -> None:
    """Copied, altered or invented it authorises nothing."""
    first = await house.propose(60)
    broken = (await break_glass(house, first)).glass_broken
    assert broken is not None
    async with house.working():
        await house.end_of(first)
    house.valve.position_pct = house.valve.flow_pct = 100
    house.valve.acts.clear()
    change = await house.propose(60)
    assert change.binding_digest == first.binding_digest
    if forged == "by another person":
        change = await break_glass(house, change)
        assert change.glass_broken is not None
        broken = change.glass_broken.model_copy(update={"by": "person:on-call-2"})
    if forged == "unsigned":
        broken = broken.model_copy(update={"signature": ""})
    await rewrite(
        house,
        change,
        state=ChangeState.AUTHORISED,
        glass_broken=broken,
        created_at=first.created_at,
        expires_at=first.expires_at if forged == "for another change" else change.expires_at,
    )

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.REFUSED
    assert house.valve.acts == []


async def test_other_arguments_than_those_broken_open_are_not_carried_out(house: House) -> None:
    """Under a digest of their own, which anybody can compute and nobody signed."""
    change = await house.propose(50)
    await break_glass(house, change)
    other = await house.propose(20)
    await rewrite(
        house,
        change,
        arguments=other.arguments,
        action_digest=other.action_digest,
        binding_digest=other.binding_digest,
    )

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.REFUSED
    assert house.valve.acts == []


async def test_glass_that_was_broken_before_the_change_was_there_opens_nothing(
    house: House,
) -> None:
    """A later beginning in the row would be a longer life of what was authorised earlier."""
    change = await house.propose(50)
    await break_glass(house, change)
    house.clock.advance(120)
    await rewrite(house, change, created_at=house.clock.now())

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.REFUSED
    assert house.valve.acts == []


async def test_a_pager_that_breaks_undoes_nothing(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """The change is authorised by then; a second attempt would find it closed."""

    class Broken:
        def page(self, change: Change, why: str) -> None:
            raise OSError("no route")

    house.break_glass._pager = Broken()
    change = await house.propose(50)

    assert (await break_glass(house, change)).state is ChangeState.AUTHORISED
    assert "the pager was not reached" in caplog.messages


@pytest.mark.parametrize(
    ("opinions", "verdict"),
    [((True, True), True), ((True, False), False), ((False, True), False), ((False, False), False)],
)
async def test_two_others_judge_it_and_both_have_to_find_it_justified(
    house: House, opinions: tuple[bool, bool], verdict: bool
) -> None:
    """One opinion is none; the second makes the verdict, and then it is closed."""
    change = await house.propose(50)
    await break_glass(house, change)
    house.paged.clear()

    first = await house.break_glass.review(
        OPERATOR, change.change_id, justified=opinions[0], why="I looked at the log"
    )
    assert first.justified is None
    second = await house.break_glass.review(
        LEAD, change.change_id, justified=opinions[1], why="I was there"
    )

    assert second.justified is verdict
    assert len(house.paged) == (not verdict)
    record = house.ledger.read(0, 99)[-1]
    assert record["kind"] == "break_glass_review"
    assert record["body"]["verdict"] == ("justified" if verdict else "not justified")
    with pytest.raises(ConflictError, match="the verdict"):
        await house.break_glass.review(SECOND, change.change_id, justified=True, why="me too")


@pytest.mark.parametrize(
    ("by", "says"),
    [
        (BREAKER.model_copy(update={"roles": frozenset({"operator"})}), "is judged"),
        (person("person:owner", "operator"), "is judged"),
        (person("person:guest"), "review this"),
        (AGENT.model_copy(update={"id": "agent:9", "roles": OPERATOR.roles}), "only a person"),
        (person("person:operator-1", "operator", channel="token:x"), "by a console"),
    ],
    ids=["who broke it", "the agent's owner", "no role", "an agent", "with an MCP token"],
)
async def test_nobody_judges_their_own_or_without_a_role(
    house: House, by: Principal, says: str
) -> None:
    """Two others means two people who had no part in it."""
    change = await house.propose(50)
    await break_glass(house, change)

    with pytest.raises(InvalidRequestError, match=says):
        await house.break_glass.review(by, change.change_id, justified=True, why="fine")


async def test_a_person_who_asked_does_not_judge_it(house: House) -> None:
    """Whoever wanted the change is no witness."""
    asker = person("person:operator-1", "operator").model_copy(
        update={"scopes": frozenset({"interlock:propose"})}
    )
    change = await house.propose(50, requester=asker)
    await break_glass(house, change)

    with pytest.raises(InvalidRequestError, match="is judged"):
        await house.break_glass.review(asker, change.change_id, justified=True, why="fine")


async def test_one_person_has_one_opinion(house: House) -> None:
    """The same person twice is one person."""
    change = await house.propose(50)
    await break_glass(house, change)
    await house.break_glass.review(OPERATOR, change.change_id, justified=True, why="fine")

    with pytest.raises(ConflictError, match="another person"):
        await house.break_glass.review(OPERATOR, change.change_id, justified=True, why="fine")
    with pytest.raises(NotFoundError):
        await house.break_glass.review(OPERATOR, "chg-0", justified=True, why="fine")


async def test_a_review_that_is_late_is_listed_until_it_is_given(house: House) -> None:
    """From its moment on, with one opinion too; late is better than never, and says so."""
    change = await house.propose(50)
    await break_glass(house, change)
    house.clock.advance(WEEK_S - 1)
    assert await house.break_glass.overdue() == []
    house.clock.advance(1)
    await house.break_glass.review(OPERATOR, change.change_id, justified=True, why="fine")
    (overdue,) = await house.break_glass.overdue()
    assert overdue.change_id == change.change_id

    await house.break_glass.review(SECOND, change.change_id, justified=True, why="fine")

    assert await house.break_glass.overdue() == []
    assert house.ledger.read(0, 99)[-1]["body"]["late"] is True
    (review,) = await house.break_glass.reviews()
    assert [opinion.reviewer for opinion in review.opinions] == [OPERATOR.id, SECOND.id]


async def test_the_deadline_is_a_rule_of_the_site(house: House) -> None:
    """A site that wants it judged by tomorrow says so."""
    rules = SiteRules(site_id="lab", gpus=1, hosts=1, break_glass_review_s=60)
    strict = house.break_glass
    strict._rules = rules
    assert isinstance(strict, BreakGlass)
    change = await house.propose(50)
    await break_glass(house, change)
    house.clock.advance(60)

    assert len(await strict.overdue()) == 1
