"""What is known of targets, feeds and breaches: bounded, and safe to use from two threads."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Container, Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

from interlock_servers.flex.models import (
    BreachStatus,
    Deviation,
    Enforcement,
    FeedState,
    LoadTarget,
    NextLimit,
    PowerBreach,
    Reason,
    Rejected,
    RejectedError,
    SiteLimit,
)

MAX_TARGETS: Final = 600  # two days in steps of five minutes
MAX_BREACHES: Final = 200
MAX_ENFORCEMENTS: Final = 200
MAX_KNOWN: Final = 10_000  # ids of requests, so that an old one is not taken for a missed one

T = TypeVar("T")


class _Heard(NamedTuple):
    """A target and its rank: of two for one moment, the one sent later wins, then the later one."""

    rank: tuple[datetime, int]
    target: LoadTarget


class FlexStore:
    """Everything heard and believed, for the feeds of one site."""

    def __init__(self, feeds: Sequence[str]) -> None:
        self._feeds = tuple(feeds)
        self._lock = threading.Lock()
        self._arrivals = 0
        self._targets: list[_Heard] = []  # the one that wins stands last
        self._known: OrderedDict[str, None] = OrderedDict()
        self._states: dict[str, FeedState] = {}
        self._breaches: OrderedDict[str, PowerBreach] = OrderedDict()
        self._enforcements: OrderedDict[str, Enforcement] = OrderedDict()
        self._rejected: dict[Reason, Rejected] = {}
        self._deviations: Counter[Deviation] = Counter()

    # --- writing ---

    def add_targets(self, targets: Sequence[LoadTarget], now: datetime) -> None:
        """Take the targets of one message, all of them or none.

        Raises:
            RejectedError: `UNKNOWN_FEED`, one of them names none of our feeds; `STORE_FULL`.
        """
        for target in targets:
            if not any(target.covers(feed) for feed in self._feeds):
                raise RejectedError(
                    Reason.UNKNOWN_FEED,
                    f"none of {', '.join(target.feed_tags)[:120]} is a feed of this site",
                )
        with self._lock:
            self._keep(targets, now)

    def _keep(self, targets: Sequence[LoadTarget], now: datetime) -> None:
        ids = {target.correlation_id for target in targets} - {None}
        kept = [
            heard
            for heard in self._targets
            if not heard.target.ended(now)
            # the request itself is better than what the agent's state told of it
            and not (heard.target.from_snapshot and heard.target.correlation_id in ids)
        ]
        arrivals = self._arrivals
        for target in targets:
            arrivals += 1
            kept.append(_Heard((target.sent_at, arrivals), target))
        kept.sort(key=lambda heard: heard.rank)
        if len(kept) > MAX_TARGETS:
            kept = _without_replaced(kept, self._feeds)
        if len(kept) > MAX_TARGETS:
            raise RejectedError(
                Reason.STORE_FULL, f"{len(kept)} targets are open; {MAX_TARGETS} is the most"
            )
        self._targets, self._arrivals = kept, arrivals
        for target in targets:
            for name in (target.event_id, target.correlation_id):
                if name is not None:
                    _put(self._known, name, None, MAX_KNOWN)
            if any(tag not in self._feeds for tag in target.feed_tags):
                self._deviations[Deviation.UNKNOWN_FEED] += 1

    def take_snapshot(self, states: Sequence[FeedState], now: datetime) -> bool:
        """Take the agent's state of its feeds; whether it is news of every feed of ours.

        A target in it that we never heard is taken over: it was sent while we were away. A state
        older than the one that we have is ignored.

        Raises:
            RejectedError: `STORE_FULL`.
        """
        with self._lock:
            ours = [state for state in states if state.feed_tag in self._feeds]
            fresh = [state for state in ours if self._is_newer(state)]
            missed = _missed(fresh, self._known, self._feeds, now)
            if missed:
                self._keep(missed, now)
            for state in fresh:
                self._states[state.feed_tag] = state
            if len(ours) != len(states):
                self._deviations[Deviation.UNKNOWN_FEED] += 1
            return len(fresh) == len(self._feeds)

    def _is_newer(self, state: FeedState) -> bool:
        had = self._states.get(state.feed_tag)
        return had is None or state.snapshot_at >= had.snapshot_at

    def add_breach(self, breach: PowerBreach) -> None:
        """Take the newest word on a breach; the one heard longest ago goes when there are many.

        Raises:
            RejectedError: `UNKNOWN_FEED`.
        """
        self._check_feed(breach.feed_tag)
        with self._lock:
            had = self._breaches.get(breach.breach_id)
            if had is None or had.status is not BreachStatus.RESOLVED:  # which is the last word
                _put(self._breaches, breach.breach_id, breach, MAX_BREACHES)

    def add_enforcement(self, enforcement: Enforcement) -> None:
        """Take the newest word on what was enforced for a breach.

        Raises:
            RejectedError: `UNKNOWN_FEED`.
        """
        self._check_feed(enforcement.feed_tag)
        with self._lock:
            _put(self._enforcements, enforcement.breach_id, enforcement, MAX_ENFORCEMENTS)

    def _check_feed(self, feed_tag: str) -> None:
        if feed_tag not in self._feeds:
            raise RejectedError(Reason.UNKNOWN_FEED, f"{feed_tag[:120]} is not a feed of this site")

    def reject(
        self,
        error: RejectedError,
        topic: str,
        source: str | None,
        event_id: str | None,
        at: datetime,
    ) -> None:
        """Count a rejected message and keep it as its reason's example."""
        with self._lock:
            had = self._rejected.get(error.reason)
            self._rejected[error.reason] = Rejected(
                reason=error.reason,
                count=1 if had is None else had.count + 1,
                last_why=error.why,
                last_topic=topic[:200],
                last_source=source,
                last_event_id=event_id,
                last_at=at,
            )

    def note(self, deviations: Iterable[Deviation]) -> None:
        """Count departures from the specification that were accepted."""
        with self._lock:
            self._deviations.update(deviations)

    # --- reading ---

    def targets_in_force(self, moment: datetime) -> dict[str, LoadTarget]:
        """Per feed of ours the target that limits it; a feed without a limit is absent."""
        with self._lock:
            governing = {feed: self._governing(feed, moment) for feed in self._feeds}
        return {
            feed: heard.target
            for feed, heard in governing.items()
            if heard is not None and heard.target.limit_w is not None
        }

    def upcoming(self, moment: datetime) -> tuple[LoadTarget, ...]:
        """The targets that will begin after `moment`, as far as announced, in that order."""
        with self._lock:
            later = [
                heard.target
                for heard in self._targets
                if heard.target.start > moment
                and any(self._governing(f, heard.target.start) is heard for f in self._feeds)
            ]
        return tuple(sorted(later, key=lambda target: target.start))

    def is_open(self, correlation_id: str, moment: datetime) -> bool:
        """Whether a target of this request holds at `moment` or later, and none replaced it."""
        with self._lock:
            return any(
                heard.target.correlation_id == correlation_id and not heard.target.ended(moment)
                for heard in _without_replaced(self._targets, self._feeds)
            )

    def site_limit(self, moment: datetime) -> SiteLimit:
        """The limit on the whole site at `moment`, and how it will change as far as announced."""
        with self._lock:
            limit_w, newest = self._limit_at(moment)
            until: datetime | None = None
            upcoming: NextLimit | None = None
            for turn in self._turns_after(moment):
                then_w, then = self._limit_at(turn)
                if then_w == limit_w:
                    continue
                until = until or turn
                if then_w is not None:
                    upcoming = NextLimit(
                        limit_w=then_w,
                        start=turn,
                        correlation_id=then.correlation_id if then else None,
                    )
                    break
            return SiteLimit(
                limit_w=limit_w,
                until=until if limit_w is not None else None,
                source=newest.source if newest else None,
                correlation_id=newest.correlation_id if newest else None,
                upcoming=upcoming,
                feed_limits_w={feed: self._own_limit_w(feed, moment) for feed in self._feeds},
            )

    def feed_states(self) -> dict[str, FeedState]:
        """The agent's last word on each feed of ours."""
        with self._lock:
            return dict(self._states)

    def breaches(self) -> tuple[PowerBreach, ...]:
        """The last word on each breach, the one detected last first."""
        with self._lock:
            heard = list(self._breaches.values())
        return tuple(sorted(heard, key=lambda breach: breach.detected_at, reverse=True))

    def enforcements(self) -> tuple[Enforcement, ...]:
        """The last word on what was enforced for each breach, newest first."""
        with self._lock:
            return tuple(reversed(self._enforcements.values()))

    def rejected(self) -> dict[Reason, Rejected]:
        """What was rejected, by reason."""
        with self._lock:
            return dict(self._rejected)

    def deviations(self) -> dict[Deviation, int]:
        """How often each departure from the specification was accepted."""
        with self._lock:
            return dict(self._deviations)

    # --- under the lock ---

    def _governing(self, feed: str, moment: datetime) -> _Heard | None:
        for heard in reversed(self._targets):
            if heard.target.covers(feed) and heard.target.holds_at(moment):
                return heard
        return None

    def _own_limit_w(self, feed: str, moment: datetime) -> float | None:
        heard = self._governing(feed, moment)
        return None if heard is None or heard.target.all_feeds else heard.target.limit_w

    def _limit_at(self, moment: datetime) -> tuple[float | None, LoadTarget | None]:
        """The site's limit and the newest target behind it.

        A target for all feeds is read as one limit on their sum, the stricter of two readings; it
        stays that as long as any feed is under it.
        """
        governing = [self._governing(feed, moment) for feed in self._feeds]
        heard = [each for each in governing if each is not None]
        if not heard:
            return None, None
        newest = max(heard, key=lambda each: each.rank).target
        shared = [each.target.limit_w for each in heard if each.target.all_feeds]
        if shared:
            return shared[0], None if shared[0] is None else newest
        limits_w = [each.target.limit_w for each in heard if each.target.limit_w is not None]
        if len(limits_w) < len(self._feeds):
            return None, None
        return sum(limits_w), newest

    def _turns_after(self, moment: datetime) -> list[datetime]:
        targets = [heard.target for heard in self._targets]
        turns = {target.start for target in targets} | {t.end for t in targets if t.end is not None}
        return sorted(turn for turn in turns if turn > moment)


def _missed(
    states: Iterable[FeedState], known: Container[str], feeds: Sequence[str], now: datetime
) -> list[LoadTarget]:
    """The targets in the agent's state that we never heard, as far as they are not over.

    The state lists a target under each of its feeds. One that stands under every feed of the site
    may have been one for all feeds, so it is read as that.
    """
    found: dict[tuple[str, float, datetime | None, datetime | None], list[LoadTarget]] = {}
    for state in states:
        for target in state.targets:
            if target.correlation_id in known or (target.end is not None and target.end <= now):
                continue
            key = (target.correlation_id, target.limit_w, target.start, target.end)
            found.setdefault(key, []).append(
                LoadTarget(
                    limit_w=target.limit_w,
                    start=target.start or state.snapshot_at,
                    end=target.end,
                    feed_tags=(state.feed_tag,),
                    all_feeds=False,
                    best_effort=target.best_effort,
                    correlation_id=target.correlation_id,
                    source=state.source,
                    event_id=target.correlation_id,
                    sent_at=min(state.snapshot_at, state.received_at),
                    received_at=state.received_at,
                    from_snapshot=True,
                )
            )
    missed: list[LoadTarget] = []
    for targets in found.values():
        if {target.feed_tags[0] for target in targets} == set(feeds):
            targets = [targets[0].model_copy(update={"feed_tags": (), "all_feeds": True})]
        missed.extend(targets)
    return missed


def _without_replaced(ranked: list[_Heard], feeds: Sequence[str]) -> list[_Heard]:
    """Those that still govern some feed at some time: not covered whole by a single later one."""
    return [
        heard
        for place, heard in enumerate(ranked)
        if not any(_replaces(later.target, heard.target, feeds) for later in ranked[place + 1 :])
    ]


def _replaces(later: LoadTarget, earlier: LoadTarget, feeds: Sequence[str]) -> bool:
    lasts = later.end is None or (earlier.end is not None and earlier.end <= later.end)
    begins = later.start <= earlier.start
    return lasts and begins and all(later.covers(f) for f in feeds if earlier.covers(f))


def _put(kept: OrderedDict[str, T], name: str, value: T, most: int) -> None:
    kept[name] = value
    kept.move_to_end(name)
    while len(kept) > most:
        kept.popitem(last=False)
