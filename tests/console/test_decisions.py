"""What a voter is shown at the command line."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from interlock_console.decisions import described
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.change import Change, ChangeState
from interlock_tools.identity import Principal, PrincipalKind, Target
from interlock_tools.operation import Effect

START = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def waiting(**other: Any) -> Change:
    """A change that waits for people."""
    usual: dict[str, Any] = {
        "change_id": "chg-0123456789ab",
        "operation": "maxlps.set_caps",
        "effect": Effect.REVERSIBLE,
        "arguments": {"gpu_cap_w_by_node": {"node-001": 400, "node-002": 450}},
        "target": Target(kind="site", id="lab"),
        "requester": Principal(
            id="agent:power", kind=PrincipalKind.AGENT, authenticated_by="token:local"
        ),
        "reason": "the grid asks for less",
        "dry_run": False,
        "state": ChangeState.AWAITING_APPROVAL,
        "action_digest": "1" * 64,
        "binding_digest": "0123456789abcdef" * 4,
        "created_at": START,
        "expires_at": START + timedelta(minutes=15),
    }
    return Change(**usual | other)


def test_a_voter_sees_the_arguments_that_the_digest_binds() -> None:
    """Reach and reason are not the action; the watts of each node are."""
    shown = "\n".join(described(waiting()))

    assert '{"gpu_cap_w_by_node":{"node-001":400,"node-002":450}}' in shown
    assert "digest 0123456789ab " in shown


def test_arguments_that_are_cut_say_so_and_where_the_rest_is() -> None:
    """A list stays readable, and nobody takes a part for the whole."""
    (line,) = [line for line in described(waiting(), 20) if "arguments" in line]

    assert "interlock approvals show chg-0123456789ab" in line
    assert "node-002" not in line


@pytest.mark.parametrize(
    "words", ["old\n  digest ffffffffffff", "old\x1b[1A\x1b[2K", "old\u202ewen", "old\r  digest"]
)
def test_words_of_the_plant_cannot_write_a_line_of_their_own(words: str) -> None:
    """A job's name is a tenant's text: it must not forge what the voter reads."""
    lines = described(waiting(blast_radius=BlastRadius(jobs=frozenset({words}))))

    assert len(lines) == len(described(waiting(blast_radius=BlastRadius())))
    assert all(line.isprintable() for line in lines)
