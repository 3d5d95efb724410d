"""The live view of a demo: what the story shows of a moment, the changes, the agent's words."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from interlock_agents.notes import Note
from interlock_tools.change import Change, ChangeState

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


class Moment(Protocol):
    """What every frame of every story has."""

    @property
    def now(self) -> datetime:
        """When it was seen, by the story's clock."""
        ...

    @property
    def changes(self) -> tuple[Change, ...]:
        """The newest changes."""
        ...


F = TypeVar("F", bound=Moment)


class LiveView(ABC, Generic[F]):
    """Shows frames and notes in a terminal; elsewhere it prints a line now and then."""

    def __init__(self, console: Console) -> None:
        self.paused = False
        self._console = console
        self._live: Live | None = None
        self._notes: deque[Note] = deque(maxlen=NOTES_SHOWN)
        self._last_line_at: datetime | None = None
        self._last_phase = ""

    def __enter__(self) -> "LiveView[F]":
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None

    @abstractmethod
    def panels(self, frame: F) -> Iterator[Panel]:
        """The story's own part of the terminal."""

    @abstractmethod
    def line(self, frame: F) -> str:
        """The moment in one line, where there is no terminal."""

    @abstractmethod
    def phase(self, frame: F) -> str:
        """A line is due at once when this moves."""

    def pause(self) -> None:
        """Give the terminal back for a question; `paused` is to be lifted after it."""
        self.paused = True
        self.__exit__()

    def tell(self, note: Note) -> None:
        """Show what the agent says; a site's words in it are text and no markup."""
        self._notes.append(note)
        if not self._console.is_terminal:
            text = f"{note.at:%H:%M:%S}  agent  {note.kind}: {note.text}"
            self._console.print(Text(text), soft_wrap=True)

    def frame(self, frame: F) -> None:
        """Show one moment."""
        if not self._console.is_terminal:
            self._print(frame)
            return
        if self.paused:
            return
        if self._live is None:
            self.__enter__()
        if self._live is not None:
            self._live.update(self._render(frame), refresh=True)

    def _print(self, frame: F) -> None:
        due = (
            self._last_line_at is None
            or (frame.now - self._last_line_at).total_seconds() >= LINE_EVERY_S
        )
        if due or self.phase(frame) != self._last_phase:
            self._last_line_at, self._last_phase = frame.now, self.phase(frame)
            self._console.print(Text(f"{frame.now:%H:%M:%S}  {self.line(frame)}"), soft_wrap=True)

    def _render(self, frame: F) -> RenderableType:
        return Group(
            *self.panels(frame),
            Panel(changes_table(frame.changes), title="changes"),
            Panel(self._agent(), title="the agent (over MCP)"),
        )

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
