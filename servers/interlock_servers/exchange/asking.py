"""What all operations on the BMS share: their facts, one publication, and reading what came of it.

An act is one publication; the holder says it again. Whether anything happened is read from points
that the BMS writes, never from having published.
"""

from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.facts import BMS_ALIVE
from interlock_servers.exchange.holding import Holder, withdrawn
from interlock_servers.exchange.intents import Does, Intent, Intents
from interlock_servers.exchange.outcomes import Outcome
from interlock_servers.exchange.points import FRESH_S, HEARTBEAT_S
from interlock_servers.exchange.reach import REACH
from interlock_servers.exchange.request_facts import POINT_OF, REQUEST_HEARTBEAT, SUBJECT
from interlock_servers.exchange.requests import REPUBLISH_S, Asked, Namespace
from interlock_servers.exchange.settings import RequestSettings
from interlock_tools.fact import FactNeed, FactSet
from interlock_tools.identity import Target
from interlock_tools.operation import (
    Arguments,
    Effect,
    Happened,
    Held,
    Operation,
    ReadBack,
    Verdict,
)

IDENTITY_AGE_S = 60.0
SHOWS_WITHIN_S = 3 * REPUBLISH_S + 30.0  # three publications, and one round of the BMS

A = TypeVar("A", bound=Arguments)


@dataclass(frozen=True)
class Wires:
    """What the operations work with."""

    client: ExchangeClient
    namespace: Namespace
    holder: Holder
    intents: Intents
    settings: RequestSettings


class Came(dict[str, Any]):
    """What is seen of a request, for the record; `outcome` is its class."""

    @property
    def outcome(self) -> Outcome:
        """One of the five, or pending."""
        return Outcome(self["outcome"])


class AskBms(Operation[A], Generic[A]):
    """One kind of request, or what takes it back."""

    effect = Effect.REVERSIBLE
    deadline_s = SHOWS_WITHIN_S
    act_timeout_s = 20.0
    does: ClassVar[Does]
    reaches: ClassVar[bool] = True  # racks, so that the power tree must be known
    source: ClassVar[str] = "the BMS"

    def __init__(self, wires: Wires) -> None:
        self._wires = wires
        self._site = Target(kind="site", id=wires.client.site_id)

    @abstractmethod
    def came_of(self, arguments: A, before: FactSet | None, since: datetime | None) -> Came:
        """What the BMS shows of it now; a reading older than `since` says nothing."""

    def value(self, arguments: A) -> float:
        """The number that is published.

        Raises:
            UnavailableError: the point's metadata, or the settings, do not give it now.
        """
        said = arguments.model_dump()
        value = self.does.fixed if self.does.value is None else said[self.does.value]
        intent = Intent("", *self.where(arguments), value, self._wires.client.now(), None)
        return self._wires.holder.value_of(intent)

    def where(self, arguments: A) -> tuple[Asked, str]:
        """Which point, and whose."""
        whose = str(arguments.model_dump()[self.does.subject])
        return (Asked(whose) if self.does.asked is None else self.does.asked, whose)

    def target(self, arguments: A) -> Target:
        """The CDU, the rack, or our own readiness."""
        asked, whose = self.where(arguments)
        return Target(kind=SUBJECT[asked], id=whose)

    def facts(self, arguments: A) -> tuple[FactNeed, ...]:
        """That the point is ours, that BMS and we live, and who works on what it cools or feeds."""
        asked, _ = self.where(arguments)
        kind = next(name for name, of in POINT_OF.items() if of is asked)
        mine = FactNeed(kind=kind, subject=self.target(arguments), max_age_s=FRESH_S)
        alive = tuple(
            FactNeed(kind=life, subject=self._site, max_age_s=HEARTBEAT_S)
            for life in (BMS_ALIVE, REQUEST_HEARTBEAT)
        )
        power = tuple(
            FactNeed(kind=name, subject=self._site, max_age_s=IDENTITY_AGE_S)
            for name in (REACH if self.reaches else ())
        )
        return (mine, *alive, *power)

    async def execute(self, arguments: A, key: str) -> dict[str, Any]:
        """Publish the value once; the holder says it again while the change stands.

        A withdrawal whose request was followed by another one publishes nothing.

        Raises:
            UnavailableError: it may not be written now, or no broker took it.
        """
        newer = await self._newer(arguments, key)
        if newer is not None:
            return {"published": False, "followed_by": newer.change_id}
        asked, whose = self.where(arguments)
        value = self.value(arguments)
        point = await self._wires.holder.say(asked, whose, value, key)
        return {"published": True, "topic": point.topic, "value": value, "acknowledged": False}

    async def read_back(self, arguments: A) -> ReadBack:
        """Yes where the BMS shows it. Never no: it may still be on its way through a slow plant."""
        seen = self.came_of(arguments, None, None)
        if seen.outcome is Outcome.APPLIED:
            return ReadBack(happened=Happened.YES, evidence=seen)
        happened = Happened.PARTLY if self.compensates else Happened.UNKNOWN
        return ReadBack(happened=happened, evidence=seen)

    async def verify(self, arguments: A, before: FactSet, since: datetime) -> Verdict:
        """What the BMS shows since the act; a withdrawal is over once a newer request stands."""
        seen = self.came_of(arguments, before, since)
        if seen.outcome is Outcome.APPLIED:
            return Verdict(held=Held.YES, source=self.source, evidence=seen)
        if self.does.withdraws and (newer := await self._standing(arguments)) is not None:
            evidence = {"followed_by": newer.change_id}
            return Verdict(held=Held.YES, source="a request that came later", evidence=evidence)
        return Verdict(held=Held.NOT_YET, source=self.source, evidence=seen)

    async def compensate(self, arguments: A, before: FactSet) -> dict[str, Any]:
        """Say what takes the request back; the holder repeats it until the BMS could follow.

        Raises:
            UnavailableError: the settings do not say what is safe, or no broker took it.
        """
        asked, whose = self.where(arguments)
        value = withdrawn(asked, self._wires.settings)
        point = await self._wires.holder.say(asked, whose, value, "")
        return {"published": True, "topic": point.topic, "value": value, "acknowledged": False}

    async def _newer(self, arguments: A, key: str) -> Intent | None:
        """The request that stands in the way of a withdrawal, if there is one."""
        standing = await self._standing(arguments)
        return standing if self.does.withdraws and standing and standing.change_id != key else None

    async def _standing(self, arguments: A) -> Intent | None:
        """The request that stands on this point, if one does."""
        standing = await self._wires.intents.standing(self._wires.client.now())
        found = standing.get(self.where(arguments))
        return found if found is not None and found.value is not None else None

    def _publications(self, since: datetime | None) -> int:
        if since is None:
            return 1
        passed_s = (self._wires.client.now() - since).total_seconds()
        return 1 + int(passed_s // REPUBLISH_S)
