"""After a restart: the change that the agent proposed before it and that has not ended."""

import re
from contextlib import aclosing
from typing import Final

from interlock_agents.connection import Servers
from interlock_agents.own_changes import Own, open_changes, tag_of

OPERATIONS: Final = frozenset({"maxlps.set_caps", "maxlps.release_caps"})
_PURPOSE = re.compile(r"grid [0-9.e+]+|restore|(?:breaker|leak|heat) .+")


def purpose_in(reason: str) -> str | None:
    """What a reason of ours is for; None of a reason that is not."""
    purpose = tag_of(reason)
    return purpose if purpose is not None and _PURPOSE.fullmatch(purpose) else None


async def own_open(servers: Servers) -> Own | None:
    """The newest change of the agent's that has not ended; None where there is none.

    Raises:
        ComponentError: the list is not to be had.
    """
    async with aclosing(open_changes(servers, "maxlps", OPERATIONS)) as found:
        async for seen in found:
            purpose = purpose_in(seen["reason"])
            if purpose is not None:
                return Own(purpose, seen)
    return None
