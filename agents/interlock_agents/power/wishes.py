"""The limit that the grid wants: the tighter of what is in force and what starts soon."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any, Final

NOTICE_S: Final = 180.0  # a target, or the ramp to it, that starts within this is planned for now
SAME_S: Final = 1.0


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


def wish_of(grid: dict[str, Any], now: datetime, begins_at: datetime | None = None) -> Wish | None:
    """The limit to prepare for: the tighter of the one in force and one that starts soon.

    None where the grid's wish is unknown: then what holds stays.

    Args:
        grid: what `grid_limit` answers.
        now: the moment.
        begins_at: when the ramp towards the next limit begins; None: there is none.
    """
    if not grid["known"]:
        return None
    wishes: list[Wish] = []
    if grid.get("limit_w") is not None:
        wishes.append(Wish(grid["limit_w"], None, grid.get("correlation_id")))
    coming = grid.get("next")
    if coming is not None and coming.get("limit_w") is not None:
        starts_at = datetime.fromisoformat(coming["starts_at"])
        if ((begins_at or starts_at) - now).total_seconds() <= NOTICE_S:
            wishes.append(Wish(coming["limit_w"], starts_at, coming.get("correlation_id")))
    if not wishes:
        return Wish(None, None, None)
    return min(wishes, key=lambda wish: wish.limit_w or 0.0)


def ramp_begins_at(steps: Sequence[dict[str, Any]], starts_at: datetime) -> datetime | None:
    """When the site's ramp that ends at `starts_at` begins; None where it goes down in one step.

    Args:
        steps: what `grid_schedule` answers, in order.
        starts_at: of the limit that the ramp leads to.
    """

    def leads(step: dict[str, Any]) -> bool:
        return step.get("kind") == "ramp_down"

    before = [s for s in steps if _seconds(s["starts_at"], starts_at) < -SAME_S]
    ramp = list(takewhile(leads, reversed(before)))
    if not ramp or abs(_seconds(ramp[0]["ends_at"], starts_at)) > SAME_S:
        return None
    return datetime.fromisoformat(ramp[-1]["starts_at"])


def _seconds(moment: str, after: datetime) -> float:
    return (datetime.fromisoformat(moment) - after).total_seconds()
