"""The port for whatever else speaks for the grid, besides DSX Flex on the bus.

IEEE 2030.5, a utility's own interface: what tells load targets and how far it is to be believed is
a signal. Targets of two signals that contradict each other both hold, so the stricter counts; what
tells them apart is the `source` of a target, and `//grid/v1/` is the bus's alone.
"""

from datetime import datetime
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from interlock_servers.flex.models import LoadTarget


class Health(NamedTuple):
    """The state of our hearing.

    `certain_at` is the last moment at which we knew what was in force; it is now while all is
    well, and None before the first word. `why_not` says what is amiss.
    """

    connected: bool
    broker: str | None
    certain_at: datetime | None
    why_not: str | None


class GridSignal(Protocol):
    """One way in which the grid speaks to the site; it listens between enter and exit."""

    async def __aenter__(self) -> Self:
        """Begin to listen; not being heard yet is no error, `health` says so."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Stop; what was heard can still be read."""
        ...

    def targets(self, moment: datetime) -> tuple[LoadTarget, ...]:
        """Every target that holds at `moment` or later; of one source the later ranks higher."""
        ...

    def health(self) -> Health:
        """Whether that is all there is; safe to ask from any thread."""
        ...
