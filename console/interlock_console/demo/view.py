"""The live view of the demo: site power against its limit, the racks, the changes, the agent."""

from collections import deque
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from interlock_agents.power import Note
from interlock_evals.scenarios.grid_cut import Frame
from interlock_tools.change import Change, ChangeState

BAR_CELLS = 34
SPARKS = "▁▂▃▄▅▆▇█"
TREND_FRAMES = 72
NOTES_SHOWN = 6
LINE_EVERY_S = 10.0

COLOUR = {
    ChangeState.SUCCEEDED: "green",
    ChangeState.REFUSED: "red",
    ChangeState.FAILED: "red",
    ChangeState.STUCK: "red",
    ChangeState.EXPIRED: "yellow",
    ChangeState.AWAITING_APPROVAL: "yellow",
}


class LiveView:
    """Shows frames and notes in a terminal; elsewhere it prints a line now and then."""

    def __init__(self, console: Console) -> None:
        self.paused = False
        self._console = console
        self._live: Live | None = None
        self._trend: deque[float] = deque(maxlen=TREND_FRAMES)
        self._notes: deque[Note] = deque(maxlen=NOTES_SHOWN)
        self._highest_w = 1.0
        self._highest_rack_w = 1.0
        self._last_line_at: datetime | None = None
        self._last_phase = ""

    def __enter__(self) -> "LiveView":
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None

    def pause(self) -> None:
        """Give the terminal back for a question; `paused` is to be lifted after it."""
        self.paused = True
        self.__exit__()

    def tell(self, note: Note) -> None:
        """Show what the agent says."""
        self._notes.append(note)
        if not self._console.is_terminal:
            self._console.print(
                f"{note.at:%H:%M:%S}  agent  {note.kind}: {note.text}", soft_wrap=True
            )

    def frame(self, frame: Frame) -> None:
        """Show one moment."""
        if frame.site_w is not None:
            self._trend.append(frame.site_w)
            self._highest_w = max(self._highest_w, frame.site_w)
        if not self._console.is_terminal:
            self._line(frame)
            return
        if self.paused:
            return
        if self._live is None:
            self.__enter__()
        if self._live is not None:
            self._live.update(self._render(frame), refresh=True)

    def _line(self, frame: Frame) -> None:
        due = (
            self._last_line_at is None
            or (frame.now - self._last_line_at).total_seconds() >= LINE_EVERY_S
        )
        if due or frame.phase != self._last_phase:
            self._last_line_at, self._last_phase = frame.now, frame.phase
            self._console.print(
                f"{frame.now:%H:%M:%S}  {frame.phase:<8} site {_kw(frame.site_w)}, "
                f"{_limit(frame.limit_w)}"
            )

    def _render(self, frame: Frame) -> RenderableType:
        return Group(
            Panel(self._site(frame), title=f"site power · {frame.phase} · {frame.now:%H:%M:%S}"),
            Panel(self._racks(frame), title="racks"),
            Panel(changes_table(frame.changes), title="changes"),
            Panel(self._agent(), title="power agent (over MCP)"),
        )

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

    def _agent(self) -> RenderableType:
        lines = [f"{note.at:%H:%M:%S}  {note.kind}: {note.text}" for note in self._notes]
        return Text("\n".join(lines) or "looking", no_wrap=True, overflow="ellipsis")


def changes_table(changes: tuple[Change, ...]) -> Table:
    """The changes with their states and the last reason of each."""
    table = Table(expand=True, box=None, padding=(0, 1))
    for name in ("change", "operation", "asked by", "state"):
        table.add_column(name, no_wrap=True)
    table.add_column("why", overflow="fold")
    for change in changes:
        style = COLOUR.get(change.state, "white")
        why = change.history[-1].why if change.history else ""
        table.add_row(
            change.change_id,
            change.operation,
            change.requester.id,
            Text(str(change.state), style=style),
            Text(why),
        )
    return table


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
