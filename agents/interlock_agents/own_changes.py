"""An agent's own changes: their reasons end with what they are for, and are found again by that.

So an agent that was restarted knows its own, and people see what each is for.
"""

import re
from collections.abc import AsyncGenerator, Collection
from typing import Any, Final, NamedTuple

from interlock_agents.connection import Servers
from interlock_tools.change import ENDED

LATEST: Final = 50  # of a page
MOST_PAGES: Final = 10  # an approval expires long before so many changes have come after it
MOST_CHARS: Final = 500  # of a reason
_TAG = re.compile(r" \[([^\[\]]+)\]$")


class Own(NamedTuple):
    """A change of before: what it is for, and how `get_change` shows it."""

    purpose: str
    seen: dict[str, Any]


def tagged(reason: str, purpose: str, most_chars: int = MOST_CHARS) -> str:
    """The reason, cut where it is too long, with what it is for at its end."""
    tag = f" [{purpose}]"
    room = most_chars - len(tag)
    return (reason if len(reason) <= room else reason[: room - 1] + "…") + tag


def tag_of(reason: str) -> str | None:
    """What stands in brackets at the end of a reason; None where nothing does."""
    found = _TAG.search(reason)
    return None if found is None else found[1]


async def open_changes(
    servers: Servers, component: str, operations: Collection[str]
) -> AsyncGenerator[dict[str, Any], None]:
    """Each change of these operations that has not ended, newest first, as `get_change` shows it.

    Raises:
        ComponentError: the list is not to be had.
    """
    pages = 0
    async for page in servers.pages(component, "list_changes", limit=LATEST):
        for row in page["changes"]:
            if row["state"] in ENDED or row.get("operation") not in operations:
                continue
            seen = await servers.call(component, "get_change", change_id=row["change_id"])
            if not seen["ended"]:
                yield seen
        pages += 1
        if pages == MOST_PAGES:
            return
