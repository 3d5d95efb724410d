"""After a restart: the change that the agent proposed before it and that has not ended.

Its reasons end with what they are for, so that it knows its own, and people see it too.
"""

import re
from typing import Any, Final, NamedTuple

from interlock_agents.connection import Servers
from interlock_tools.change import ENDED

OPERATIONS: Final = frozenset({"maxlps.set_caps", "maxlps.release_caps"})
LATEST: Final = 50  # of a page
MOST_PAGES: Final = 10  # an approval expires long before so many changes have come after it
_TAG = re.compile(r" \[(grid [0-9.e+]+|restore|(?:breaker|leak|heat) [^\]]+)\]$")


class Own(NamedTuple):
    """A change of before: what it is for, and how `get_change` shows it."""

    purpose: str
    seen: dict[str, Any]


def tagged(reason: str, purpose: str, most_chars: int) -> str:
    """The reason, cut where it is too long, with what it is for at its end."""
    tag = f" [{purpose}]"
    room = most_chars - len(tag)
    return (reason if len(reason) <= room else reason[: room - 1] + "…") + tag


def purpose_in(reason: str) -> str | None:
    """What a reason of ours is for; None of a reason that is not."""
    found = _TAG.search(reason)
    return None if found is None else found[1]


async def own_open(servers: Servers) -> Own | None:
    """The newest change of the agent's that has not ended; None where there is none.

    Raises:
        ComponentError: the list is not to be had.
    """
    pages = 0
    async for page in servers.pages("maxlps", "list_changes", limit=LATEST):
        for row in page["changes"]:
            if row["state"] in ENDED or row.get("operation") not in OPERATIONS:
                continue
            seen = await servers.call("maxlps", "get_change", change_id=row["change_id"])
            purpose = purpose_in(seen["reason"])
            if purpose is not None and not seen["ended"]:
                return Own(purpose, seen)
        pages += 1
        if pages == MOST_PAGES:
            break
    return None
