"""A client that waits for resources, in either era, over the valve's server."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
from mcp import Client
from mcp.server import MCPServer
from mcp.server.subscriptions import ResourceUpdated
from mcp.types import ResourceUpdatedNotification

from interlock_guardrails.engine import create_store_engine, create_tables
from interlock_servers.offer import Face
from interlock_tools.identity import Principal
from tests.guardrails.conftest import House, Keys, house_on
from tests.guardrails.valve import MoveValve

PATIENCE_S = 20.0


def valve_face(house: House, who: Principal) -> Face:
    """The face of the one valve."""
    face = Face("valve", guard=house.guard, who=lambda: who, instructions="A valve.")
    face.propose(MoveValve(house.valve))
    return face


class Heard:
    """What a client was told, in order."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.uris: list[str] = []

    async def until(self, count: int) -> list[str]:
        """Let the clock run until so many were told, bounded in real time."""

        async def told() -> bool:
            return len(self.uris) >= count

        await self._house.until(told)
        return self.uris

    async def seconds(self, count: int) -> None:
        """Let so many seconds pass, and everybody do what they do in them."""
        for _ in range(count):
            self._house.clock.advance(1.0)
            await anyio.wait_all_tasks_blocked()


@asynccontextmanager
async def waiting(
    server: MCPServer[Any], house: House, mode: Any, uris: Sequence[str]
) -> AsyncIterator[tuple[Client, Heard]]:
    """A client that is told of these: by a stream of today, or by the subscriptions of 2025."""
    heard = Heard(house)

    async def notified(message: object) -> None:
        if mode == "legacy" and isinstance(message, ResourceUpdatedNotification):
            heard.uris.append(str(message.params.uri))

    async with Client(server, mode=mode, message_handler=notified) as client:
        if mode == "legacy":
            for uri in uris:
                await client.session.subscribe_resource(uri)
            yield client, heard
            return
        async with (
            client.listen(resource_subscriptions=list(uris)) as stream,
            anyio.create_task_group() as tasks,
        ):

            async def follow() -> None:
                with suppress(anyio.ClosedResourceError):
                    async for event in stream:
                        if isinstance(event, ResourceUpdated):
                            heard.uris.append(event.uri)

            tasks.start_soon(follow)
            yield client, heard
            tasks.cancel_scope.cancel()


@contextmanager
def two_replicas(folder: Path) -> Iterator[tuple[House, House]]:
    """Two houses on one store, each with an engine of its own, as two processes have."""
    url, keys = f"sqlite:///{folder / 'store.db'}", Keys.generate()
    ours, theirs = create_store_engine(url), create_store_engine(url)
    create_tables(ours)
    try:
        with (
            house_on(ours, keys=keys) as first,
            house_on(theirs, valve=first.valve, keys=keys) as second,
        ):
            yield first, second
    finally:
        ours.dispose()
        theirs.dispose()
