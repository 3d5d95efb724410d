"""What a load target of ours would do to the feeds as they stand: a pure look at the facts.

Everything that makes one impossible is refused here, by name, before anything is sent.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from interlock_servers.flex.envelope import parse_moment
from interlock_servers.flex.models import Reason, RejectedError
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.errors import InvalidRequestError


class Standing(NamedTuple):
    """A target that stands now, or is announced."""

    correlation_id: str | None
    source: str
    ours: bool
    limit_w: float
    start: datetime
    end: datetime | None
    all_feeds: bool
    feeds: tuple[str, ...]

    def meets(self, start: datetime, end: datetime | None) -> bool:
        """Whether both hold at some moment."""
        begins_before = end is None or self.start < end
        return begins_before and (self.end is None or start < self.end)


class Feeds:
    """The feeds of the site, as the fact `grid.feeds` has them."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        self._feeds: Mapping[str, Mapping[str, float]] = value["feeds"]
        self.standing = tuple(
            Standing(
                one["correlation_id"],
                one["source"],
                one["ours"],
                one["limit_w"],
                datetime.fromisoformat(one["start"]),
                None if one["end"] is None else datetime.fromisoformat(one["end"]),
                one["all_feeds"],
                tuple(one["feeds"]),
            )
            for one in value["targets"]
        )

    def named(self, feed_tags: Sequence[str]) -> tuple[str, ...]:
        """These feeds; all of the site where none is named.

        Raises:
            InvalidRequestError: the site has no such feed.
        """
        for feed in feed_tags:
            if feed not in self._feeds:
                raise InvalidRequestError(
                    f"feed_tags: {feed!r} is no feed of this site; list_feeds shows them"
                )
        return tuple(dict.fromkeys(feed_tags)) or tuple(self._feeds)

    def check_range(self, limit_w: float, feed_tags: Sequence[str]) -> None:
        """What a feed can be asked for lies between its own minimum and maximum.

        Raises:
            InvalidRequestError: this does not, of a feed or, where none is named, of their sum.
        """
        known = [(feed, self._feeds[feed]) for feed in self.named(feed_tags)]
        ranges = [(feed, of["minimum_w"], of["maximum_w"]) for feed, of in known]
        if not feed_tags:
            least, most = (sum(column) for column in zip(*(row[1:] for row in ranges), strict=True))
            ranges = [("all feeds together", least, most)]
        for name, least_w, most_w in ranges:
            if limit_w < least_w:
                raise InvalidRequestError(
                    f"limit_w: {limit_w:g} is below the power_minimum of {name}, {least_w:g} W"
                )
            if limit_w > most_w:
                raise InvalidRequestError(
                    f"limit_w: {limit_w:g} is above the power_maximum of {name}, {most_w:g} W"
                )

    def check_nobody_else(
        self, feeds: Sequence[str], start: datetime, end: datetime | None
    ) -> None:
        """No other ISV limits these feeds meanwhile: the agent would let the later word win.

        Raises:
            InvalidRequestError: one does; names it.
        """
        for one in self.standing:
            if not one.ours and one.meets(start, end) and set(one.feeds) & set(feeds):
                until = "for ever" if one.end is None else f"until {one.end.isoformat()}"
                raise InvalidRequestError(
                    f"contradiction: {one.source} limits {', '.join(one.feeds)} to "
                    f"{one.limit_w:g} W from {one.start.isoformat()} {until} "
                    f"({one.correlation_id}); a later target would lift that"
                )

    def mine(self, correlation_id: str) -> Standing:
        """The target of ours that has this id.

        Raises:
            InvalidRequestError: none stands, or it is another's.
        """
        found = next((one for one in self.standing if one.correlation_id == correlation_id), None)
        if found is None:
            raise InvalidRequestError(
                f"correlation_id: no target {correlation_id!r} stands; list_load_targets shows them"
            )
        if not found.ours:
            raise InvalidRequestError(
                f"correlation_id: {correlation_id} is a target of {found.source}, not of ours"
            )
        return found

    def allowed_w(
        self, feeds: Sequence[str], moment: datetime, without: str | None = None
    ) -> float:
        """What these feeds may draw then: by the targets that stand, else by their defaults."""
        holding = [
            one
            for one in self.standing
            if one.correlation_id != without
            and one.start <= moment
            and (one.end is None or moment < one.end)
        ]
        total_w = 0.0
        for feed in feeds:
            own = [one.limit_w for one in holding if not one.all_feeds and feed in one.feeds]
            total_w += min([self._feeds[feed]["default_w"], *own])
        shared = [one.limit_w for one in holding if one.all_feeds]
        return min([total_w, *shared])


def reach_of(
    feeds: Sequence[str], before_w: float, after_w: float, *, all_feeds: bool, open_ended: bool
) -> BlastRadius:
    """The feeds and the watts; a target limits feeds, and who obeys how is the site's own change.

    So it reserves no host: the caps that follow it would otherwise have to wait for it, and it for
    them.
    """
    return BlastRadius(
        power_domains=frozenset(feeds),
        watts_moved=math.ceil(abs(after_w - before_w)),
        power_rise_w=math.ceil(max(0.0, after_w - before_w)),
        all_feeds=all_feeds,
        open_ended=open_ended,
    )


def moment_of(text: str, name: str) -> datetime:
    """A moment in an argument.

    Raises:
        InvalidRequestError: it is none, or says no time zone.
    """
    try:
        return parse_moment(text, name, Reason.BAD_INTERVAL)
    except RejectedError as error:
        raise InvalidRequestError(error.why) from None
