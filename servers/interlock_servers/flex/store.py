"""What is known of targets, feeds and breaches: bounded, and safe to use from two threads."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

from interlock_servers.flex.in_force import (
    held_at,
    of_each_source,
    strictest,
    turns_after,
    without_replaced,
)
from interlock_servers.flex.models import (
    BreachStatus,
    Deviation,
    Enforcement,
    FeedEvent,
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

K = TypeVar("K")
T = TypeVar("T")
Others = Callable[[datetime], Sequence[LoadTarget]]


class _Heard(NamedTuple):
    """A target and its rank: of two for one moment, the one sent later wins, then the later one."""

    rank: tuple[datetime, int]
    target: LoadTarget


class FlexStore:
    """Everything heard and believed, for the feeds of one site."""

    def __init__(self, feeds: Sequence[str], others: Others = lambda moment: ()) -> None:
        """Keep what is heard; `others` gives the targets of signals that are not the bus."""
        self._feeds = tuple(feeds)
        self._others = others
        self._lock = threading.Lock()
        self._arrivals = 0
        self._targets: list[_Heard] = []  # the one that wins stands last
        self._known: OrderedDict[str, None] = OrderedDict()
        self._states: dict[str, FeedState] = {}
        self._set_at: dict[str, datetime] = {}
        self._echoes: OrderedDict[tuple[str, str], None] = OrderedDict()
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
            still = without_replaced([heard.target for heard in kept], self._feeds)
            kept = [heard for heard in kept if any(heard.target is one for one in still)]
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
                self._note_echo(state)
            if len(ours) != len(states):
                self._deviations[Deviation.UNKNOWN_FEED] += 1
            return len(fresh) == len(self._feeds)

    def _note_echo(self, state: FeedState) -> None:
        """The next heartbeat stands in its place, so that it was said is kept apart."""
        if state.event is FeedEvent.TARGET_SET:
            self._set_at[state.feed_tag] = state.received_at
            for target in state.targets:
                _put(self._echoes, (target.correlation_id, state.feed_tag), None, MAX_KNOWN)

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

    def targets(self, moment: datetime) -> tuple[LoadTarget, ...]:
        """Every target that holds at `moment` or later; of one source the later ranks higher."""
        with self._lock:
            heard = [one.target for one in self._targets if not one.target.ended(moment)]
        return (*heard, *self._others(moment))

    def targets_in_force(self, moment: datetime) -> dict[str, LoadTarget]:
        """Per feed of ours the strictest target; a feed without a limit is absent."""
        ranked = self.targets(moment)
        found = {f: strictest(of_each_source(ranked, f, moment)) for f in self._feeds}
        return {feed: target for feed, target in found.items() if target is not None}

    def upcoming(self, moment: datetime) -> tuple[LoadTarget, ...]:
        """The targets that will begin after `moment`, as far as announced, in that order."""
        ranked = self.targets(moment)
        later = [
            target
            for target in ranked
            if target.start > moment
            and any(
                target is holding
                for feed in self._feeds
                for holding in of_each_source(ranked, feed, target.start)
            )
        ]
        return tuple(sorted(later, key=lambda target: target.start))

    def open_targets(self, correlation_id: str, moment: datetime) -> tuple[LoadTarget, ...]:
        """The targets of this request that hold at `moment` or later and were not replaced."""
        return tuple(
            target
            for target in without_replaced(self.targets(moment), self._feeds)
            if target.correlation_id == correlation_id
        )

    def site_limit(self, moment: datetime) -> SiteLimit:
        """The limit on the whole site at `moment`, and how it will change as far as announced."""
        ranked = self.targets(moment)
        now = held_at(ranked, self._feeds, moment)
        until: datetime | None = None
        upcoming: NextLimit | None = None
        for turn in turns_after(ranked, moment):
            then = held_at(ranked, self._feeds, turn)
            if then.limit_w == now.limit_w:
                continue
            until = until or turn
            if then.limit_w is not None:
                upcoming = NextLimit(
                    limit_w=then.limit_w,
                    start=turn,
                    correlation_id=then.newest.correlation_id if then.newest else None,
                )
                break
        return SiteLimit(
            limit_w=now.limit_w,
            until=until if now.limit_w is not None else None,
            source=now.newest.source if now.newest else None,
            correlation_id=now.newest.correlation_id if now.newest else None,
            upcoming=upcoming,
            feed_limits_w=dict(now.feed_limits_w),
        )

    def feed_states(self) -> dict[str, FeedState]:
        """The agent's last word on each feed of ours."""
        with self._lock:
            return dict(self._states)

    def target_set_at(self) -> dict[str, datetime]:
        """Per feed when the agent last said that a target was set."""
        with self._lock:
            return dict(self._set_at)

    def echoes(self, correlation_id: str) -> set[str]:
        """The feeds of which the agent said `target_set` with this request among its targets."""
        with self._lock:
            return {feed for feed in self._feeds if (correlation_id, feed) in self._echoes}

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


def _put(kept: OrderedDict[K, T], name: K, value: T, most: int) -> None:
    kept[name] = value
    kept.move_to_end(name)
    while len(kept) > most:
        kept.popitem(last=False)
