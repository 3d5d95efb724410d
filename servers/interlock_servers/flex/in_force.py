"""Which targets hold at a moment, and what the site may then draw; pure functions.

Of one source the target that was sent later holds. What two sources ask for at once both holds, so
the stricter counts: neither may lift what the other has set.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from interlock_servers.flex.models import LoadTarget

BUS: Final = "//grid/v1/"  # how every source on it begins, and no other signal's


class Held(NamedTuple):
    """What holds at one moment.

    Attributes:
        limit_w: of the whole site; None where at least one feed is free.
        behind: the targets that make it, in rank.
        feed_limits_w: the strictest limit that names each feed alone; None where there is none.
        by_feed: per feed the target of each source that covers it, in rank.
    """

    limit_w: float | None
    behind: tuple[LoadTarget, ...]
    feed_limits_w: Mapping[str, float | None]
    by_feed: Mapping[str, tuple[LoadTarget, ...]]

    @property
    def newest(self) -> LoadTarget | None:
        """The newest target behind the limit."""
        return self.behind[-1] if self.behind else None


def of_each_source(
    ranked: Sequence[LoadTarget], feed: str, moment: datetime
) -> tuple[LoadTarget, ...]:
    """Per source the target that holds for `feed`; in `ranked` the one that wins stands later.

    What the agent's state told of was some ISV's: it stands in for any on the bus, and gives way
    to any there.
    """
    found: list[LoadTarget] = []
    for target in reversed(ranked):
        if not (target.covers(feed) and target.holds_at(moment)):
            continue
        if not any(supersedes(later, target) for later in found):
            found.append(target)
    return tuple(reversed(found))


def supersedes(later: LoadTarget, earlier: LoadTarget) -> bool:
    """Whether a target that ranks later takes the place of an earlier one where both hold."""
    if later.source == earlier.source:
        return True
    on_the_bus = all(target.source.startswith(BUS) for target in (later, earlier))
    return on_the_bus and (later.from_snapshot or earlier.from_snapshot)


def strictest(targets: Iterable[LoadTarget]) -> LoadTarget | None:
    """The one with the lowest limit, the newest of equals; None where none of them limits."""
    limiting = [target for target in targets if target.limit_w is not None]
    return min(reversed(limiting), key=_limit_w, default=None)


def held_at(ranked: Sequence[LoadTarget], feeds: Sequence[str], moment: datetime) -> Held:
    """What holds at `moment` for the feeds of a site, which are all of its feeds.

    A target for all feeds is read as one limit on their sum, the stricter of two readings; it
    stays that as long as any feed is under it.
    """
    by_feed = {feed: of_each_source(ranked, feed, moment) for feed in feeds}
    own = {
        feed: strictest(target for target in targets if not target.all_feeds)
        for feed, targets in by_feed.items()
    }
    shared = strictest(
        target
        for target in ranked
        if target.all_feeds and any(_among(target, targets) for targets in by_feed.values())
    )
    named = [target for target in own.values() if target is not None]
    named_w = sum(map(_limit_w, named)) if len(named) == len(by_feed) else math.inf
    shared_w = math.inf if shared is None else _limit_w(shared)
    limit_w = min(named_w, shared_w)
    behind = [shared] if shared is not None and shared_w <= named_w else named
    return Held(
        limit_w=None if math.isinf(limit_w) else limit_w,
        behind=() if math.isinf(limit_w) else tuple(t for t in ranked if _among(t, behind)),
        feed_limits_w={feed: None if t is None else t.limit_w for feed, t in own.items()},
        by_feed=by_feed,
    )


def turns_after(targets: Iterable[LoadTarget], moment: datetime) -> list[datetime]:
    """The moments after `moment` at which any of them begins or ends, in order."""
    listed = list(targets)
    turns = {target.start for target in listed} | {t.end for t in listed if t.end is not None}
    return sorted(turn for turn in turns if turn > moment)


def without_replaced(ranked: Sequence[LoadTarget], feeds: Sequence[str]) -> list[LoadTarget]:
    """Those that still hold for some feed at some time: not covered whole by a single later one."""
    return [
        target
        for place, target in enumerate(ranked)
        if not any(_replaces(later, target, feeds) for later in ranked[place + 1 :])
    ]


def _replaces(later: LoadTarget, earlier: LoadTarget, feeds: Sequence[str]) -> bool:
    lasts = later.end is None or (earlier.end is not None and earlier.end <= later.end)
    whole = lasts and later.start <= earlier.start
    covers = all(later.covers(feed) for feed in feeds if earlier.covers(feed))
    return whole and covers and supersedes(later, earlier)


def _limit_w(target: LoadTarget) -> float:
    return math.inf if target.limit_w is None else target.limit_w


def _among(target: LoadTarget, targets: Iterable[LoadTarget]) -> bool:
    return any(target is each for each in targets)
