"""health-events-analyzer: looks back over the store and says what repeats.

Its own events have no rule set by default: they show as a condition, and stop nothing.
"""

from datetime import timedelta
from typing import Final

from interlock_servers.nvsentinel.twin_connector import PlatformConnector
from interlock_servers.nvsentinel.twin_events import EventStore, HealthEvent
from interlock_tools.clock import Clock

BY: Final = "health-events-analyzer"
CHECK: Final = "MultipleRemediations"
MANY: Final = 3
WITHIN: Final = timedelta(hours=24)


class Analyzer:
    """Says of a node that it was remediated too often."""

    def __init__(self, store: EventStore, connector: PlatformConnector, clock: Clock) -> None:
        self._store, self._connector, self._clock = store, connector, clock
        self._told: set[str] = set()

    def reconcile(self) -> None:
        """Look back."""
        since = self._clock.now() - WITHIN
        times: dict[str, int] = {}
        for record in self._store.records:
            if record.remediated and record.at >= since:
                times[record.event.node] = times.get(record.event.node, 0) + 1
        for node in sorted(node for node, count in times.items() if count >= MANY):
            if node not in self._told:
                self._told.add(node)
                self._connector.take(
                    HealthEvent(
                        agent=BY,
                        component="GPU",
                        check=CHECK,
                        node=node,
                        is_fatal=True,
                        is_healthy=False,
                        action="CONTACT_SUPPORT",
                        message=f"{MANY} remediations or more in 24 h",
                    )
                )
