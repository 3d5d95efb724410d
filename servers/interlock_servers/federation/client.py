"""The connection to another MCP server: its list, read again when it may have changed, and calls.

A call goes out once. Whatever a server sends is bounded; what it asks of us (sampling, roots, more
input) it does not get.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.session import IncomingMessage
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.types import (
    CONNECTION_CLOSED,
    CallToolResult,
    PaginatedRequestParams,
    ToolListChangedNotification,
)

from interlock_servers.federation.models import MAX_TOOLS, ToolList
from interlock_servers.federation.settings import FederatedSettings
from interlock_servers.plant_text import plant_text
from interlock_servers.transports.bounded_http import BoundedTransport
from interlock_tools.clock import Clock
from interlock_tools.errors import ComponentError, FactoryError, UnavailableError

MAX_ANSWER_BYTES = 16 * 1_048_576  # of one message; what is shown of it is far less
MAX_PAGES = 50
TRY_AGAIN_S = 5.0  # of the machine: processes and networks live in its time
SHOWN_CHARS = 300

log = logging.getLogger(__name__)


class Line:
    """One open connection."""

    def __init__(self, client: Client, settings: FederatedSettings, clock: Clock) -> None:
        self.lost = anyio.Event()
        self.why_lost = ""
        self._client = client
        self._settings = settings
        self._clock = clock
        self._reading = anyio.Lock()
        self._list: ToolList | None = None
        self._read_at = clock.now()
        self._announced = 0

    def announce_change(self) -> None:
        """Believe the list that was read no more."""
        self._list = None
        self._announced += 1

    async def listed(self) -> ToolList:
        """The tool list, at most `relist_after_s` old and of no earlier than the last announcement.

        Raises:
            UnavailableError: the server does not answer.
            ComponentError: it has no list that could be used.
        """
        async with self._reading:
            known, age_s = self._list, (self._clock.now() - self._read_at).total_seconds()
            if known is not None and 0 <= age_s < self._settings.relist_after_s:
                return known
            self._read_at, before = self._clock.now(), self._announced
            known = await self._read()
            # What was announced meanwhile may be in it or not: then it is good for this once.
            self._list = known if before == self._announced else None
            return known

    async def call(
        self, tool: str, arguments: dict[str, Any], *, meta: dict[str, Any] | None = None
    ) -> CallToolResult:
        """Call a tool, once.

        Raises:
            UnavailableError: no answer; what happened is unknown.
            ComponentError: the server answered with an error, or with what is no answer.
        """
        try:
            answer = await self._client.session.call_tool(
                tool,
                arguments,
                meta=meta,  # type: ignore[arg-type]  # a typed dict that takes any key
                allow_input_required=True,
            )
        except Exception as error:
            raise self._translated(error) from error
        if not isinstance(answer, CallToolResult):
            raise ComponentError(
                self._settings.name, "ASKS_BACK", f"{tool} asked for more input; it gets none"
            )
        return answer

    async def watch(self) -> None:
        """Listen for changes of the list, where the server tells them on a stream of its own."""
        with suppress(ListenNotSupportedError, SubscriptionLost, MCPError, TimeoutError):
            async with self._client.listen(tools_list_changed=True) as events:
                async for _ in events:
                    self.announce_change()
        self.announce_change()

    async def _read(self) -> ToolList:
        name, session = self._settings.name, self._client.session
        tools, cursor = [], None
        try:
            with anyio.fail_after(self._settings.connect_timeout_s):
                for _ in range(MAX_PAGES):
                    page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
                    tools += page.tools
                    cursor = page.next_cursor
                    if cursor is None or len(tools) > MAX_TOOLS:
                        return ToolList.of(name, session.server_info, tools)
        except FactoryError:
            raise
        except TimeoutError:
            raise self._gone("its tool list did not come in time") from None
        except Exception as error:
            raise self._translated(error) from error
        raise ComponentError(name, "BAD_LIST", f"its tool list has more than {MAX_PAGES} pages")

    def _translated(self, error: Exception) -> FactoryError:
        if isinstance(error, MCPError) and error.code != CONNECTION_CLOSED:
            return ComponentError(
                self._settings.name, str(error.code), plant_text(str(error), SHOWN_CHARS)
            )
        if isinstance(error, MCPError | anyio.ClosedResourceError | anyio.BrokenResourceError):
            return self._gone("the connection closed")
        log.info("a federated server answered what is no answer", exc_info=error)
        return ComponentError(self._settings.name, "BAD_ANSWER", words_of(error))

    def _gone(self, why: str) -> UnavailableError:
        self.why_lost = why
        self.lost.set()
        return UnavailableError(f"{self._settings.name} gives no answer: {why}")


class Upstream:
    """Keeps one line open while `run` runs, and opens it again when somebody needs it."""

    def __init__(self, settings: FederatedSettings, clock: Clock) -> None:
        self.settings = settings
        self.why_not = "it was not connected yet"
        self._clock = clock
        self._line: Line | None = None
        self._wanted = anyio.Event()
        self._tried = anyio.Event()

    @property
    def connected(self) -> bool:
        """Whether a line is open, as far as we know."""
        return self._line is not None and not self._line.lost.is_set()

    async def run(self) -> None:
        """Connect, and again after a loss, until cancelled."""
        while True:
            self._wanted = anyio.Event()
            try:
                async with self.opened(self.token()) as self._line:
                    self._tell_tried()
                    await self._line.lost.wait()
                    self.why_not = self._line.why_lost
            except Exception as error:
                self.why_not = words_of(error)
                self._tell_tried()
                log.warning(
                    "a federated server cannot be reached",
                    extra={"server": self.settings.name, "why": self.why_not},
                )
            finally:
                self._line = None
            with anyio.move_on_after(TRY_AGAIN_S):
                await self._wanted.wait()

    def token(self) -> str | None:
        """The token that the settings have for the server.

        Raises:
            UnavailableError: the variable that should hold it is not set.
        """
        variable = self.settings.bearer_env
        return None if variable is None else _required(variable)

    async def line(self) -> Line:
        """The open line; where there is none, one attempt is waited for.

        Raises:
            UnavailableError: the server cannot be reached; says why.
        """
        if not self.connected:
            tried = self._tried
            self._wanted.set()
            with anyio.move_on_after(self.settings.connect_timeout_s):
                await tried.wait()
        line = self._line
        if line is None or line.lost.is_set():
            raise UnavailableError(f"{self.settings.name} cannot be reached: {self.why_not}")
        return line

    @asynccontextmanager
    async def opened(self, token: str | None) -> AsyncIterator[Line]:
        """A line of one's own, for as long as the block lasts.

        Raises:
            UnavailableError: it did not open.
        """
        failed: Exception | None = None
        try:
            async with self._opening(token) as line:
                try:
                    yield line
                except Exception as error:  # task groups on the way out would wrap it
                    failed = error
        except Exception as error:
            why = words_of(error)
            raise UnavailableError(f"{self.settings.name} cannot be reached: {why}") from error
        if failed is not None:
            raise failed

    @asynccontextmanager
    async def _opening(self, token: str | None) -> AsyncIterator[Line]:
        late = False
        lines: list[Line] = []

        async def heard(message: IncomingMessage) -> None:
            if isinstance(message, ToolListChangedNotification):
                for line in lines:
                    line.announce_change()

        async with anyio.create_task_group() as tasks:
            opening = anyio.CancelScope()

            async def give_up() -> None:
                nonlocal late
                with opening:
                    await anyio.sleep(self.settings.connect_timeout_s)
                    late = True
                    tasks.cancel_scope.cancel()

            tasks.start_soon(give_up)
            async with (
                self._transport(token) as transport,
                Client(transport, message_handler=heard, cache=None) as client,
            ):
                opening.cancel()
                line = Line(client, self.settings, self._clock)
                lines.append(line)
                tasks.start_soon(line.watch)
                yield line
                tasks.cancel_scope.cancel()
        if late:
            raise UnavailableError(f"no answer in {self.settings.connect_timeout_s:g} s")

    @asynccontextmanager
    async def _transport(
        self, token: str | None
    ) -> AsyncIterator[AbstractAsyncContextManager[Any]]:
        settings = self.settings
        if settings.command is not None:
            parameters = StdioServerParameters(
                command=settings.command,
                args=list(settings.args),
                env={name: _required(name) for name in settings.env},
            )
            # What it writes beside the protocol is nobody's log: it could hold anything.
            with _nowhere() as nowhere:
                yield stdio_client(parameters, errlog=nowhere)
            return
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        timeout = httpx2.Timeout(settings.connect_timeout_s, read=None)  # callers set the deadline
        async with httpx2.AsyncClient(
            headers=headers, timeout=timeout, transport=BoundedTransport(MAX_ANSWER_BYTES)
        ) as http:
            yield streamable_http_client(
                settings.url or "", http_client=http, max_sse_event_size=MAX_ANSWER_BYTES
            )

    def _tell_tried(self) -> None:
        tried, self._tried = self._tried, anyio.Event()
        tried.set()


def words_of(error: BaseException) -> str:
    """What went wrong, in bounded words; of a group the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    said = str(error)
    if not isinstance(error, FactoryError):
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return plant_text(said, SHOWN_CHARS)


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w")


def _required(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise UnavailableError(f"the environment variable {variable} is not set")
    return value
