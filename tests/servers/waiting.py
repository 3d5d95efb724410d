"""Waiting for a condition, bounded; never for a length of time."""

from collections.abc import Callable

import anyio

PATIENCE_S = 15.0


async def until(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Return as soon as `condition` is true.

    Raises:
        TimeoutError: it was not in time.
    """
    with anyio.fail_after(patience_s):
        while not condition():  # noqa: ASYNC110 (the network's thread sets no event)
            await anyio.sleep(0.01)
