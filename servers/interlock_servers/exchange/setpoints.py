"""The supply temperature of a CDU: asked for within our limits, and taken back to the safe one."""

from datetime import datetime
from typing import Annotated, TypeVar

from pydantic import Field

from interlock_servers.exchange.asking import AskBms, Came
from interlock_servers.exchange.intents import Does
from interlock_servers.exchange.outcomes import Setpoint, of_setpoint
from interlock_servers.exchange.points import FRESH_S
from interlock_servers.exchange.reach import reach_of
from interlock_servers.exchange.request_facts import CDU_RACKS
from interlock_servers.exchange.requests import CDU_SUPPLY, Asked, measured_of, shown, target_of
from interlock_servers.exchange.settings import SupplyLimits
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.errors import InvalidRequestError, UnavailableError
from interlock_tools.fact import FactNeed, FactSet
from interlock_tools.operation import Arguments, Expiry

CduId = Annotated[str, Field(min_length=1, max_length=200)]


class CduArguments(Arguments):
    """Which CDU."""

    cdu_id: CduId


class SupplyArguments(CduArguments):
    """Which CDU, how warm, and for how long."""

    supply_c: Annotated[float, Field(gt=0, lt=100, description="of the secondary supply, C")]
    expires_in_s: Annotated[
        float, Field(ge=60, le=7 * 86_400, description="then back to the site's safe value")
    ]


C = TypeVar("C", bound=CduArguments)


class _Supply(AskBms[C]):
    source = "the BMS's target setpoint"

    @property
    def limits(self) -> SupplyLimits:
        """Our own limits.

        Raises:
            InvalidRequestError: the settings give none.
        """
        limits = self._wires.settings.supply
        if limits is None:
            raise InvalidRequestError(f"{self.name}: the settings name no limits (supply)")
        return limits

    def facts(self, arguments: C) -> tuple[FactNeed, ...]:
        """Also what the BMS controls the CDU to, and which racks it cools."""
        cdu = self.target(arguments)
        more = tuple(
            FactNeed(kind=kind, subject=cdu, max_age_s=FRESH_S) for kind in (CDU_SUPPLY, CDU_RACKS)
        )
        return (*super().facts(arguments), *more)

    def blast_radius(self, arguments: C, facts: FactSet) -> BlastRadius:
        """Every rack that the CDU cools, and who works in them."""
        racks = facts.value(CDU_RACKS, self.target(arguments))["racks"]
        return reach_of(racks, facts, self._site)

    def came_of(self, arguments: C, before: FactSet | None, since: datetime | None) -> Came:
        """The BMS's own target, and beside it what is measured, which follows slowly."""
        asked_c = self.value(arguments)
        client = self._wires.client
        was = None if before is None else before.value(CDU_SUPPLY, self.target(arguments))
        now_c: float | None = None
        at: datetime | None = None
        measured_c: float | None = None
        try:
            metadata = self._wires.namespace.writable(*self.where(arguments)).metadata
            now_c, at = shown(client, target_of(client, metadata))
            measured_c, _ = shown(client, measured_of(client, metadata))
        except UnavailableError:
            now_c = None
        if since is not None and (at is None or at < since):
            now_c = None  # it was said before we asked
        outcome = of_setpoint(
            Setpoint(
                asked_c=asked_c,
                before_c=None if was is None else was["target_c"],
                now_c=now_c,
                default_c=self.limits.safe_c,
                publications=self._publications(since),
            )
        )
        return Came(
            outcome=outcome.value,
            asked_c=asked_c,
            target_c=now_c,
            measured_c=measured_c,
            publications=self._publications(since),
        )


class RequestSupplyTemperature(_Supply[SupplyArguments]):
    """Ask the BMS for another supply temperature of a CDU, in C. It cools several racks.

    A request, held while we live and until it expires; the BMS may clamp or ignore it.
    """

    name = "exchange.request_supply_temperature"
    arguments = SupplyArguments
    does = Does(Asked.SUPPLY, "cdu_id", value="supply_c", lasts="expires_in_s")
    compensates = True
    compensation_repeats = True  # it asks for the safe value, however often

    def blast_radius(self, arguments: SupplyArguments, facts: FactSet) -> BlastRadius:
        """Its racks; refused outside our own limits, before the BMS has to clamp it."""
        limits, asked_c = self.limits, arguments.supply_c
        if not limits.min_c <= asked_c <= limits.max_c:
            raise InvalidRequestError(
                f"supply_c: {limits.min_c:g} to {limits.max_c:g} C are allowed here, not "
                f"{asked_c:g}"
            )
        seen = facts.value(CDU_SUPPLY, self.target(arguments))
        step_c = max(abs(asked_c - seen["lowest_c"]), abs(asked_c - seen["highest_c"]))
        if step_c > limits.max_step_c:
            raise InvalidRequestError(
                f"supply_c: {asked_c:g} is {step_c:.1f} C from where the target was within "
                f"{limits.step_every_s:.0f} s ({seen['lowest_c']:g} to {seen['highest_c']:g} C); "
                f"{limits.max_step_c:g} C at a time are allowed"
            )
        return super().blast_radius(arguments, facts)

    def expiry(self, arguments: SupplyArguments, before: FactSet) -> Expiry | None:
        """Back to the safe value; a person's yes to the request covers it."""
        return Expiry(
            after_s=arguments.expires_in_s,
            operation=WithdrawSupplyTemperature.name,
            arguments={"cdu_id": arguments.cdu_id},
        )


class WithdrawSupplyTemperature(_Supply[CduArguments]):
    """Take our request for a CDU's supply back: the site's safe temperature is asked for instead.

    Then nothing is asked for any more.
    """

    name = "exchange.withdraw_supply_temperature"
    arguments = CduArguments
    does = Does(Asked.SUPPLY, "cdu_id")
