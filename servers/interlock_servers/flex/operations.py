"""What Interlock may ask of the feeds as an ISV: a load target, and that one of its own ends.

Whether it holds is asked of the agent's word and of the facility's meter.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from interlock_servers.flex.asked_of import Feeds, moment_of, reach_of
from interlock_servers.flex.publishing import iso
from interlock_servers.flex.sending import (
    AGENT,
    COMPLIES_WITHIN,
    METER_TOLERANCE,
    METERS,
    MOST_NOTICE,
    SendTarget,
    Wires,
)
from interlock_servers.flex.sending_facts import GRID_FEEDS
from interlock_servers.flex.sent import SETS, Mine
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.canonical import digest
from interlock_tools.errors import InvalidRequestError, UnavailableError
from interlock_tools.fact import FactSet
from interlock_tools.identity import Target
from interlock_tools.operation import Arguments, Happened, Held, Verdict

FeedTag = Annotated[str, Field(min_length=1, max_length=200)]
Moment = Annotated[str | None, Field(max_length=40, description="ISO 8601 with a zone")]


class SetArguments(Arguments):
    """Which feeds, how many watts, from when until when."""

    limit_w: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="of each named feed, or of their sum")
    ]
    feed_tags: Annotated[list[FeedTag] | None, Field(min_length=1, max_length=1000)] = None
    all_feeds: Annotated[bool, Field(description="instead of feed_tags; asks more people")] = False
    starts_at: Moment = None
    ends_at: Moment = None
    for_ever: Annotated[bool, Field(description="instead of ends_at; asks more people")] = False
    best_effort: bool = False

    @property
    def named(self) -> tuple[str, ...]:
        """The feeds that it names, each once; none where all are meant."""
        return tuple(dict.fromkeys(self.feed_tags or ()))

    @model_validator(mode="after")
    def _says_what_it_means(self) -> Self:
        """What is left out must be left out on purpose."""
        if (self.feed_tags is not None) is self.all_feeds:
            raise ValueError("name feed_tags, or set all_feeds, not both and not neither")
        if (self.ends_at is not None) is self.for_ever:
            raise ValueError("give ends_at, or set for_ever, not both and not neither")
        return self


class ClearArguments(Arguments):
    """Which target of ours."""

    correlation_id: Annotated[str, Field(min_length=36, max_length=36)]


class SetLoadTarget(SendTarget[SetArguments]):
    """Limit the watts of feeds for a time, as a grid ISV: everything on them must fit below.

    First list_feeds (flex) for their range. It ends by itself at ends_at; watch it with get_change.
    """

    name = SETS
    arguments = SetArguments

    def target(self, arguments: SetArguments) -> Target:
        """These feeds: of two targets for the same ones only one is under way."""
        named = digest({"feeds": sorted(arguments.named)})[:16]
        return Target(kind="load_target", id="all" if arguments.all_feeds else named)

    def feeds(self, arguments: SetArguments) -> tuple[str, ...]:
        """As they are named."""
        return arguments.named or self._wires.client.settings.feeds

    def blast_radius(self, arguments: SetArguments, facts: FactSet) -> BlastRadius:
        """The feeds and the watts; refused where it could never be, or contradicts another ISV."""
        now, picture = self._wires.clock.now(), Feeds(facts.value(GRID_FEEDS, self._site))
        feeds = picture.named(arguments.named)
        start, end = self._span(arguments, now)
        picture.check_range(arguments.limit_w, arguments.named)
        picture.check_nobody_else(feeds, start, end)
        after_w = arguments.limit_w * (1 if arguments.all_feeds else len(feeds))
        return reach_of(
            feeds,
            picture.allowed_w(feeds, start),
            after_w,
            all_feeds=arguments.all_feeds,
            open_ended=arguments.for_ever,
        )

    def entry(self, arguments: SetArguments) -> dict[str, Any]:
        """With an explicit start, and with feeds and an end unless people agreed otherwise."""
        start, end = self._span(arguments, self._wires.clock.now())
        return _entry(
            start, end, arguments.limit_w, arguments.named, best_effort=arguments.best_effort
        )

    def is_echoed(self, arguments: SetArguments, correlation_id: str, since: datetime) -> bool:
        """A `target_set` of every feed that lists our id."""
        return self._wires.client.echoed(correlation_id, self.feeds(arguments))

    def happened(self, arguments: SetArguments, mine: Mine) -> Happened:
        """Listed on every feed, on some, or on none though the agent has spoken since."""
        feeds = self.feeds(arguments)
        listed = self.listing(feeds, mine.correlation_id)
        if listed:
            return Happened.YES if len(listed) == len(feeds) else Happened.PARTLY
        heard = self.spoke_after(feeds, self.echo_is_due(mine))
        return Happened.NO if heard else Happened.UNKNOWN

    async def verify(self, arguments: SetArguments, before: FactSet, since: datetime) -> Verdict:
        """Once it has begun: the agent lists it and complies, and the meter agrees.

        The agent's load is calculated, so its word alone is never enough.
        """
        mine = await self._wires.sent.under_way(self, arguments)
        now, feeds = self._wires.clock.now(), self.feeds(arguments)
        begins = since
        if arguments.starts_at is not None:
            begins = max(since, moment_of(arguments.starts_at, "starts_at"))
        if mine is None or now < begins:
            seen = {"begins_at": iso(begins), "correlation_id": mine and mine.correlation_id}
            return Verdict(held=Held.NOT_YET, source=AGENT, evidence=seen)
        wrong = await self._wrong(arguments, mine, feeds, begins)
        if not wrong:
            evidence = {"correlation_id": mine.correlation_id, "feeds": list(feeds)}
            return Verdict(held=Held.YES, source=METERS, evidence=evidence)
        over = now > begins + COMPLIES_WITHIN or wrong.get("gone") is not None
        held = Held.NO if over else Held.NOT_YET
        return Verdict(
            held=held, source=METERS, evidence={"correlation_id": mine.correlation_id, **wrong}
        )

    async def _wrong(
        self, arguments: SetArguments, mine: Mine, feeds: Sequence[str], begins: datetime
    ) -> dict[str, Any]:
        """What is not yet as it was asked for; nothing where all is."""
        if not self.spoke_after(feeds, begins):
            return {"waiting": "the Flex Agent has not spoken since it began"}
        listed = self.listing(feeds, mine.correlation_id)
        if len(listed) < len(feeds):
            return {"gone": [feed for feed in feeds if feed not in listed]}
        states = self._wires.client.feed_states()
        late = [feed for feed in feeds if not states[feed].compliant or states[feed].in_flight]
        if late:
            return {"not_compliant": late}
        most_w = arguments.limit_w * (1 + METER_TOLERANCE)
        if "" in self.meters(arguments) and not arguments.all_feeds:
            most_w *= len(feeds)
        for feed, meter in (await self.metered(arguments)).items():
            if meter is None or meter.observed_at <= begins:
                return {"waiting": f"the meter of {feed or 'the site'} has not read since it began"}
            if meter.value["power_w"] > most_w:
                return {"metered_w": {feed or "site": meter.value["power_w"]}, "most_w": most_w}
        return {}

    def _span(self, arguments: SetArguments, now: datetime) -> tuple[datetime, datetime | None]:
        """From when until when.

        Raises:
            InvalidRequestError: that lies in the past, too far ahead, or ends before it begins.
        """
        start, end = now, None
        if arguments.starts_at is not None:
            start = moment_of(arguments.starts_at, "starts_at")
            if start < now:
                raise InvalidRequestError(f"starts_at: {iso(start)} is past, it is {iso(now)}")
            if start > now + MOST_NOTICE:
                raise InvalidRequestError(f"starts_at: {iso(start)} is more than a day ahead")
        if arguments.ends_at is not None:
            end = moment_of(arguments.ends_at, "ends_at")
            if end <= now:
                raise InvalidRequestError(f"ends_at: {iso(end)} is past, it is {iso(now)}")
            if end <= start:
                raise InvalidRequestError("ends_at: it ends before it begins")
        return start, end


class ClearLoadTarget(SendTarget[ClearArguments]):
    """End a load target of ours before its time, so power may rise: its feeds go to their default.

    Only what we have sent; list_load_targets (flex) gives the correlation_id.
    """

    name = "flex.clear_load_target"
    arguments = ClearArguments

    def target(self, arguments: ClearArguments) -> Target:
        """The target itself."""
        return Target(kind="grid_event", id=arguments.correlation_id)

    def feeds(self, arguments: ClearArguments) -> tuple[str, ...]:
        """Those of the target; all where it is not known, as the stricter."""
        known = self._wires.client.settings.feeds
        open_ = self._wires.client.open_targets(arguments.correlation_id, self._wires.clock.now())
        return tuple(f for f in known if any(one.covers(f) for one in open_)) or known

    def blast_radius(self, arguments: ClearArguments, facts: FactSet) -> BlastRadius:
        """The rise, and what the target left out: its end is lifted with the same words."""
        now, picture = self._wires.clock.now(), Feeds(facts.value(GRID_FEEDS, self._site))
        one = picture.mine(arguments.correlation_id)
        picture.check_nobody_else(one.feeds, now, one.end)
        at = max(now, one.start)
        return reach_of(
            one.feeds,
            picture.allowed_w(one.feeds, at),
            picture.allowed_w(one.feeds, at, without=one.correlation_id),
            all_feeds=one.all_feeds,
            open_ended=one.end is None,
        )

    def entry(self, arguments: ClearArguments) -> dict[str, Any]:
        """No constraint, for the feeds and the rest of the time of what it ends."""
        now = self._wires.clock.now()
        found = self._wires.client.open_targets(arguments.correlation_id, now)
        if not found or len({(one.start, one.end) for one in found}) > 1:
            raise UnavailableError(f"{len(found)} targets have this id now: nothing was sent")
        one = found[0]
        named = () if one.all_feeds else self.feeds(arguments)
        return _entry(max(now, one.start), one.end, None, named, best_effort=False)

    def is_echoed(self, arguments: ClearArguments, correlation_id: str, since: datetime) -> bool:
        """A `target_set` of its feeds without it: a state has no word for what limits nothing."""
        feeds = self._wires.client.settings.feeds
        gone = not self.listing(feeds, arguments.correlation_id)
        return gone and any(self._wires.client.set_since([feed], since) for feed in feeds)

    def happened(self, arguments: ClearArguments, mine: Mine) -> Happened:
        """Not listed any more, or still listed though the agent has spoken since."""
        feeds = self._wires.client.settings.feeds
        due = self.echo_is_due(mine)
        if self.listing(feeds, arguments.correlation_id):
            return Happened.NO if self.spoke_after(feeds, due) else Happened.UNKNOWN
        heard = self.spoke_after(feeds, mine.began_at)
        return Happened.YES if heard else Happened.UNKNOWN

    async def verify(self, arguments: ClearArguments, before: FactSet, since: datetime) -> Verdict:
        """The agent has spoken since and lists it no more; the meter is shown beside it.

        A meter cannot show that a limit is gone: power may rise and need not.
        """
        feeds = self._wires.client.settings.feeds
        watts = {
            feed or "site": meter.value["power_w"]
            for feed, meter in (await self.metered(arguments)).items()
            if meter is not None
        }
        seen = {"cleared": arguments.correlation_id, "metered_w": watts}
        if not self.spoke_after(feeds, since):
            return Verdict(held=Held.NOT_YET, source=AGENT, evidence=seen)
        listed = self.listing(feeds, arguments.correlation_id)
        if not listed:
            return Verdict(held=Held.YES, source=AGENT, evidence=seen)
        over = self._wires.clock.now() > since + COMPLIES_WITHIN
        held = Held.NO if over else Held.NOT_YET
        return Verdict(held=held, source=AGENT, evidence={**seen, "listed_on": listed})


def flex_operations(wires: Wires) -> tuple[SendTarget[Any], ...]:
    """Everything that an ISV may do."""
    return (SetLoadTarget(wires), ClearLoadTarget(wires))


def _entry(
    start: datetime,
    end: datetime | None,
    limit_w: float | None,
    feed_tags: Sequence[str],
    *,
    best_effort: bool,
) -> dict[str, Any]:
    interval = {"start_time": iso(start)} | ({} if end is None else {"end_time": iso(end)})
    constraint = None if limit_w is None else {"value": limit_w, "unit": "watt"}
    entry: dict[str, Any] = {"interval": interval, "load_constraint": constraint}
    if best_effort:
        entry["strategy"] = {"best_effort": True}
    if feed_tags:
        entry["feed_tags"] = list(feed_tags)
    return entry
