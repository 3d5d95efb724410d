"""Isolation of a rack's coolant or power: asked for by two people, taken back by two people.

A request does not end by itself. That coolant or power comes back into a rack is never safe without
asking somebody, so there is no expiry; and a request that failed is left to people, for the same
reason.
"""

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field

from interlock_servers.exchange.asking import AskBms, Came
from interlock_servers.exchange.facts import RACK_ISOLATION, RACK_LEAK
from interlock_servers.exchange.intents import Does
from interlock_servers.exchange.outcomes import Outcome, of_state
from interlock_servers.exchange.points import FRESH_S, Point
from interlock_servers.exchange.reach import reach_of
from interlock_servers.exchange.requests import Asked, shown
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.errors import InvalidRequestError
from interlock_tools.fact import FactNeed, FactSet
from interlock_tools.operation import Arguments, Effect

STILL_LPM = 1.0  # a flow that is none: sensors do not read zero
STILL_KW = 1.0
_WORD = {Asked.LIQUID: "liquid", Asked.ELECTRICAL: "electrical"}
_STATUS = {
    Asked.LIQUID: "RackLiquidIsolationStatus",
    Asked.ELECTRICAL: "RackElectricalIsolationStatus",
}
_PROOF = {
    Asked.LIQUID: ("RackLiquidFlow", STILL_LPM),
    Asked.ELECTRICAL: ("RackPower", STILL_KW),
}


class RackArguments(Arguments):
    """Which rack."""

    rack_id: Annotated[str, Field(min_length=1, max_length=200)]


class _Isolation(AskBms[RackArguments]):
    effect = Effect.DISRUPTIVE
    arguments = RackArguments
    isolates: ClassVar[bool]

    def facts(self, arguments: RackArguments) -> tuple[FactNeed, ...]:
        """Also a leak sensor that works, whatever it says, and the status that shows the effect.

        A sensor at fault makes `rack.leak` unknown: nothing is isolated on its word.
        """
        rack = self.target(arguments)
        more = tuple(
            FactNeed(kind=kind, subject=rack, max_age_s=FRESH_S)
            for kind in (RACK_LEAK, RACK_ISOLATION)
        )
        return (*super().facts(arguments), *more)

    def blast_radius(self, arguments: RackArguments, facts: FactSet) -> BlastRadius:
        """Its hosts, GPUs and jobs: they stop, or come back.

        Without a leak, work with a promised floor is a reason against it; with one it is lost to
        the leak and not to us.
        """
        rack = self.target(arguments)
        asked, _ = self.where(arguments)
        if _WORD[asked] not in facts.value(RACK_ISOLATION, rack):
            raise InvalidRequestError(
                f"rack_id: the BMS does not show the {_WORD[asked]} isolation of {rack.id}, so "
                "that nobody could tell whether it happened"
            )
        leaks = bool(facts.value(RACK_LEAK, rack)["leak"])
        if leaks and not self.isolates:
            raise InvalidRequestError(
                f"rack_id: {rack.id} leaks; what is isolated stays so until it is dry"
            )
        return reach_of(
            [rack.id],
            facts,
            self._site,
            stops=self.isolates and not leaks,
            starts=asked is Asked.ELECTRICAL and not self.isolates,
        )

    def came_of(
        self, arguments: RackArguments, before: FactSet | None, since: datetime | None
    ) -> Came:
        """The status that the BMS shows, and the flow or power that must agree with it."""
        asked, rack_id = self.where(arguments)
        status, at = shown(self._wires.client, self._of_rack(rack_id, _STATUS[asked]))
        if since is not None and (at is None or at < since):
            status = None  # it was shown before we asked
        publications = self._publications(since)
        wanted = self.value(arguments)
        outcome = of_state(wanted, status, publications)
        proof, still = _PROOF[asked]
        reads, read_at = shown(self._wires.client, self._of_rack(rack_id, proof))
        said_since = since is None or (read_at is not None and read_at >= since)
        if outcome is Outcome.APPLIED and self.isolates and reads is not None:
            agrees = not said_since or reads <= still
            outcome = outcome if agrees else Outcome.PENDING
        return Came(
            {
                "outcome": outcome.value,
                "asked": wanted,
                "status": status,
                proof: reads,
                "publications": publications,
            }
        )

    def _of_rack(self, rack_id: str, point_type: str) -> list[Point]:
        store = self._wires.client.store
        found = store.points(store.catalogue().by_rack.get(rack_id, ()))
        return [p for p in found if p.topic.point_type == point_type]


class RequestLiquidIsolation(_Isolation):
    """Ask the BMS to shut the coolant of a rack. Without coolant it overheats within minutes.

    It stays asked for until withdrawn. Drain it first, unless it leaks.
    """

    name = "exchange.request_liquid_isolation"
    does = Does(Asked.LIQUID, "rack_id", fixed=1.0)
    isolates = True
    source = "the BMS's isolation status and the rack's flow"


class WithdrawLiquidIsolation(_Isolation):
    """Take our request back: the BMS may let coolant into the rack. Refused while it leaks."""

    name = "exchange.withdraw_liquid_isolation"
    does = Does(Asked.LIQUID, "rack_id")
    isolates = False
    source = "the BMS's isolation status"


class RequestElectricalIsolation(_Isolation):
    """Ask the BMS to open the power of a rack. Everything in it is off at once.

    It stays asked for until withdrawn. Drain it first, unless it leaks.
    """

    name = "exchange.request_electrical_isolation"
    does = Does(Asked.ELECTRICAL, "rack_id", fixed=1.0)
    isolates = True
    source = "the BMS's isolation status and the rack's power"


class WithdrawElectricalIsolation(_Isolation):
    """Take our request back: the BMS may close the power of the rack. Refused while it leaks."""

    name = "exchange.withdraw_electrical_isolation"
    does = Does(Asked.ELECTRICAL, "rack_id")
    isolates = False
    source = "the BMS's isolation status"
