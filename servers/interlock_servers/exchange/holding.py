"""The loop that holds our requests: it says them again while they stand, and beats while it works.

One round reads what stands, publishes what is due, and only then gives our life sign. A round that
is stuck, cannot read the store, or finds a request whose end nobody has seen to, gives none: the
BMS then returns to its own control, which is what the life sign is for.
"""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta

import anyio

from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.intents import Intent, Intents, Where
from interlock_servers.exchange.models import StateLabel
from interlock_servers.exchange.publishing import ACTIONABLE_QOS, Publisher
from interlock_servers.exchange.requests import (
    REPUBLISH_S,
    Asked,
    Namespace,
    Writable,
)
from interlock_servers.exchange.settings import RequestSettings
from interlock_tools.clock import Clock
from interlock_tools.errors import FactoryError, UnavailableError

BEAT_EVERY_S = 10.0
ROUND_S = 5.0  # of the machine: a round that takes longer is stuck
OVERDUE = timedelta(seconds=60)

log = logging.getLogger(__name__)


class Holder:
    """Runs where changes are carried out, and nowhere else."""

    def __init__(
        self,
        client: ExchangeClient,
        namespace: Namespace,
        publisher: Publisher,
        intents: Intents,
        settings: RequestSettings,
        clock: Clock,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._publisher = publisher
        self._intents = intents
        self._settings = settings
        self._clock = clock
        self._said: dict[tuple[Where, str], datetime] = {}
        self._echoed: float | None = None
        self.trouble: str | None = "it has not run yet"

    async def run(self) -> None:
        """Hold until cancelled; our connection is there for as long, so that no two have it."""
        async with self._publisher:
            while True:
                await self.round()
                await self._clock.sleep(BEAT_EVERY_S)

    async def round(self) -> None:
        """Once around; what goes wrong is kept in `trouble`, and costs the beat."""
        try:
            with anyio.fail_after(ROUND_S):
                await self._hold()
                await self._beat()
            self.trouble = None
        except FactoryError as error:
            self.trouble = str(error)
        except TimeoutError:
            self.trouble = f"a round took longer than {ROUND_S:g} s"
        except Exception as error:
            log.exception("requests could not be held")
            self.trouble = f"it broke: {type(error).__name__}"

    async def say(self, asked: Asked, whose: str, value: float, change_id: str) -> Writable:
        """Publish a value once, for a change that acts; the rounds after it go on from there.

        Raises:
            UnavailableError: it may not be written now, or no broker took it.
        """
        point = self._namespace.writable(asked, whose)
        qos = ACTIONABLE_QOS if asked in {Asked.LIQUID, Asked.ELECTRICAL} else 0
        await self._publisher.publish(point, value, qos=qos)
        self._said[(asked, whose), change_id] = self._clock.now()
        return point

    def value_of(self, intent: Intent) -> float:
        """The number that an intent stands for.

        Raises:
            UnavailableError: the metadata of a readiness point does not list its word any more.
        """
        if intent.value is None:
            return withdrawn(intent.asked, self._settings)
        if isinstance(intent.value, str):
            metadata = self._namespace.writable(intent.asked, intent.whose).metadata
            return state_number(metadata.state_text or (), intent.value)
        return float(intent.value)

    async def _hold(self) -> None:
        now = self._clock.now()
        standing = await self._intents.standing(now)
        overdue = [one for one in standing.values() if one.ends_at and now > one.ends_at + OVERDUE]
        lost: list[str] = []
        for where, intent in standing.items():
            said_at = self._said.get((where, intent.change_id))
            due = said_at is None or (now - said_at).total_seconds() >= REPUBLISH_S
            if due and intent not in overdue:
                try:
                    await self.say(*where, self.value_of(intent), intent.change_id)
                except UnavailableError as error:
                    lost.append(str(error))
        live = {(where, intent.change_id) for where, intent in standing.items()}
        self._said = {
            key: at
            for key, at in self._said.items()
            if key in live or (now - at).total_seconds() < REPUBLISH_S
        }
        if overdue:
            raise UnavailableError(
                f"{overdue[0].change_id} has ended and was not taken back: no beat, so that the "
                "BMS returns to its own control"
            )
        if lost:
            log.warning("a request could not be said again: %s", lost[0])

    async def _beat(self) -> None:
        beat, echo = self._namespace.beat(), self._namespace.echo()
        now_ms = self._clock.now().timestamp() * 1000
        await self._publisher.publish(beat, int(now_ms))
        last = [b.last_beat_at for b in self._client.heartbeats().beats if b.kind == "bms"]
        moments = [at for at in last if at is not None]
        if echo is not None and moments:
            heard_ms = int(max(moments).timestamp() * 1000)
            if heard_ms != self._echoed:
                await self._publisher.publish(echo, heard_ms)
                self._echoed = heard_ms


def withdrawn(asked: Asked, settings: RequestSettings) -> float:
    """What is said to take a request back: the safe setpoint, no isolation, not ready.

    Raises:
        UnavailableError: the settings do not say what is safe.
    """
    if asked in {Asked.LIQUID, Asked.ELECTRICAL}:
        return 0.0
    if asked is Asked.SUPPLY and settings.supply is not None:
        return settings.supply.safe_c
    numbers = {Asked(name): number for name, number in settings.not_ready.items()}
    if asked in numbers:
        return float(numbers[asked])
    raise UnavailableError(f"the settings do not say how {asked} is taken back")


def state_number(labels: Iterable[StateLabel], text: str) -> float:
    """The number of a state by its text, which only the point's own metadata gives.

    Raises:
        UnavailableError: no state, or more than one, is called so.
    """
    found = [label.value for label in labels if label.text == text]
    if len(found) != 1:
        raise UnavailableError(f"the metadata lists {len(found)} states {text!r}")
    return float(found[0])
