"""What the demos print and judge, without running them."""

from datetime import UTC, datetime
from io import StringIO

from rich.console import Console

from interlock_agents.notes import Note
from interlock_console.demo import grid_cut, xid_storm
from interlock_console.demo.account import closing_table
from interlock_console.demo.xid_storm import XidStormView
from interlock_evals.scenarios.grid_cut import Outcome as Cut
from interlock_evals.scenarios.proving import Proof
from interlock_evals.scenarios.xid_storm import Frame
from interlock_evals.scenarios.xid_storm import Outcome as Storm

NOW = datetime(2026, 1, 15, 14, 0, tzinfo=UTC)
PROVED = Proof(3, "ab", verified=True, says="verified: 3 records hold")


def good_storm() -> Storm:
    """One that holds every promise."""
    return Storm(
        fell_ill=("node-1",),
        in_service=("node-1",),
        first_proposal_s=0.1,
        most_out=1,
        allowed_out=1,
        incidents=1,
        tickets=1,
        left_cordoned=True,
        proof=PROVED,
    )


def broken(storm: Storm) -> set[str]:
    """The promises that it does not hold."""
    promises = xid_storm.account_of(storm).report.promises
    return {name for name, promise in promises.items() if not promise.held}


def test_each_promise_of_the_storm_can_be_broken() -> None:
    """And no other with it: no row of the closing table can only say yes."""
    assert broken(good_storm()) == set()
    for change, name in (
        ({"in_service": ()}, "nodes_in_service"),
        ({"first_proposal_s": None}, "first_proposal_s"),
        ({"first_proposal_s": 1.2}, "first_proposal_s"),
        ({"unauthorised": ["reboot of node-3"]}, "unauthorised"),
        ({"floors_broken": {"chat"}}, "floors_broken"),
        ({"gangs_broken": {"pretrain"}}, "gangs_broken"),
        ({"most_out": 2}, "most_out"),
        ({"incidents": 0}, "incidents"),
        ({"incidents": 16}, "incidents"),
        ({"hot_proposals": 1}, "hot_proposals"),
        ({"false_alarm_proposals": 1}, "false_alarms"),
        ({"offender_repairs": 3}, "offender_repairs"),
        ({"tickets": 0}, "tickets"),
        ({"left_cordoned": False}, "left_alone"),
        ({"proof": Proof()}, "ledger_verified"),
    ):
        storm = good_storm()
        for field, value in change.items():
            setattr(storm, field, value)
        assert broken(storm) == {name}


def test_a_cut_that_was_not_measured_holds_nothing_that_it_promised_to_reach() -> None:
    """What counts misdeeds holds of nothing; all that must be reached does not."""
    promises = grid_cut.account_of(Cut()).report.promises
    held = {name for name, promise in promises.items() if promise.held}
    assert held == {"slo_floor_breaks", "budget_violations"}


def test_every_promise_has_its_words() -> None:
    """And the table can be made of them."""
    for account in (grid_cut.account_of(Cut()), xid_storm.account_of(good_storm())):
        assert set(account.words) == set(account.report.promises)
        closing_table(account)


def test_a_sites_words_are_text_and_no_markup() -> None:
    """What a log line of a node says in brackets is printed, and colours nothing."""
    out = StringIO()
    view = XidStormView(Console(file=out, width=200))
    with view:
        view.tell(Note(NOW, "observed", "node-1: [red]XID 48[/red] [/nothing]"))
        view.frame(Frame(NOW, ("node-1",), (), ()))
    assert "[red]XID 48[/red] [/nothing]" in out.getvalue()
    assert "1 nodes ill, out: none" in out.getvalue()
