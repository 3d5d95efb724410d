"""Valves that outlive whoever moves them: what was done to them stands in a file of acts.

One act is one line, written in one call: a process that is killed has acted or has not, and
whoever comes after sees which. It knows nothing of changes but the key that came with an act.
"""

import json
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from interlock_tools.blast_radius import BlastRadius
from interlock_tools.clock import Clock
from interlock_tools.errors import UnavailableError
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

START_PCT = 50
Mishap = Literal["none", "answer_lost", "lost_before", "ignores"]
What = Literal["act", "back"]


class Act(NamedTuple):
    """What was done to a valve: moved for a change, or brought back."""

    what: What
    key: str | None
    valve_id: str
    position_pct: int
    flow_follows: bool


class Valves:
    """All valves, as the file says they stand."""

    def __init__(self, path: Path, mishaps: Mapping[str, Mishap]) -> None:
        self._path = path
        self.mishaps = mishaps

    def write(self, act: Act) -> None:
        """Do it."""
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, json.dumps(act).encode() + b"\n")
        finally:
            os.close(file)

    def acts(self) -> list[Act]:
        """Everything that was done, in order."""
        if not self._path.exists():
            return []
        return [Act(*json.loads(line)) for line in self._path.read_bytes().splitlines()]

    def position_pct(self, valve_id: str) -> int:
        """Where a valve stands."""
        stands = START_PCT
        for act in self.acts():
            stands = act.position_pct if act.valve_id == valve_id else stands
        return stands

    def flow_pct(self, valve_id: str) -> int:
        """What its meter shows."""
        shows = START_PCT
        for act in self.acts():
            shows = act.position_pct if act.valve_id == valve_id and act.flow_follows else shows
        return shows


class ValveFacts:
    """The source of facts about the valves."""

    def __init__(self, valves: Valves, clock: Clock) -> None:
        self._valves, self._clock = valves, clock

    @property
    def kinds(self) -> frozenset[str]:
        """Where each stands, and which it is."""
        return frozenset({"valve.serial", "valve.position"})

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """Serial (identity) or position (measurement)."""
        serial = need.kind == "valve.serial"
        value = f"sn-{need.subject.id}" if serial else self._valves.position_pct(need.subject.id)
        return Fact(
            kind=need.kind,
            subject=need.subject,
            value=value,
            origin="valve",
            version=str(value),
            observed_at=self._clock.now(),
            nature=Nature.IDENTITY if serial else Nature.MEASUREMENT,
        )


class MoveArguments(Arguments):
    """Which valve, and where to."""

    valve_id: str
    position_pct: Annotated[int, Field(ge=10, le=100)]
    expires_in_s: Annotated[float | None, Field(gt=0)] = None


class MoveValve(Operation[MoveArguments]):
    """Move a valve to a position; the flow follows.

    `reached` is told when an act is about to be sent, and when it was done and not yet answered.
    """

    name = "valve.move_valve"
    effect = Effect.REVERSIBLE
    arguments = MoveArguments
    deadline_s = 20.0
    compensates = True
    compensation_repeats = True

    def __init__(self, valves: Valves, reached: Callable[[str], None]) -> None:
        self._valves, self._reached = valves, reached

    def target(self, arguments: MoveArguments) -> Target:
        """The valve."""
        return Target(kind="valve", id=arguments.valve_id)

    def facts(self, arguments: MoveArguments) -> tuple[FactNeed, ...]:
        """Which it is, and where it stands."""
        target = self.target(arguments)
        return (
            FactNeed(kind="valve.serial", subject=target, max_age_s=3600),
            FactNeed(kind="valve.position", subject=target, max_age_s=3600),
        )

    def blast_radius(self, arguments: MoveArguments, facts: FactSet) -> BlastRadius:
        """One host of its own."""
        before = int(facts.value("valve.position", self.target(arguments)))
        return BlastRadius(
            gpus=8,
            hosts=frozenset({f"host-of-{arguments.valve_id}"}),
            power_domains=frozenset({f"pdu-of-{arguments.valve_id}"}),
            watts_moved=abs(before - arguments.position_pct),
            power_rise_w=max(0, arguments.position_pct - before),
        )

    async def execute(self, arguments: MoveArguments, key: str) -> dict[str, Any]:
        """Move it, with the mishap that this valve has."""
        mishap = self._valves.mishaps.get(arguments.valve_id, "none")
        self._reached("before_act")
        if mishap == "lost_before":
            raise UnavailableError("no answer")
        follows = mishap != "ignores"
        self._valves.write(
            Act("act", key, arguments.valve_id, arguments.position_pct, flow_follows=follows)
        )
        self._reached("inside_act")
        if mishap == "answer_lost":
            raise UnavailableError("no answer")
        return {"position_pct": arguments.position_pct}

    async def read_back(self, arguments: MoveArguments) -> ReadBack:
        """What the valve says of its position."""
        stands = self._valves.position_pct(arguments.valve_id)
        moved = stands == arguments.position_pct
        return ReadBack(happened=Happened.YES if moved else Happened.NO)

    async def verify(self, arguments: MoveArguments, before: FactSet, since: datetime) -> Verdict:
        """What its meter shows."""
        shows = self._valves.flow_pct(arguments.valve_id) == arguments.position_pct
        return Verdict(held=Held.YES if shows else Held.NOT_YET, source="the flow meter")

    def expiry(self, arguments: MoveArguments, before: FactSet) -> Expiry | None:
        """What was opened further closes again to where it stood."""
        stood = int(before.value("valve.position", self.target(arguments)))
        if arguments.expires_in_s is None or stood >= arguments.position_pct:
            return None
        back = {"valve_id": arguments.valve_id, "position_pct": stood}
        return Expiry(after_s=arguments.expires_in_s, operation=self.name, arguments=back)

    async def compensate(self, arguments: MoveArguments, before: FactSet) -> dict[str, Any]:
        """Back to where it stood."""
        stood = int(before.value("valve.position", self.target(arguments)))
        self._reached("before_act")
        self._valves.write(Act("back", None, arguments.valve_id, stood, flow_follows=True))
        self._reached("inside_act")
        return {"position_pct": stood}
