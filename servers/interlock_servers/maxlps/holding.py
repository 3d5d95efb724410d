"""The loop that holds our caps on the nodes: several signs of life within the time a cap lasts.

It runs where changes are carried out, and nowhere else. Which caps are ours the nodes say, and
which may last the changes say; there is no other memory, so that a restart finds both:

- a change of this store that has begun: its caps are renewed;
- one that is stuck, or whose end is overdue: what is above its safe value is not;
- one that this store does not know, or that never began: nothing of it is.

What is not renewed ends by itself at its safe value. Where the store cannot be read nothing is
renewed either, since then nobody knows what may last.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

import anyio
from sqlalchemy import Connection

from interlock_guardrails import changes
from interlock_guardrails.standing import is_expiry
from interlock_guardrails.store import Store
from interlock_servers.devices.node_models import HeldCap
from interlock_servers.maxlps.node_power import Doubt, Kept, NodePowerClient
from interlock_tools.change import Change, ChangeState
from interlock_tools.clock import Clock
from interlock_tools.errors import FactoryError

TIMES_IN_HOLD = 4  # signs of life within the time that a cap lasts: three may be lost
ROUND_S = 20.0  # of the machine: a round that takes longer is stuck
OVERDUE = timedelta(seconds=60)
TOLD_FOR = timedelta(days=1)
S = ChangeState
_BEGAN = frozenset(
    {S.EXECUTING, S.UNKNOWN, S.VERIFYING, S.SUCCEEDED, S.FAILED, S.COMPENSATING, S.COMPENSATED}
)
_UNDER_WAY = frozenset({S.EXECUTING, S.UNKNOWN, S.VERIFYING})

log = logging.getLogger(__name__)


class Note(NamedTuple):
    """Something about a node that a person should know."""

    node_id: str
    at: datetime
    says: str


class CapHolder:
    """Gives our sign of life to the nodes, and says what became of our caps.

    Attributes:
        trouble: why the last round did not work; None where it did.
    """

    def __init__(self, power: NodePowerClient, store: Store, clock: Clock, hold_s: float) -> None:
        self._power = power
        self._store = store
        self._clock = clock
        self._every_s = hold_s / TIMES_IN_HOLD
        self._lost: dict[str, Note] = {}
        self._last = Kept()
        self._ran = False
        self.trouble: str | None = None

    async def run(self) -> None:
        """Hold until cancelled; then every cap ends at its safe value when its time is over."""
        while True:
            await self.round()
            await self._clock.sleep(self._every_s)

    async def round(self) -> None:
        """One sign of life; what goes wrong is kept in `trouble`."""
        try:
            with anyio.fail_after(ROUND_S):
                kept = await self._power.keep(self._doubts)
            self._note(kept)
            self.trouble, self._ran = None, True
        except FactoryError as error:
            self.trouble = str(error)
        except TimeoutError:
            self.trouble = f"a round took longer than {ROUND_S:g} s"
        except Exception as error:
            log.exception("caps could not be held")
            self.trouble = f"it broke: {type(error).__name__}"

    def says(self) -> str:
        """How it stands, in words."""
        if not self._ran:
            return "no sign of life was given here yet: another replica may do the work"
        return "they hear our sign of life"

    def notes(self) -> tuple[Note, ...]:
        """The nodes that lost a cap within a day, or hold one that is not as we set it."""
        now = self._clock.now()
        found = dict(self._lost)
        for node_id, why in self._last.let_go.items():
            found.setdefault(node_id, Note(node_id, now, f"its caps are let go: {why}"))
        for node_id in self._last.changed:
            says = "somebody else changed a limit that we hold; it is not set again"
            found.setdefault(node_id, Note(node_id, now, says))
        for node_id, why in self._last.silent.items():
            says = f"it does not take our sign of life, so its caps end: {why}"
            found.setdefault(node_id, Note(node_id, now, says))
        return tuple(found[node_id] for node_id in sorted(found))

    def _note(self, kept: Kept) -> None:
        now = self._clock.now()
        for node_id in kept.lost:
            says = "a cap is no longer held: it has ended at its safe value"
            self._lost[node_id] = Note(node_id, now, says)
            log.warning("a cap is no longer held: node=%s", node_id)
        self._last = kept
        self._lost = {
            node_id: note for node_id, note in self._lost.items() if now - note.at < TOLD_FOR
        }

    async def _doubts(self, caps: Iterable[HeldCap]) -> Mapping[str, Doubt]:
        """By change, why its caps may not last.

        Raises:
            Exception: the store cannot be read; then nobody knows.
        """
        asked = {cap.change_id for cap in caps}
        if not asked:
            return {}

        def look(connection: Connection) -> dict[str, Doubt]:
            known = {change.change_id: change for change in changes.these(connection, asked)}
            found: dict[str, Doubt] = {}
            for change_id in sorted(asked):
                children = changes.children(connection, change_id) if change_id in known else []
                doubt = doubt_of(change_id, known.get(change_id), children, self._clock.now())
                if doubt is not None:
                    found[change_id] = doubt
            return found

        return await self._store.read(look)


def doubt_of(
    change_id: str, change: Change | None, children: Iterable[Change], now: datetime
) -> Doubt | None:
    """Why the caps of this change may not last, or None where they may."""
    if change is None:
        return Doubt(f"{change_id} is no change of this store", of_all=True)
    if change.state is S.STUCK:
        return Doubt(f"{change_id} is stuck", of_all=False)
    if change.state not in _BEGAN:
        return Doubt(f"{change_id} is {change.state} and never began", of_all=True)
    for child in children:
        if not is_expiry(child) or child.not_before is None:
            continue
        is_settled = child.state is S.SUCCEEDED or child.state in _UNDER_WAY
        if now > child.not_before + OVERDUE and not is_settled:
            return Doubt(f"{change_id} has ended and was not taken back", of_all=False)
    return None
