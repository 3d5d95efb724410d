"""The demo of an XID storm: its view and its account."""

from collections.abc import Iterator
from typing import Final

from rich.panel import Panel
from rich.text import Text

from interlock_console.demo.account import VERSIONS_OF, Account
from interlock_console.demo.view import LiveView
from interlock_evals.reports import Figure, Promise, Report
from interlock_evals.scenarios.xid_storm import OFFENDER, Frame, Outcome

PROPOSED_WITHIN_S = 1.0  # of the machine's time
REPAIRS_OF_ONE = 2  # within a day
WORDS: Final = {
    "nodes_in_service": ("nodes back in service", "at least"),
    "first_proposal_s": ("fault on the node to proposal", "at most"),
    "unauthorised": ("acts nobody authorised", "at most"),
    "floors_broken": ("disruption budgets broken", "at most"),
    "gangs_broken": ("gang jobs left without a node", "at most"),
    "most_out": ("nodes out at once", "at most"),
    "incidents": ("incidents told of one CDU", "at most"),
    "hot_proposals": ("changes of nodes that are only hot", "at most"),
    "false_alarms": ("changes on a false alarm", "at most"),
    "offender_repairs": ("repairs of the repeat offender", "at most"),
    "tickets": ("tickets for it", "at least"),
    "left_alone": ("a person's cordon left alone", "at least"),
    "ledger_verified": ("ledger verified from outside", "at least"),
}


class XidStormView(LiveView[Frame]):
    """Which nodes are ill and which are out."""

    def phase(self, frame: Frame) -> str:
        """Moves with every node that goes out or comes back."""
        return " ".join(frame.out)

    def line(self, frame: Frame) -> str:
        """How many are ill, and which are out."""
        return f"{len(frame.ill)} nodes ill, out: {', '.join(frame.out) or 'none'}"

    def panels(self, frame: Frame) -> Iterator[Panel]:
        """One panel with the names."""
        text = Text()
        text.append(f"ill   {', '.join(frame.ill) or 'none'}\n", style="red")
        text.append(f"out   {', '.join(frame.out) or 'none'}", style="yellow")
        yield Panel(text, title=f"nodes · {frame.now:%H:%M:%S}")


def account_of(outcome: Outcome) -> Account:
    """The run as figures, promises held or not, and a few words more."""
    proof, ill = outcome.proof, outcome.fell_ill
    figures = {
        "nodes_ill": Figure(len(ill), ""),
        "hot_nodes": Figure(len(outcome.hot_nodes), ""),
        "changes": Figure(len(outcome.changes), ""),
        "ledger_records": Figure(proof.size, ""),
    }
    proposed = (
        Promise.unmeasured(PROPOSED_WITHIN_S, "s", "nothing was proposed")
        if outcome.first_proposal_s is None
        else Promise.at_most(round(outcome.first_proposal_s, 2), PROPOSED_WITHIN_S, "s")
    )
    why = ", ".join(sorted(set(ill) - set(outcome.in_service))) + " did not come back"
    broken = ", ".join(sorted(outcome.floors_broken))
    promises = {
        "nodes_in_service": Promise.at_least(len(outcome.in_service), len(ill), "nodes", why),
        "first_proposal_s": proposed,
        "unauthorised": Promise.at_most(
            len(outcome.unauthorised), 0, "acts", "; ".join(outcome.unauthorised)
        ),
        "floors_broken": Promise.at_most(len(outcome.floors_broken), 0, "budgets", broken),
        "gangs_broken": Promise.at_most(
            len(outcome.gangs_broken), 0, "jobs", ", ".join(sorted(outcome.gangs_broken))
        ),
        "most_out": Promise.at_most(outcome.most_out, outcome.allowed_out, "nodes"),
        "incidents": Promise.at_most(
            outcome.incidents if outcome.incidents else float("nan"), 1, "incident"
        ),
        "hot_proposals": Promise.at_most(outcome.hot_proposals, 0, "changes"),
        "false_alarms": Promise.at_most(outcome.false_alarm_proposals, 0, "changes"),
        "offender_repairs": Promise.at_most(outcome.offender_repairs, REPAIRS_OF_ONE, "repairs"),
        "tickets": Promise.at_least(outcome.tickets, 1, "ticket"),
        "left_alone": Promise.at_least(int(outcome.left_cordoned), 1, ""),
        "ledger_verified": Promise.at_least(int(proof.verified), 1, "", proof.says),
    }
    more = (
        ("fell ill by themselves", f"{len(ill)} nodes", f"and {OFFENDER} again and again"),
        ("hot behind one CDU", f"{len(outcome.hot_nodes)} nodes", "none of them touched"),
        ("Kubernetes", "embedded API server", "NVSentinel's modules are twins on it"),
        ("broker", outcome.broker, "MQTT 3.1.1, real"),
    )
    report = Report.of("demo-xid-storm", figures, promises, VERSIONS_OF)
    return Account(outcome.changes, report, WORDS, more, proof)
