"""Whether the facility's own meters show that limits are obeyed: DPS is not asked about itself."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from interlock_guardrails.facts import FactRegistry
from interlock_servers.maxlps.picture import Picture
from interlock_servers.maxlps.reach import METER_AGE_S, METER_POWER
from interlock_tools.fact import Fact, FactNeed
from interlock_tools.identity import Target
from interlock_tools.operation import Held, Verdict

METERS: Final = "the facility's metering"
METER_TOLERANCE: Final = 0.01  # of the bound: revenue-grade meters and our host model
SETTLES: Final = timedelta(seconds=3)  # the slowest in-band command, and one round of the meter


class Meters:
    """The meters of one site."""

    def __init__(self, facts: FactRegistry, site_id: str) -> None:
        self._facts = facts
        self._site_id = site_id

    async def within(self, picture: Picture, node_ids: Iterable[str], since: datetime) -> Verdict:
        """Every PDU and rack of these nodes metered within what their present limits allow.

        A rack without a meter is covered by its PDU's, which sees one disobedient node less well. A
        reading before `since` says nothing.
        """
        allowed_w = picture.allowed_w()
        views = [picture.nodes[node_id] for node_id in node_ids]
        pdus = {("pdu" if view.pdu_id else "site", view.pdu_id or self._site_id) for view in views}
        racks = {("rack", view.rack_id) for view in views if view.rack_id}
        seen: dict[str, dict[str, float]] = {}
        for kind, name in sorted(pdus) + sorted(racks):
            meter = await self._meter(kind, name)
            if meter is None and kind == "rack":
                continue
            if meter is None or meter.observed_at < since + SETTLES:
                why = f"the meter of {name} has not read since the act"
                return Verdict(held=Held.NOT_YET, source=METERS, evidence={"waiting": why})
            seen[name] = {
                "metered_w": round(float(meter.value["power_w"])),
                "allowed_w": round(allowed_w[name if kind != "site" else picture.root]),
            }
        over = {
            name: reading
            for name, reading in seen.items()
            if reading["metered_w"] > reading["allowed_w"] * (1 + METER_TOLERANCE)
        }
        if over:
            return Verdict(held=Held.NOT_YET, source=METERS, evidence={"above": over})
        return Verdict(held=Held.YES, source=METERS, evidence={"domains": seen})

    async def _meter(self, kind: str, name: str) -> Fact | None:
        """What the facility's own meter says last, if it may be believed."""
        subject = Target(kind=kind, id=name)
        need = FactNeed(kind=METER_POWER, subject=subject, max_age_s=METER_AGE_S)
        answer = await self._facts.fact(need)
        return answer if isinstance(answer, Fact) else None
