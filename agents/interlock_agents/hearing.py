"""When to look: at once where a resource tells that it moved, else after a while."""

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from interlock_agents.connection import Servers
from interlock_agents.notes import Notebook
from interlock_tools.clock import Clock
from interlock_tools.errors import ComponentError

LISTEN_AGAIN_S: Final = 5.0  # after a subscription was lost


class Ear:
    """Listens to one resource for a loop that looks anyway."""

    def __init__(self, servers: Servers, clock: Clock, notes: Notebook) -> None:
        self._servers, self._clock, self._notes = servers, clock, notes
        self._moved = anyio.Event()

    async def keep_looking(
        self,
        look: Callable[[], Awaitable[None]],
        component: str,
        uri: str,
        *,
        every_s: float,
        about: str | None = None,
    ) -> None:
        """Look when the resource tells that it moved, and `every_s` whatever is told, without end.

        A server that fails is told `about` by a note, and is looked at again later.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.listen, component, uri)
            while True:
                try:
                    await look()
                except ComponentError as error:
                    self._notes.note("trouble", str(error), about=about)
                await self.wait(every_s)

    async def listen(self, component: str, uri: str) -> None:
        """Hear of the resource, without end; where that is not possible, the looks have to do."""
        while True:
            try:
                await self._servers.listen(component, uri, lambda: self._moved.set())
            except ComponentError as error:
                self._notes.note("trouble", f"looks instead of listening: {error}", about=uri)
            await self._clock.sleep(LISTEN_AGAIN_S)

    async def wait(self, at_most_s: float) -> None:
        """Until it moved since the last wait, or so long has passed."""
        async with anyio.create_task_group() as either:

            async def look_anyway() -> None:
                await self._clock.sleep(at_most_s)
                either.cancel_scope.cancel()

            either.start_soon(look_anyway)
            await self._moved.wait()
            either.cancel_scope.cancel()
        self._moved = anyio.Event()
