"""What sending a target and taking one back share: one signed message, and the wait for its echo.

An act is one message, and there is no answer to it: only the Flex Agent's `target_set` with our
correlation id says that it was taken. Silence is never a yes, and nothing is sent twice.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

import anyio

from interlock_guardrails.facts import FactRegistry
from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.publishing import TargetPublisher
from interlock_servers.flex.sending_facts import GRID_FEEDS, GRID_PUBLISHER
from interlock_servers.flex.sent import Mine, Sent
from interlock_tools.clock import Clock
from interlock_tools.errors import UnavailableError
from interlock_tools.fact import Fact, FactNeed
from interlock_tools.identity import Target
from interlock_tools.operation import Arguments, Effect, Happened, Operation, ReadBack

METER_POWER = "meter.power"
METER_AGE_S = 120.0  # a BMS repeats an unchanged value every 100 s
METER_TOLERANCE = 0.01  # of the limit: a revenue-grade meter
KEY_AGE_S = 30.0
MOST_NOTICE = timedelta(days=1)
COMPLIES_WITHIN = timedelta(minutes=15)  # of its beginning: two intervals of settlement
AGENT, METERS = "the Flex Agent's state", "the Flex Agent's state and the facility's metering"

A = TypeVar("A", bound=Arguments)


@dataclass(frozen=True)
class Wires:
    """What the operations work with."""

    client: FlexClient
    publisher: TargetPublisher
    sent: Sent
    facts: FactRegistry
    clock: Clock


class SendTarget(Operation[A], Generic[A]):
    """One message of an ISV, or what takes it back.

    It does not compensate: a target that is not complied with stays, as the lower limit is the safe
    one, and people look.
    """

    effect = Effect.REVERSIBLE
    deadline_s = (MOST_NOTICE + COMPLIES_WITHIN).total_seconds()
    act_timeout_s = 60.0

    def __init__(self, wires: Wires) -> None:
        self._wires = wires
        self._site = Target(kind="site", id=wires.client.settings.site_id)

    @abstractmethod
    def feeds(self, arguments: A) -> tuple[str, ...]:
        """The feeds that it names now; all where it names none."""

    @abstractmethod
    def entry(self, arguments: A) -> dict[str, Any]:
        """The target as it goes on the wire.

        Raises:
            UnavailableError: what it is about does not stand any more.
        """

    @abstractmethod
    def is_echoed(self, arguments: A, correlation_id: str, since: datetime) -> bool:
        """Whether the agent has said, since then, that it took it."""

    def facts(self, arguments: A) -> tuple[FactNeed, ...]:
        """The feeds and their targets, that our key is believed, and meters that live."""
        state_age_s = self._wires.publisher.settings.state_age_s
        return (
            FactNeed(kind=GRID_FEEDS, subject=self._site, max_age_s=state_age_s),
            FactNeed(kind=GRID_PUBLISHER, subject=self._site, max_age_s=KEY_AGE_S),
            *(
                FactNeed(kind=METER_POWER, subject=meter, max_age_s=METER_AGE_S)
                for meter in self.meters(arguments).values()
            ),
        )

    def meters(self, arguments: A) -> Mapping[str, Target]:
        """Per feed its meter; the site's where every feed is meant."""
        known = self._wires.client.settings.feeds
        named = [feed for feed in self.feeds(arguments) if feed in known]
        if set(named) == set(known):
            return {"": self._site}
        names = self._wires.publisher.settings.meters
        return {feed: Target(kind="feed", id=names.get(feed, feed)) for feed in named}

    async def execute(self, arguments: A, key: str) -> dict[str, Any]:
        """Send it once, and wait for the agent's echo.

        Raises:
            UnavailableError: nothing was sent; or the agent did not echo it in time, and whether
                it took it must be read back.
        """
        wires, since = self._wires, self._wires.clock.now()
        within_s = wires.publisher.settings.echo_within_s
        correlation_id = await wires.publisher.send([self.entry(arguments)], key)
        with anyio.move_on_after(within_s):
            await wires.client.wait_until(lambda: self.is_echoed(arguments, correlation_id, since))
            return {"correlation_id": correlation_id, "echoed": True}
        raise UnavailableError(
            f"the Flex Agent said no target_set with {correlation_id} in {within_s:g} s: it was "
            "not accepted, as far as is known"
        )

    async def read_back(self, arguments: A) -> ReadBack:
        """Yes where the agent lists it, no where it speaks later and does not.

        An agent that says nothing leaves it unknown.
        """
        mine = await self._wires.sent.under_way(self, arguments)
        if mine is None:
            return ReadBack(happened=Happened.UNKNOWN, evidence={"why": "no change sends this"})
        happened = self.happened(arguments, mine)
        seen = {"correlation_id": mine.correlation_id, "source": AGENT}
        return ReadBack(happened=happened, evidence=seen)

    @abstractmethod
    def happened(self, arguments: A, mine: Mine) -> Happened:
        """What the agent's present state says of it."""

    def spoke_after(self, feeds: Sequence[str], moment: datetime) -> bool:
        """Whether the agent's word on each of these feeds is later."""
        states = self._wires.client.feed_states()
        return all(feed in states and states[feed].received_at > moment for feed in feeds)

    def listing(self, feeds: Sequence[str], correlation_id: str) -> list[str]:
        """The feeds among whose targets the agent lists it."""
        states = self._wires.client.feed_states()
        return [
            feed
            for feed in feeds
            if feed in states
            and any(one.correlation_id == correlation_id for one in states[feed].targets)
        ]

    def echo_is_due(self, mine: Mine) -> datetime:
        """When the agent should have echoed it."""
        return mine.began_at + timedelta(seconds=self._wires.publisher.settings.echo_within_s)

    async def metered(self, arguments: A) -> dict[str, Fact | None]:
        """Per feed what its meter said last; None where it may not be believed."""
        out: dict[str, Fact | None] = {}
        for feed, meter in self.meters(arguments).items():
            need = FactNeed(kind=METER_POWER, subject=meter, max_age_s=METER_AGE_S)
            answer = await self._wires.facts.fact(need)
            out[feed] = answer if isinstance(answer, Fact) else None
        return out
