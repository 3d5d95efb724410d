"""Which resources somebody waits for, and saying so when one has moved; without waiters no work.

That a resource has moved is seen by looking at its mark, at most once a second and only at what is
waited for. So a move by another process or replica is told like one of ours, and however often a
resource moves within a second, that is told once.
"""

import asyncio
import contextvars
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.subscriptions import ResourceUpdated, SubscriptionBus
from mcp.shared.exceptions import MCPError
from mcp.shared.uri_template import UriTemplate
from mcp.types import INTERNAL_ERROR

from interlock_servers.surface.streams import LISTEN
from interlock_servers.surface.toolsets import uris_in
from interlock_tools.clock import Clock

LOOK_EVERY_S = 1.0
LOOK_DEADLINE_S = 10.0
MAX_WATCHED = 1000  # resources of one server
MAX_WATCHED_OF_ONE = 256  # caller
MAX_URI_CHARS = 2000
log = logging.getLogger(__name__)

Variables = Mapping[str, str]
Marks = Callable[[Sequence[Variables]], Awaitable[Sequence[object]]]
_NEW, _UNSEEN = object(), object()


@dataclass(frozen=True, kw_only=True)
class Watchable:
    """A resource, or a family of them, that can be waited for.

    `marks` gives a mark for each of the asked: equal to the one before while it has not moved.
    """

    uri: str
    marks: Marks
    every_s: float = LOOK_EVERY_S


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What can be waited for, by whose clock, and who waits: `caller` names them or raises."""

    watchables: Sequence[Watchable]
    clock: Clock
    caller: Callable[[], str]


def watch_of(every: Iterable[Watch | None]) -> Watch | None:
    """The same for a server that has several parts; what they share is there once."""
    parts = [one for one in every if one is not None]
    if not parts:
        return None
    by_uri = {item.uri: item for one in parts for item in one.watchables}
    return Watch(watchables=list(by_uri.values()), clock=parts[0].clock, caller=parts[0].caller)


@dataclass
class _Watched:
    variables: Variables
    waiting: int = 0
    mark: object = field(default=_NEW)


class Watching:
    """Looks after the resources that somebody waits for, and publishes each that has moved."""

    def __init__(
        self,
        bus: SubscriptionBus,
        watch: Watch,
        most: int = MAX_WATCHED,
        most_of_one: int = MAX_WATCHED_OF_ONE,
    ) -> None:
        self._caller = watch.caller
        self._families = [_Family(bus, item, watch.clock) for item in watch.watchables]
        self._most = most
        self._most_of_one = most_of_one
        self._of: Counter[str] = Counter()

    @property
    def watched(self) -> frozenset[str]:
        """The resources that are looked at."""
        return frozenset(uri for family in self._families for uri in family.watched)

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Pass the request on; what one that listens asked for is looked after until it ends."""
        if ctx.method != LISTEN:
            return await call_next(ctx)
        end = await self.begin(uris_in(ctx.params or {}))
        try:
            return await call_next(ctx)
        finally:
            end()

    async def begin(self, uris: Iterable[str]) -> Callable[[], None]:
        """Look after these from the present moment on, until what is returned is called.

        What none of our resources is called is left alone: nothing can be told of it.

        Raises:
            MCPError: the caller may not read, or there would be too many.
        """
        caller = self._caller()
        found = {uri: family for uri in set(uris) if (family := self._family(uri)) is not None}
        if self._of[caller] + len(found) > self._most_of_one:
            raise MCPError(
                INTERNAL_ERROR,
                f"more than {self._most_of_one} resources would be watched for {caller}; watch "
                "fewer, or read the rest when you need it",
            )
        if len(self.watched | found.keys()) > self._most:
            raise MCPError(INTERNAL_ERROR, "too many resources are watched; read, or try later")
        self._of[caller] += len(found)
        for uri, family in found.items():
            family.add(uri)

        def end() -> None:
            self._of[caller] -= len(found)
            if self._of[caller] <= 0:
                del self._of[caller]
            for uri, family in found.items():
                family.remove(uri)
            found.clear()

        try:
            async with anyio.create_task_group() as looks:
                for family in set(found.values()):
                    looks.start_soon(family.first_look)
        except BaseException:
            end()
            raise
        return end

    def _family(self, uri: str) -> "_Family | None":
        if len(uri) > MAX_URI_CHARS:
            return None
        return next((one for one in self._families if one.variables(uri) is not None), None)


class _Family:
    """The watched resources of one kind; it looks at them by itself while there are any."""

    def __init__(self, bus: SubscriptionBus, watchable: Watchable, clock: Clock) -> None:
        self._bus = bus
        self._watchable = watchable
        self._clock = clock
        self._template = UriTemplate.parse(watchable.uri)
        self._looking: asyncio.Task[None] | None = None
        self.watched: dict[str, _Watched] = {}

    def variables(self, uri: str) -> Variables | None:
        """What the address says, if it is one of this kind."""
        found = self._template.match(uri)
        return None if found is None else {name: str(value) for name, value in found.items()}

    def add(self, uri: str) -> None:
        """One more waits for this."""
        self.watched.setdefault(uri, _Watched(self.variables(uri) or {})).waiting += 1
        if self._looking is None:
            # It outlives the request and is nobody's: not in the caller's name, nor in its trace.
            nobody = contextvars.Context()
            self._looking = asyncio.get_running_loop().create_task(self._run(), context=nobody)

    def remove(self, uri: str) -> None:
        """One less waits for this."""
        self.watched[uri].waiting -= 1
        if not self.watched[uri].waiting:
            del self.watched[uri]
        if not self.watched and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def first_look(self) -> None:
        """See how the new ones stand, before who waits is told that it will hear of moves."""
        await self._look([uri for uri, one in self.watched.items() if one.mark is _NEW])

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(self._watchable.every_s)
            await self._look(list(self.watched))

    async def _look(self, uris: Sequence[str]) -> None:
        """Look at these and publish what has moved; where that fails it is done the next time."""
        asked = {uri: self.watched[uri] for uri in uris}
        if not asked:
            return
        try:
            with anyio.fail_after(LOOK_DEADLINE_S):
                marks = await self._watchable.marks([one.variables for one in asked.values()])
            for (uri, one), mark in zip(asked.items(), marks, strict=True):
                before, one.mark = one.mark, mark
                if before is not _NEW and before != mark:
                    await self._bus.publish(ResourceUpdated(uri=uri))
        except Exception:  # whatever it was: a family that nobody looks at would be silent for good
            log.warning("watched resources cannot be seen", extra={"uri": self._watchable.uri})
            for one in asked.values():
                one.mark = _UNSEEN if one.mark is _NEW else one.mark
