"""An agent's hands: MCP clients to the servers it may use, and nothing else.

It knows tool names and JSON, not components; what it may do is decided at the other end.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost

from interlock_agents.spans import calling_tool, in_session
from interlock_tools.errors import ComponentError

PAGE = 200  # rows at once, the most that our servers give
CALL_TIMEOUT_S = 30.0
NO_ADDRESSES: Mapping[str, str] = {}


class Servers:
    """The connected servers of an agent, by component."""

    def __init__(
        self, clients: Mapping[str, Client], urls: Mapping[str, str] = NO_ADDRESSES
    ) -> None:
        self._clients = clients
        self._urls = urls

    async def call(self, component: str, tool: str, **arguments: Any) -> dict[str, Any]:
        """The structured answer of one tool.

        Raises:
            ComponentError: the tool answered with an error; its text is the tool's own. Or there
                was no answer in time: what was proposed may have been taken. Or there is no such
                server here.
        """
        client = self._clients.get(component)
        if client is None:
            raise ComponentError(component, tool, "there is no such server here")
        try:
            with calling_tool(tool, client, self._urls.get(component)) as call:
                result = await client.call_tool(
                    tool, arguments, read_timeout_seconds=CALL_TIMEOUT_S
                )
                call.answered(result)
        except MCPError as error:
            raise ComponentError(component, tool, str(error)) from error
        if result.is_error or result.structured_content is None:
            said = " ".join(getattr(part, "text", "") for part in result.content)
            raise ComponentError(component, tool, said or "it gave no structured answer")
        return dict(result.structured_content)

    async def pages(
        self, component: str, tool: str, **arguments: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Each page of a listing, in order.

        Raises:
            ComponentError: as `call`.
        """
        cursor: str | None = None
        while True:
            more = {} if cursor is None else {"cursor": cursor}
            page = await self.call(component, tool, **arguments, **more)
            yield page
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    async def listen(self, component: str, uri: str, moved: Callable[[], None]) -> None:
        """Call `moved` once it is listened to, and whenever the resource has moved; without end.

        Raises:
            ComponentError: there is no such subscription, or it was lost: what moved since is not
                told. Look by yourself, and listen again.
        """
        client = self._clients.get(component)
        if client is None:
            raise ComponentError(component, "listen", "there is no such server here")
        try:
            async with client.listen(resource_subscriptions=[uri]) as stream:
                moved()
                async for _ in stream:
                    moved()
        except (MCPError, SubscriptionLost, ListenNotSupportedError, TimeoutError) as error:
            raise ComponentError(component, "listen", f"{uri}: {error}") from error
        raise ComponentError(component, "listen", f"{uri}: the server ended it; listen again")


@asynccontextmanager
async def connect(urls: Mapping[str, str], token: str) -> AsyncIterator[Servers]:
    """Clients over streamable HTTP to each component's URL, with one bearer token."""
    async with AsyncExitStack() as stack:
        clients: dict[str, Client] = {}
        for component, url in urls.items():
            http = await stack.enter_async_context(
                httpx2.AsyncClient(
                    headers={"Authorization": f"Bearer {token}"}, timeout=CALL_TIMEOUT_S
                )
            )
            transport = streamable_http_client(url, http_client=http)
            client = await stack.enter_async_context(Client(transport))
            stack.enter_context(in_session(client, url))
            clients[component] = client
        yield Servers(clients, urls)
