"""What clients of 2025-11-25 expect and the newer protocol has no more: levels and subscriptions.

They belong to a connection that lasts (stdio, or HTTP with sessions). The SDK gives a handler no
public way to the connection or to the register of methods, so its private names are used here only.
"""

import asyncio
import logging
from typing import Any

from mcp.server import MCPServer
from mcp.server.connection import Connection
from mcp.server.subscriptions import ResourceUpdated, ServerEvent, SubscriptionBus
from mcp.types import (
    EmptyResult,
    SetLevelRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)

from interlock_servers.surface.extension import RequestContext

MAX_SUBSCRIPTIONS = 256  # of one connection
MAX_SENDING = 1024  # updates that wait for slow readers, of one server
SUBSCRIBED = "interlock.subscribed"
log = logging.getLogger(__name__)


def serve_sessions(server: MCPServer[Any], bus: SubscriptionBus) -> None:
    """Have this server keep, for each connection, what its client subscribed to on the bus."""
    sessions = _Sessions(bus)
    lowlevel = server._lowlevel_server
    lowlevel.add_request_handler("logging/setLevel", SetLevelRequestParams, _accept_level)
    lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, sessions.subscribe)
    lowlevel.add_request_handler(
        "resources/unsubscribe", UnsubscribeRequestParams, sessions.unsubscribe
    )


async def _accept_level(_: RequestContext, __: SetLevelRequestParams) -> EmptyResult:
    """Any level is right: our own logs go to stderr, and none to a client."""
    return EmptyResult()


class _Sessions:
    def __init__(self, bus: SubscriptionBus) -> None:
        self._bus = bus
        self._sending: set[asyncio.Task[None]] = set()

    async def subscribe(self, ctx: RequestContext, params: SubscribeRequestParams) -> EmptyResult:
        """Tell this connection from now on when the resource has changed."""
        uris = self._uris_of(ctx.session._connection)
        if len(uris) < MAX_SUBSCRIPTIONS:
            uris.add(str(params.uri))
        else:
            log.warning("a connection has too many subscriptions", extra={"uris": len(uris)})
        return EmptyResult()

    async def unsubscribe(
        self, ctx: RequestContext, params: UnsubscribeRequestParams
    ) -> EmptyResult:
        """Tell it no more."""
        self._uris_of(ctx.session._connection).discard(str(params.uri))
        return EmptyResult()

    def _uris_of(self, connection: Connection) -> set[str]:
        known: set[str] | None = connection.state.get(SUBSCRIBED)
        if known is not None:
            return known
        uris: set[str] = set()
        connection.state[SUBSCRIBED] = uris

        def tell(event: ServerEvent) -> None:
            if isinstance(event, ResourceUpdated) and event.uri in uris:
                self._send(connection, event.uri)

        connection.exit_stack.callback(self._bus.subscribe(tell))
        return uris

    def _send(self, connection: Connection, uri: str) -> None:
        """Send without keeping the publisher waiting; who reads too slowly misses updates."""
        if len(self._sending) >= MAX_SENDING:
            log.warning("an update was not sent: too many wait", extra={"uri": uri})
            return
        sending = asyncio.get_running_loop().create_task(connection.send_resource_updated(uri))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
