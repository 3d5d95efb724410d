"""The limit that the grid wants: the tighter of what is in force and what starts soon."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

NOTICE_S: Final = 180.0  # a target that starts within this is planned for now


@dataclass(frozen=True)
class Wish:
    """The site limit that should hold, and where it came from. None lifts it.

    `correlation_id` names the grid's request, where that had a name.
    """

    limit_w: float | None
    starts_at: datetime | None
    correlation_id: str | None

    @property
    def when(self) -> str:
        """From when on, in words."""
        return "now" if self.starts_at is None else f"from {self.starts_at:%H:%M:%S}"


def wish_of(grid: dict[str, Any], now: datetime) -> Wish | None:
    """The limit to prepare for: the tighter of the one in force and one that starts soon.

    None where the grid's wish is unknown: then what holds stays.
    """
    if not grid["known"]:
        return None
    wishes: list[Wish] = []
    if grid.get("limit_w") is not None:
        wishes.append(Wish(grid["limit_w"], None, grid.get("correlation_id")))
    coming = grid.get("next")
    if coming is not None and coming.get("limit_w") is not None:
        starts_at = datetime.fromisoformat(coming["starts_at"])
        if (starts_at - now).total_seconds() <= NOTICE_S:
            wishes.append(Wish(coming["limit_w"], starts_at, coming.get("correlation_id")))
    if not wishes:
        return Wish(None, None, None)
    return min(wishes, key=lambda wish: wish.limit_w or 0.0)
