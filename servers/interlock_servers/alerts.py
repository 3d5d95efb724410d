"""Alerts: what only a person can settle, sent to an Alertmanager until it is settled.

They are read from the store each time, not remembered: an alert outlives a restart, comes also for
what another process did, and ends with its cause. Alertmanager tells the same alert by its labels
and expects it again and again (https://prometheus.io/docs/alerting/latest/alerts_api).
"""

import logging
import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import anyio
import httpx2
from pydantic import AnyHttpUrl, BaseModel, ConfigDict
from sqlalchemy import Connection

from interlock_guardrails import changes, reservations
from interlock_guardrails.break_glass import BreakGlass, Review
from interlock_guardrails.clearing import CLEARED
from interlock_guardrails.paging import LogPager
from interlock_guardrails.stop import read_stop
from interlock_guardrails.store import Store
from interlock_tools.change import Change, ChangeState
from interlock_tools.clock import Clock

SEND_EVERY_S = 60.0
LASTS_S = 5 * SEND_EVERY_S  # then Alertmanager calls it resolved, unless it came again
SEND_TIMEOUT_S = 10.0
SHOWN_FOR = timedelta(days=1)  # what holds nothing, or was found wrong, does not alert for ever
MOST = 100

Alert = dict[str, Any]
log = logging.getLogger(__name__)


class NodeNote(Protocol):
    """Something about a node that a person should know."""

    @property
    def node_id(self) -> str:
        """Which node."""

    @property
    def says(self) -> str:
        """What, in a sentence."""


class AlertSettings(BaseModel):
    """The Alertmanager of the site; `bearer_env` names the variable with its token, if it asks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alertmanager_url: AnyHttpUrl
    bearer_env: str | None = None


class Alerts(LogPager):
    """Sends what is open once a minute, and at once when the guard pages."""

    def __init__(
        self,
        settings: AlertSettings,
        *,
        site_id: str,
        store: Store,
        break_glass: BreakGlass,
        clock: Clock,
        nodes: Callable[[], Sequence[NodeNote]] = lambda: (),
    ) -> None:
        """Describe it; `nodes` says which of them lost a cap, or do not hold it as it was set."""
        self._settings = settings
        self._site_id = site_id
        self._store = store
        self._break_glass = break_glass
        self._clock = clock
        self._nodes = nodes
        self._wake = anyio.Event()

    def page(self, change: Change, why: str) -> None:
        """Say it in the log, and look at once."""
        super().page(change, why)
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled; an Alertmanager that is away is tried again at the next look."""
        token = os.environ.get(self._settings.bearer_env or "", "")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=SEND_TIMEOUT_S) as http,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self._wake_regularly)
            while True:
                wake = self._wake
                await self._send(http)
                await wake.wait()
                self._wake = anyio.Event()

    async def open(self) -> list[Alert]:
        """What alerts now, in the form that Alertmanager takes."""
        now = self._clock.now()

        def look(connection: Connection) -> list[Alert]:
            stuck = changes.latest(connection, limit=MOST, states=[ChangeState.STUCK])
            found = [
                self._stuck(change, now)
                for change in stuck
                if CLEARED not in change.evidence
                and (
                    reservations.holds(connection, change.change_id)
                    or now - change.history[-1].at < SHOWN_FOR
                )
            ]
            stop = read_stop(connection)
            if stop.stopped:
                summary = f"Nothing new begins: {stop.by} stopped the site."
                found.append(self._alert("InterlockStopped", "warning", now, summary, stop.why))
            return found

        reviewed = await self._break_glass.reviews(limit=MOST)
        return [
            *await self._store.read(look),
            *(self._glass(review, now) for review in reviewed if _is_open(review, now)),
            *(self._node(note, now) for note in self._nodes()),
        ]

    async def _send(self, http: httpx2.AsyncClient) -> None:
        url = f"{str(self._settings.alertmanager_url).rstrip('/')}/api/v2/alerts"
        try:
            alerts = await self.open()
            if alerts:
                (await http.post(url, json=alerts)).raise_for_status()
        except Exception:  # nobody else pages: whatever it was, the next look comes
            log.exception("the alerts were not taken")

    async def _wake_regularly(self) -> None:
        while True:
            await self._clock.sleep(SEND_EVERY_S)
            self._wake.set()

    def _stuck(self, change: Change, now: datetime) -> Alert:
        why, labels = change.history[-1].why, {"change_id": change.change_id}
        labels |= {"operation": change.operation, "target": str(change.target)}
        summary = f"{change.operation} on {change.target} is stuck: a person must look."
        return self._alert("InterlockChangeStuck", "critical", now, summary, why, **labels)

    def _glass(self, review: Review, now: datetime) -> Alert:
        name, severity = "InterlockGlassBroken", "critical"
        if review.overdue_at(now):
            name = "InterlockReviewOverdue"
        elif review.justified is False:
            name = "InterlockGlassUnjustified"
        summary = f"{review.broken_by} broke the glass for {review.what}."
        return self._alert(name, severity, now, summary, review.reason, change_id=review.change_id)

    def _node(self, note: NodeNote, now: datetime) -> Alert:
        summary = f"The caps of {note.node_id} do not stand as they were set."
        name, severity = "InterlockCapNotHeld", "warning"
        return self._alert(name, severity, now, summary, note.says, node_id=note.node_id)

    def _alert(
        self, name: str, severity: str, now: datetime, summary: str, why: str, **labels: str
    ) -> Alert:
        return {
            "labels": {"alertname": name, "severity": severity, "site": self._site_id, **labels},
            "annotations": {"summary": summary, "description": why},
            "endsAt": (now + timedelta(seconds=LASTS_S)).isoformat(),
        }


def _is_open(review: Review, now: datetime) -> bool:
    """Whether it waits for a verdict, or was lately found not justified."""
    if review.justified is None:
        return True
    return not review.justified and now - review.opinions[-1].at < SHOWN_FOR
