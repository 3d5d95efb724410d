"""A change at another server: voted on, sent once, and called done only where it shows."""

from pathlib import Path

import pytest

from interlock_tools.change import ChangeState
from tests.servers.federation.elsewhere import (
    ON_ONE_HOST,
    SAID,
    WORKLOAD_ID,
    Elsewhere,
    Met,
    meeting,
    text_of,
)

SUSPEND = "suspendWorkload"


async def test_a_change_goes_its_whole_way(approved: Met) -> None:
    """Proposed, voted on, called once under the name of the change, and seen in the named read."""
    change = await approved.propose(reason="its own argument")
    assert change.state is ChangeState.AWAITING_APPROVAL
    assert str(change.target) == f"mcp_server/elsewhere/{WORKLOAD_ID}"
    assert change.blast_radius is not None
    assert change.blast_radius.hosts == {"node-001"}
    assert approved.other.phase() == "Running"

    await approved.vote(change)
    ended = await approved.end_of(change)

    (call,) = approved.other.calls(SUSPEND)
    assert ended.state is ChangeState.SUCCEEDED, ended.sentence()
    assert call["arguments"] == {"workload_id": WORKLOAD_ID, "reason": "its own argument"}
    assert call["meta"]["io.github.interlock-dsx/change"] == change.change_id
    assert approved.other.phase() == "Suspended"


async def test_a_dry_run_calls_nothing(approved: Met) -> None:
    """It only decides."""
    answer = await approved.call(
        "suspend_workload", arguments={"workload_id": WORKLOAD_ID}, reason="try", dry_run=True
    )

    assert answer.structured_content is not None
    assert answer.structured_content["needs_people"] == 1
    assert approved.other.calls(SUSPEND) == []


@pytest.mark.parametrize("arguments", [{}, {"workload_id": 7}, {"workload_id": "a", "x": 1}])
async def test_arguments_that_can_never_work_are_refused_before_anybody_votes(
    approved: Met, arguments: dict[str, object]
) -> None:
    """By the approved schema."""
    answer = await approved.call("suspend_workload", arguments=arguments, reason="it is idle")

    assert answer.is_error
    assert await approved.site.guard.latest() == []


async def test_what_reaches_nobody_knows_whom_may_reach_what_is_protected(approved: Met) -> None:
    """Unknown is the worst case, whatever the server says of itself (it lies)."""
    change = await approved.propose("pause_silently")

    assert change.state is ChangeState.REFUSED
    assert "protected-target" in change.sentence()


async def test_what_reaches_nobody_knows_whom_asks_two_people(
    tmp_path: Path, other: Elsewhere
) -> None:
    """It counts as every GPU; and without a read that shows it, it is never called done."""
    async with meeting(tmp_path, other, other.settings(), protected=frozenset()) as met:
        await met.approve_list()
        change = await met.propose("pause_silently")
        assert change.decision is not None
        assert change.decision.quorum is not None
        assert (change.decision.quorum.people, change.decision.quorum.role) == (2, "operator")
        assert change.blast_radius is not None
        assert change.blast_radius.gpus == 512

        assert (await met.vote(change, 1)).state is ChangeState.AWAITING_APPROVAL
        await met.vote(change, 2)
        ended = await met.end_of(change)

        assert ended.state is ChangeState.FAILED
        assert "the settings name no verify_with" in ended.sentence()
        assert len(other.calls("pause_silently")) == 1


async def test_an_effect_that_does_not_show_is_not_called_done(
    tmp_path: Path, other: Elsewhere
) -> None:
    """The server says yes and does nothing."""
    async with meeting(tmp_path, other, other.settings(verify_within_s=4.0)) as met:
        await met.approve_list()
        other.behave(**{SUSPEND: "ignores"})
        change = await met.propose()
        await met.vote(change)

        ended = await met.end_of(change)

        assert ended.state is ChangeState.FAILED
        assert "does not show it" in ended.sentence()
        assert len(other.calls(SUSPEND)) == 1


async def test_a_list_that_changed_since_the_proposal_refuses_the_change(approved: Met) -> None:
    """It is looked at again before anything is sent, however many have voted."""
    change = await approved.propose()
    approved.other.describe("Something else.")
    await approved.vote(change)

    ended = await approved.end_of(change)

    assert ended.state is ChangeState.REFUSED
    assert "description changed" in ended.sentence()
    assert approved.other.calls(SUSPEND) == []


async def test_a_list_that_was_approved_anew_since_the_proposal_voids_the_vote(
    approved: Met,
) -> None:
    """What was shown to the voters is not what would be called."""
    change = await approved.propose()
    approved.other.describe("Something else.")
    await approved.approve_list()
    await approved.vote(change)

    ended = await approved.end_of(change)

    assert ended.state is ChangeState.SUPERSEDED, ended.sentence()
    assert approved.other.calls(SUSPEND) == []


async def test_killed_in_mid_act_it_is_read_back_and_not_sent_again(approved: Met) -> None:
    """The act happened and its answer was lost."""
    change = await approved.propose()
    approved.other.behave(**{SUSPEND: "dies_after"})
    await approved.vote(change)

    ended = await approved.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED, ended.sentence()
    assert [step.state for step in ended.history].count(ChangeState.UNKNOWN) == 1
    assert len(approved.other.calls(SUSPEND)) == 1


async def test_killed_before_it_acted_it_is_left_to_a_person(approved: Met) -> None:
    """That nothing shows is no proof that nothing is on its way."""
    change = await approved.propose()
    approved.other.behave(**{SUSPEND: "dies"})
    await approved.vote(change)

    ended = await approved.end_of(change)

    assert ended.state is ChangeState.STUCK
    assert len(approved.other.calls(SUSPEND)) == 1
    assert approved.other.phase() == "Running"


async def test_a_lost_answer_without_a_read_that_shows_it_is_left_to_a_person(
    tmp_path: Path, other: Elsewhere
) -> None:
    """Unknown stays unknown."""
    said = {**SAID, SUSPEND: {"effect": "reversible", "reach": ON_ONE_HOST}}
    settings = other.settings(tools=said, act_timeout_s=0.5)
    async with meeting(tmp_path, other, settings) as met:
        await met.approve_list()
        other.behave(**{SUSPEND: "hangs"})
        change = await met.propose()
        assert str(change.target) == "mcp_server/elsewhere"
        await met.vote(change)

        ended = await met.end_of(change)

        assert ended.state is ChangeState.STUCK
        assert len(other.calls(SUSPEND)) == 1


async def test_an_error_of_the_server_is_no_success(tmp_path: Path, other: Elsewhere) -> None:
    """It said so, and what it did before that is read back."""
    async with meeting(tmp_path, other, other.settings(verify_within_s=4.0)) as met:
        await met.approve_list()
        other.behave(**{SUSPEND: "fails"})
        change = await met.propose()
        await met.vote(change)

        ended = await met.end_of(change)

        assert ended.state is ChangeState.STUCK
        assert len(other.calls(SUSPEND)) == 1


async def test_while_the_server_is_away_no_change_begins(tmp_path: Path, other: Elsewhere) -> None:
    """What it has is a fact of the change, and unknown is a refusal."""
    async with meeting(tmp_path, other, other.settings()) as met:
        await met.approve_list()
    gone = other.settings(command="/nonexistent/server", connect_timeout_s=2.0)
    async with meeting(tmp_path, other, gone) as met:
        change = await met.propose()

        assert change.state is ChangeState.REFUSED
        assert "cannot be reached" in change.sentence()
        assert other.calls(SUSPEND) == []
        assert text_of(await met.read()).startswith("Error executing tool get_workload: elsewhere")
