"""How many streams may stand open at once: each costs a connection for as long as it likes."""

from collections import Counter
from typing import Any

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR

LISTEN = "subscriptions/listen"
MAX_STREAMS = 256  # of one server
MAX_STREAMS_OF_ONE = 16  # caller


class Streams:
    """Lets so many listen, and tells the next one that there is no room."""

    def __init__(self, most: int = MAX_STREAMS, most_of_one: int = MAX_STREAMS_OF_ONE) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._open: Counter[str] = Counter()

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Pass the request on; one that listens is counted until it ends."""
        if ctx.method != LISTEN:
            return await call_next(ctx)
        token = get_access_token()
        caller = "" if token is None else token.client_id
        if self._open[caller] >= self._most_of_one or self._open.total() >= self._most:
            raise MCPError(INTERNAL_ERROR, "too many streams are open; close one, or poll")
        self._open[caller] += 1
        try:
            return await call_next(ctx)
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
