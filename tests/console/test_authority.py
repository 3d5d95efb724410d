"""The verbs beside voting, as a person meets them at the command line."""

import asyncio
import getpass
import json
from datetime import timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from interlock_console.authority import add_to
from interlock_console.settings import load
from interlock_guardrails import changes
from interlock_guardrails.approvals import binding_digest
from interlock_servers.site import open_authority
from interlock_tools.change import Change, ChangeState
from interlock_tools.clock import SystemClock
from interlock_tools.decision import Answer, Decision, Quorum, RuleHit
from interlock_tools.identity import Principal, PrincipalKind, Target
from interlock_tools.operation import Effect

RUNNER = CliRunner()
CHANGE_ID = "chg-0123456789ab"
APP = typer.Typer()
add_to(APP)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings of a site without components, whose user has every role."""
    path = tmp_path / "interlock.toml"
    path.write_text(
        f"""
data_dir = "{tmp_path / "data"}"
[site]
site_id = "lab"
gpus = 512
hosts = 64
autonomy_evidence_changes = 1
[people]
{json.dumps(getpass.getuser())} = ["operator", "site_lead", "break_glass"]
""",
        "utf-8",
    )
    return path


def interlock(config: Path, *words: str) -> tuple[int, str]:
    """Exit status and everything that was printed."""
    result = RUNNER.invoke(APP, [*words, "--config", str(config)])
    return result.exit_code, result.output


def put(config: Path, state: ChangeState) -> None:
    """Put a change into the store of this site."""
    now = SystemClock().now()
    decision = Decision(
        answer=Answer.REQUIRE_APPROVAL,
        rules=(RuleHit(rule_id="a-rule", reason="People look."),),
        policy_version="1",
        quorum=Quorum(people=1, role="operator"),
    )
    row = Change(
        change_id=CHANGE_ID,
        operation="maxlps.set_caps",
        effect=Effect.REVERSIBLE,
        arguments={},
        target=Target(kind="site", id="lab"),
        requester=Principal(
            id="agent:power", kind=PrincipalKind.AGENT, authenticated_by="token:local"
        ),
        reason="the grid asks for less",
        dry_run=False,
        state=state,
        action_digest="1" * 64,
        binding_digest=binding_digest("1" * 64, decision, ()),
        decision=decision,
        created_at=now,
        expires_at=now + timedelta(minutes=15),
    )

    async def write() -> None:
        async with open_authority(load(config).for_site(), SystemClock()) as authority:
            await authority.store.write(lambda connection: changes.insert(connection, row))

    asyncio.run(write())


def test_a_role_is_lent_listed_and_taken_back(config: Path) -> None:
    """For hours, with a reason; what is not one's own role is one sentence and exit status 2."""
    more = ("--hours", "2", "--why", "away")
    status, said = interlock(config, "delegation", "give", "person:operator-2", "operator", *more)
    assert status == 0
    delegation_id = said.partition(":")[0]
    assert delegation_id in interlock(config, "delegation", "list")[1]
    assert interlock(config, "delegation", "revoke", delegation_id, "--why", "back")[0] == 0
    assert "no role is lent" in interlock(config, "delegation", "list")[1]

    status, said = interlock(config, "delegation", "give", "person:2", "break_glass", *more)
    assert status == 2
    assert "used in person" in said
    assert "Traceback" not in said


def test_broken_glass_takes_the_digest_and_the_target_and_is_listed(config: Path) -> None:
    """And whoever broke it cannot judge it."""
    put(config, ChangeState.AWAITING_APPROVAL)
    words = ("break-glass", "authorise", CHANGE_ID, "--reason", "too hot", "--target", "lab")
    status, said = interlock(config, *words, "--digest", "f" * 12)
    assert status == 2
    assert "is not what would be done" in said

    change = _row(config)
    assert interlock(config, *words, "--digest", (change.binding_digest or "")[:12])[0] == 0
    assert _row(config).state is ChangeState.AUTHORISED
    status, said = interlock(config, "break-glass", "list")
    assert (status, "too hot; open, due" in said) == (0, True)
    assert interlock(config, "break-glass", "list", "--overdue") == (0, "no review is overdue\n")
    verdict = ("break-glass", "review", CHANGE_ID, "--justified", "--why", "it was")
    status, said = interlock(config, *verdict)
    assert (status, "is judged" in said) == (2, True)


def test_a_change_is_withdrawn(config: Path) -> None:
    """With a reason that stands in its history."""
    put(config, ChangeState.AWAITING_APPROVAL)

    status, said = interlock(config, "change", "withdraw", CHANGE_ID, "--why", "not needed")

    assert status == 0
    assert "withdrawn by person:" in said


def test_what_holds_nothing_is_not_cleared(config: Path) -> None:
    """The verb reaches the guardrails and says what they say."""
    put(config, ChangeState.STUCK)

    status, said = interlock(config, "change", "clear", CHANGE_ID, "--why", "looked")

    assert status == 2
    assert "holds nothing" in said


def test_autonomy_is_granted_from_evidence_listed_and_revoked(config: Path) -> None:
    """The evidence is on offer at the same place."""
    assert "ask before every change" in interlock(config, "autonomy", "list")[1]
    put(config, ChangeState.SUCCEEDED)
    assert interlock(config, "autonomy", "evidence", "maxlps.set_caps")[1] == f"{CHANGE_ID}\n"

    words = ("autonomy", "grant", "maxlps.set_caps", "--days", "7", "--why", "a good month")
    status, said = interlock(config, *words, "--evidence", CHANGE_ID)
    assert status == 0
    grant_id = said.partition(":")[0]
    assert f"{grant_id}  maxlps.set_caps at lab" in interlock(config, "autonomy", "list")[1]
    assert interlock(config, "autonomy", "revoke", grant_id, "--why", "enough")[0] == 0
    assert "ask before every change" in interlock(config, "autonomy", "list")[1]


def _row(config: Path) -> Change:
    async def read() -> Change:
        async with open_authority(load(config).for_site(), SystemClock()) as authority:
            return await authority.store.read(lambda connection: changes.get(connection, CHANGE_ID))

    return asyncio.run(read())
