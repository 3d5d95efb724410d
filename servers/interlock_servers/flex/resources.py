"""The grid's targets as a resource that tells when they move, and the runbook of one event."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

from pydantic import Field

from interlock_servers import runbooks
from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.models import LoadTarget
from interlock_servers.offer import Face
from interlock_servers.page import Page
from interlock_servers.paging import MAX_LIMIT
from interlock_servers.surface.completing import among
from interlock_servers.surface.offering import Attached
from interlock_servers.surface.watching import Variables
from interlock_tools.clock import Clock
from interlock_tools.errors import NotFoundError

TARGETS = "flex://targets"
LIMIT = "flex://limit"
LOOK_EVERY_S = 0.1  # a second is all that may pass to the first cap; a look asks nobody

EventId = Annotated[
    str, Field(min_length=1, max_length=200, description="event_id or correlation_id of a target")
]


def offer_resources(
    face: Face,
    client: FlexClient,
    *,
    clock: Clock,
    targets: Callable[..., Awaitable[Page]],
    limit: Callable[[], Awaitable[Page]],
) -> None:
    """Offer them; `targets` and `limit` read what list_load_targets and grid_limit show."""

    def known() -> list[LoadTarget]:
        now = clock.now()
        return [*client.targets_in_force(now).values(), *client.upcoming(now)]

    def names() -> list[str]:
        return [
            name
            for target in known()
            for name in (target.event_id, target.correlation_id)
            if name is not None
        ]

    async def event_ids(prefix: str) -> Sequence[str]:
        return among(names(), prefix)

    async def marks(wanted: Sequence[Variables]) -> Sequence[object]:
        now = clock.now()
        in_force = sorted(client.targets_in_force(now).items())
        mark = (
            tuple((feed, _told(target)) for feed, target in in_force),
            tuple(_told(target) for target in client.upcoming(now)),
            client.health().why_not is None,
        )
        return [mark] * len(wanted)

    @face.resource(TARGETS, marks=marks)
    async def load_targets() -> Page:
        """Load targets in force and announced; it tells when one comes, begins or ends."""
        return await targets(limit=MAX_LIMIT)

    @face.resource(LIMIT, marks=marks, every_s=LOOK_EVERY_S)
    async def site_limit() -> Page:
        """The limit on the whole site, as grid_limit shows it; it tells when it moves."""
        return await limit()

    @face.prompt(runbooks.text("runbook_grid_event"), complete={"event_id": event_ids})
    async def runbook_grid_event(event_id: EventId) -> Sequence[Attached]:
        """What to do when the grid asks for something: this event, to its end."""
        if event_id not in names():
            raise NotFoundError(
                f"no verified target is of event {event_id!r} now; {TARGETS} lists them, and "
                "list_refused_messages what was not believed"
            )
        return [
            Attached(TARGETS, await targets(limit=MAX_LIMIT)),
            Attached(LIMIT, await limit()),
        ]


def _told(target: LoadTarget) -> tuple[object, ...]:
    return target.event_id, target.start, target.end, target.limit_w, target.feed_tags
