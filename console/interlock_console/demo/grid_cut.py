"""The demo of a grid cut: its view and its account."""

from collections import deque
from collections.abc import Iterator
from typing import Final

from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from interlock_console.demo.account import VERSIONS_OF, Account
from interlock_console.demo.view import LiveView
from interlock_evals.reports import Figure, Promise, Report
from interlock_evals.scenarios.grid_cut import Frame, Outcome

REACH_WITHIN_S = 60.0
BAR_CELLS = 34
SPARKS = "▁▂▃▄▅▆▇█"
TREND_FRAMES = 72
WORDS: Final = {
    "target_reached_s": ("time to the target", "at most"),
    "slo_floor_breaks": ("serving floors broken", "at most"),
    "budget_violations": ("seconds above a budget", "at most"),
    "ledger_verified": ("ledger verified from outside", "at least"),
    "changes_succeeded": ("changes that succeeded", "at least"),
    "changes_refused": ("changes refused by policy", "at least"),
    "changes_expired": ("changes nobody approved", "at least"),
}


class GridCutView(LiveView[Frame]):
    """Site power against its limit, and the racks."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._trend: deque[float] = deque(maxlen=TREND_FRAMES)
        self._highest_w = 1.0
        self._highest_rack_w = 1.0

    def phase(self, frame: Frame) -> str:
        """The story's own."""
        return frame.phase

    def line(self, frame: Frame) -> str:
        """Phase, power and limit."""
        return f"{frame.phase:<8} site {_kw(frame.site_w)}, {_limit(frame.limit_w)}"

    def panels(self, frame: Frame) -> Iterator[Panel]:
        """The site's power with its trend, and a bar for each rack."""
        if frame.site_w is not None:
            self._trend.append(frame.site_w)
            self._highest_w = max(self._highest_w, frame.site_w)
        title = f"site power · {frame.phase} · {frame.now:%H:%M:%S}"
        yield Panel(self._site(frame), title=title)
        yield Panel(self._racks(frame), title="racks")

    def _site(self, frame: Frame) -> RenderableType:
        top_w = self._highest_w * 1.05
        text = Text()
        over = (
            frame.limit_w is not None and frame.site_w is not None and frame.site_w > frame.limit_w
        )
        text.append(_bar(frame.site_w, top_w), style="red" if over else "cyan")
        text.append(f"  {_kw(frame.site_w)}")
        text.append(f"   {_limit(frame.limit_w)}\n", style="bold")
        text.append(_spark(self._trend, top_w), style="cyan")
        return text

    def _racks(self, frame: Frame) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        self._highest_rack_w = max(
            self._highest_rack_w, *(watts or 0.0 for watts in frame.rack_w.values())
        )
        cells = [
            Text.assemble(
                f"{rack} ", (_bar(watts, self._highest_rack_w * 1.05, 18), "cyan"), f" {_kw(watts)}"
            )
            for rack, watts in sorted(frame.rack_w.items())
        ]
        for place in range(0, len(cells), 2):
            table.add_row(*cells[place : place + 2])
        return table


def account_of(outcome: Outcome) -> Account:
    """The run as figures, promises held or not, and a few words more."""
    states, proof = outcome.by_state, outcome.proof
    figures = {
        "target_w": Figure(outcome.target_w, "W"),
        "before_w": Figure(round(outcome.before_w), "W"),
        "work_kept_pct": Figure(round(100 * outcome.work_kept, 1), "%"),
        "ledger_records": Figure(proof.size, ""),
    }
    reached = (
        Promise.unmeasured(REACH_WITHIN_S, "s", "the meter never went to the target and stayed")
        if outcome.reached_s is None
        else Promise.at_most(round(outcome.reached_s, 1), REACH_WITHIN_S, "s")
    )
    promises = {
        "target_reached_s": reached,
        "slo_floor_breaks": Promise.at_most(len(outcome.floor_breaks), 0, "jobs"),
        "budget_violations": Promise.at_most(sum(outcome.over_budget_s.values()), 0, "s"),
        "ledger_verified": Promise.at_least(int(proof.verified), 1, "", proof.says),
        "changes_succeeded": Promise.at_least(states["succeeded"], 2, "changes"),
        "changes_refused": Promise.at_least(states["refused"], 1, "changes"),
        "changes_expired": Promise.at_least(states["expired"], 1, "changes"),
    }
    more = (
        ("site power", f"{outcome.before_w / 1e3:.1f} kW", "before the cut"),
        ("target", f"{outcome.target_w / 1e3:.1f} kW", "at the site's meter"),
        ("work kept", f"{100 * outcome.work_kept:.1f} %", "from notice to end"),
        ("broker", outcome.broker, "MQTT 3.1.1, real"),
    )
    report = Report.of("demo", figures, promises, VERSIONS_OF)
    return Account(outcome.changes, report, WORDS, more, proof)


def _bar(watts: float | None, top_w: float, cells: int = BAR_CELLS) -> str:
    if watts is None:
        return "?" * cells
    filled = round(cells * min(1.0, watts / top_w))
    return "█" * filled + "░" * (cells - filled)


def _spark(trend: deque[float], top_w: float) -> str:
    steps = len(SPARKS) - 1
    return "".join(SPARKS[round(steps * min(1.0, watts / top_w))] for watts in trend)


def _kw(watts: float | None) -> str:
    return "unknown" if watts is None else f"{watts / 1e3:.1f} kW"


def _limit(watts: float | None) -> str:
    return "no grid limit" if watts is None else f"grid limit {_kw(watts)}"
