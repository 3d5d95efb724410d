"""What clients of 2025-11-25 expect and the newer protocol has no more: levels and subscriptions.

They belong to a connection that lasts (stdio, or HTTP with sessions). The SDK gives a handler no
public way to the connection or to the register of methods, so its private names are used here only.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from mcp.server import MCPServer
from mcp.server.connection import Connection
from mcp.server.subscriptions import ResourceUpdated, ServerEvent, SubscriptionBus
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    EmptyResult,
    SetLevelRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)

from interlock_servers.surface.extension import RequestContext
from interlock_servers.surface.watching import Watching

MAX_SUBSCRIPTIONS = 256  # of one connection
MAX_SENDING = 1024  # updates that wait for slow readers, of one server
SUBSCRIBED = "interlock.subscribed"
log = logging.getLogger(__name__)

End = Callable[[], None]


def serve_sessions(
    server: MCPServer[Any], bus: SubscriptionBus, watching: Watching | None = None
) -> None:
    """Have this server keep, for each connection, what its client subscribed to on the bus."""
    sessions = _Sessions(bus, watching)
    lowlevel = server._lowlevel_server
    lowlevel.add_request_handler("logging/setLevel", SetLevelRequestParams, _accept_level)
    lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, sessions.subscribe)
    lowlevel.add_request_handler(
        "resources/unsubscribe", UnsubscribeRequestParams, sessions.unsubscribe
    )


def when_session_ends(ctx: RequestContext, told: Callable[[str], None]) -> None:
    """Have `told` called with the protocol's version when the session ends that is opened here.

    Nothing is called where each request stands alone.
    """
    connection = ctx.session._connection
    if ctx.request is not None and connection.session_id is None:
        return
    connection.exit_stack.callback(lambda: told(connection.protocol_version))


async def _accept_level(_: RequestContext, __: SetLevelRequestParams) -> EmptyResult:
    """Any level is right: our own logs go to stderr, and none to a client."""
    return EmptyResult()


class _Sessions:
    def __init__(self, bus: SubscriptionBus, watching: Watching | None) -> None:
        self._bus = bus
        self._watching = watching
        self._sending: set[asyncio.Task[None]] = set()

    async def subscribe(self, ctx: RequestContext, params: SubscribeRequestParams) -> EmptyResult:
        """Tell this connection from now on when the resource has changed.

        Raises:
            MCPError: it has too many subscriptions, or it may not read.
        """
        subscribed, uri = self._subscribed_by(ctx.session._connection), str(params.uri)
        if uri in subscribed:
            return EmptyResult()
        if len(subscribed) >= MAX_SUBSCRIPTIONS:
            raise MCPError(INTERNAL_ERROR, f"more than {MAX_SUBSCRIPTIONS} subscriptions; end some")
        if self._watching is None:
            subscribed[uri] = _nothing
            return EmptyResult()

        def begins() -> None:
            """Stands for it while the first look is taken."""

        subscribed[uri] = begins
        try:
            end = await self._watching.begin([uri])
        except BaseException:
            if subscribed.get(uri) is begins:
                del subscribed[uri]
            raise
        if subscribed.get(uri) is begins:
            subscribed[uri] = end
        else:  # taken back meanwhile, or the connection is gone
            end()
        return EmptyResult()

    async def unsubscribe(
        self, ctx: RequestContext, params: UnsubscribeRequestParams
    ) -> EmptyResult:
        """Tell it no more."""
        self._subscribed_by(ctx.session._connection).pop(str(params.uri), _nothing)()
        return EmptyResult()

    def _subscribed_by(self, connection: Connection) -> dict[str, End]:
        known: dict[str, End] | None = connection.state.get(SUBSCRIBED)
        if known is not None:
            return known
        subscribed: dict[str, End] = {}
        connection.state[SUBSCRIBED] = subscribed

        def tell(event: ServerEvent) -> None:
            if isinstance(event, ResourceUpdated) and event.uri in subscribed:
                self._send(connection, event.uri)

        def end_all() -> None:
            ends = list(subscribed.values())
            subscribed.clear()
            for end in ends:
                end()

        connection.exit_stack.callback(end_all)
        connection.exit_stack.callback(self._bus.subscribe(tell))
        return subscribed

    def _send(self, connection: Connection, uri: str) -> None:
        """Send without keeping the publisher waiting; who reads too slowly misses updates."""
        if len(self._sending) >= MAX_SENDING:
            log.warning("an update was not sent: too many wait", extra={"uri": uri})
            return
        sending = asyncio.get_running_loop().create_task(connection.send_resource_updated(uri))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)


def _nothing() -> None:
    """What ends a subscription that nobody looks after."""
