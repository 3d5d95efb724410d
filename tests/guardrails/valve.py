"""A valve with a flow meter: the smallest plant that a guard can be wrong about."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from interlock_tools.blast_radius import BlastRadius
from interlock_tools.clock import Clock
from interlock_tools.errors import ComponentError, UnavailableError
from interlock_tools.fact import Fact, FactNeed, FactSet, Nature, Unknown
from interlock_tools.identity import Target
from interlock_tools.operation import (
    Arguments,
    Effect,
    Expiry,
    Happened,
    Held,
    Operation,
    ReadBack,
    Verdict,
)

VALVE = Target(kind="valve", id="valve-1")
Mishap = Literal["none", "ignores", "answer_lost", "lost_before", "fails", "mute"]


class Valve:
    """The plant: a position that is written, a flow that is metered, and mishaps on request."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.position_pct = 100
        self.flow_pct = 100
        self.serial = "sn-1"
        self.acts: list[int] = []
        self.mishap: Mishap = "none"
        self.after_act: Callable[[], None] = lambda: None
        self.missing: set[str] = set()
        self.observed_at: datetime | None = None

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of fact that this valve answers."""
        return frozenset({"valve.serial", "valve.position"})

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """Serial (identity) or position (measurement)."""
        if need.kind in self.missing:
            return Unknown(kind=need.kind, subject=need.subject, why="the sensor is out")
        serial = need.kind == "valve.serial"
        return Fact(
            kind=need.kind,
            subject=need.subject,
            value=self.serial if serial else self.position_pct,
            origin="valve",
            version=self.serial if serial else str(self.position_pct),
            observed_at=self.observed_at or self.clock.now(),
            nature=Nature.IDENTITY if serial else Nature.MEASUREMENT,
        )


class MoveValveArguments(Arguments):
    """Where to."""

    position_pct: Annotated[int, Field(ge=0, le=100)]
    host: str = "node-001"
    expires_in_s: Annotated[float | None, Field(gt=0)] = None


class MoveValve(Operation[MoveValveArguments]):
    """Move the valve to a position; the flow follows."""

    name = "valve.move_valve"
    effect = Effect.REVERSIBLE
    arguments = MoveValveArguments
    deadline_s = 20.0
    compensates = True
    compensation_repeats = True

    def __init__(self, valve: Valve) -> None:
        self._valve = valve

    def target(self, arguments: MoveValveArguments) -> Target:
        """The one valve."""
        return VALVE

    def facts(self, arguments: MoveValveArguments) -> tuple[FactNeed, ...]:
        """Its serial number and where it stands."""
        return (
            FactNeed(kind="valve.serial", subject=VALVE, max_age_s=60),
            FactNeed(kind="valve.position", subject=VALVE, max_age_s=10),
        )

    def blast_radius(self, arguments: MoveValveArguments, facts: FactSet) -> BlastRadius:
        """One host; below 10 % the service behind it breaks its floor."""
        before = int(facts.value("valve.position", VALVE))
        return BlastRadius(
            gpus=8,
            hosts=frozenset({arguments.host}),
            power_domains=frozenset({"pdu-1"}),
            watts_moved=abs(before - arguments.position_pct),
            power_rise_w=max(0, arguments.position_pct - before),
            slo_floors_broken=frozenset({"chat"} if arguments.position_pct < 10 else ()),
        )

    async def execute(self, arguments: MoveValveArguments, key: str) -> dict[str, Any]:
        """Move it, or have the mishap that was asked for."""
        valve = self._valve
        if valve.mishap == "lost_before":
            raise UnavailableError("no answer")
        valve.acts.append(arguments.position_pct)
        if valve.mishap == "fails":
            raise ComponentError("valve", "JAMMED", "the motor stalls")
        valve.position_pct = arguments.position_pct
        if valve.mishap != "ignores":
            valve.flow_pct = arguments.position_pct
        valve.after_act()
        if valve.mishap in {"answer_lost", "mute"}:
            raise UnavailableError("no answer")
        return {"position_pct": valve.position_pct}

    async def read_back(self, arguments: MoveValveArguments) -> ReadBack:
        """What the valve says of its position."""
        if self._valve.mishap == "mute":
            raise UnavailableError("no answer")
        moved = self._valve.position_pct == arguments.position_pct
        return ReadBack(happened=Happened.YES if moved else Happened.NO)

    async def verify(
        self, arguments: MoveValveArguments, before: FactSet, since: datetime
    ) -> Verdict:
        """What the flow meter shows."""
        shows = self._valve.flow_pct == arguments.position_pct
        return Verdict(held=Held.YES if shows else Held.NOT_YET, source="the flow meter")

    def expiry(self, arguments: MoveValveArguments, before: FactSet) -> Expiry | None:
        """What was opened further closes again to where it stood."""
        stood = int(before.value("valve.position", VALVE))
        if arguments.expires_in_s is None or stood >= arguments.position_pct:
            return None
        return Expiry(
            after_s=arguments.expires_in_s,
            operation=self.name,
            arguments={"position_pct": stood, "host": arguments.host},
        )

    async def compensate(self, arguments: MoveValveArguments, before: FactSet) -> dict[str, Any]:
        """Back to where it stood."""
        self._valve.position_pct = self._valve.flow_pct = before.value("valve.position", VALVE)
        return {"position_pct": self._valve.position_pct}
