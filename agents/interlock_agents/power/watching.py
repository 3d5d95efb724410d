"""Excursions: a feed, PDU or rack near its limit, a leak, hot coolant; begun, held, and over.

What has begun is over only after a while well below where it began, and after a longer while each
time that it comes back: so nothing goes to and fro.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from interlock_agents.connection import PAGE, Servers
from interlock_agents.notes import Notebook
from interlock_tools.clock import Clock
from interlock_tools.errors import ComponentError

LOOK_EVERY_S: Final = 10.0  # a breaker at 1.4 of its rating opens after 59 s
BUDGETS_EVERY_S: Final = 300.0  # a tree is rebuilt by hand
NEAR, FAR = 0.97, 0.90  # of a budget, at the meter: begins, may be over
HOT_C, COOL_C = 50.0, 45.0  # of the coolant that leaves a rack [A]: W45 supply is at most 45 C
HEAT_SHARE: Final = 0.8  # of its present draw that a hot rack keeps; again while it stays hot
HEAT_AGAIN_S: Final = 300.0
HOLD_S: Final = 600.0  # without cause, before it is over; twice as long each time it comes back
MOST_HOLDS: Final = 5
LOWEST_W: Final = 1.0  # a limit that nothing meets: the lowest caps that keep every floor

Kind = Literal["breaker", "leak", "heat"]


@dataclass
class Excursion:
    """One thing that is wrong with one domain.

    `limit_w` is what the domain should draw at most, `answered_at` when caps for it were set,
    `is_declared` whether people were told whose promise it breaks.
    """

    domain: str
    kind: Kind
    limit_w: float
    why: str
    hold_s: float
    answered_at: datetime | None = None
    is_declared: bool = False
    calm_since: datetime | None = None

    @property
    def purpose(self) -> str:
        """What distinguishes it."""
        return f"{self.kind} {self.domain}"


class Watch:
    """Looks at the facility's meters and sensors through the exchange's tools."""

    def __init__(self, servers: Servers, clock: Clock, notes: Notebook) -> None:
        self._servers, self._clock, self._notes = servers, clock, notes
        self.open: dict[str, Excursion] = {}
        self._times: dict[str, int] = {}
        self.budgets_w: dict[str, float] = {}
        self._look_at: datetime | None = None
        self._budgets_at: datetime | None = None

    @property
    def limits_w(self) -> dict[str, float]:
        """What the domains with an open excursion should draw at most."""
        limits: dict[str, float] = {}
        for one in self.open.values():
            limits[one.domain] = min(one.limit_w, limits.get(one.domain, one.limit_w))
        return limits

    async def look(self) -> list[Excursion]:
        """Look, if it is time to; what is over since the last look."""
        now = self._clock.now()
        if self._look_at is not None and now < self._look_at:
            return []
        self._look_at = now + timedelta(seconds=LOOK_EVERY_S)
        before = dict(self.open)
        try:
            watts = await self._watts()
            await self._breakers(watts, now)
            await self._leaks(now)
            await self._heat(watts, now)
        except ComponentError as error:
            self._notes.note("trouble", f"cannot watch the site: {error}", about="watch")
        return [one for purpose, one in before.items() if purpose not in self.open]

    # ── what is looked at ─────────────────────────────────────────────────────────────────────

    async def _watts(self) -> dict[str, float | None]:
        """Metered watts by domain; None is unknown."""
        rows: dict[str, float | None] = {}
        async for page in self._servers.pages(
            "exchange", "site_power", limit=PAGE, fields=["power_w"]
        ):
            rows[page["site_id"]] = page.get("power_w")
            rows |= {row["id"]: row.get("power_w") for row in page["below"]}
        unknown = sorted(name for name, watts in rows.items() if watts is None)
        if unknown:
            told = f"{len(unknown)} meters give no trustworthy reading, first {unknown[0]}"
            self._notes.note("unknown", told, about="meters")
        return rows

    async def _breakers(self, watts: dict[str, float | None], now: datetime) -> None:
        if self._budgets_at is None or now >= self._budgets_at:
            budgets: dict[str, float] = {}
            async for page in self._servers.pages("maxlps", "power_tree", limit=PAGE):
                budgets |= {
                    row["id"]: row["budget_w"]
                    for row in page["domains"]
                    if row.get("budget_w") is not None
                }
            self.budgets_w = budgets
            self._budgets_at = now + timedelta(seconds=BUDGETS_EVERY_S)
        for domain, budget_w in self.budgets_w.items():
            drawn_w = watts.get(domain)
            if drawn_w is None:
                continue  # unknown: what has begun is not over, and nothing new is known
            why = f"{domain} draws {drawn_w / 1e3:.1f} of {budget_w / 1e3:.1f} kW"
            self._judge(
                Excursion(domain, "breaker", budget_w, why, HOLD_S),
                begins=drawn_w >= NEAR * budget_w,
                calm=drawn_w <= FAR * budget_w,
                now=now,
            )

    async def _leaks(self, now: datetime) -> None:
        leaking: set[str] = set()
        unsure: set[str] = set()
        async for page in self._servers.pages("exchange", "list_leaks", limit=PAGE):
            for row in page["racks"]:
                if row.get("kind", "rack") != "rack":
                    continue
                wet = row.get("leak") is True or row.get("liquid_isolated") is True
                (leaking if wet else unsure).add(row["id"])
        for rack in sorted(leaking):
            why = f"{rack} leaks or has its coolant shut off"
            self._judge(Excursion(rack, "leak", LOWEST_W, why, HOLD_S), begins=True, now=now)
        for one in self._of("leak"):
            if one.domain not in leaking:
                # A sensor that cannot tell is no dry rack: the excursion stays.
                self._judge(one, begins=False, calm=one.domain not in unsure, now=now)

    async def _heat(self, watts: dict[str, float | None], now: datetime) -> None:
        async for page in self._servers.pages(
            "exchange",
            "list_points",
            limit=PAGE,
            point_type="RackLiquidReturnTemperature",
            fields=["value", "rack_id"],
        ):
            for row in page["points"]:
                rack, celsius = row.get("rack_id"), row.get("value")
                if rack is None or celsius is None:
                    continue
                drawn_w = watts.get(rack) or self.budgets_w.get(rack)
                if drawn_w is None:
                    continue
                why = f"the coolant leaves {rack} at {celsius:.1f} C"
                hot = celsius >= HOT_C
                one = Excursion(rack, "heat", HEAT_SHARE * drawn_w, why, HOLD_S)
                self._judge(one, begins=hot, calm=celsius <= COOL_C, now=now)
                known = self.open.get(one.purpose)
                if hot and known is not None and _is_old(known.answered_at, now):
                    known.limit_w = min(known.limit_w, one.limit_w)
                    known.why, known.answered_at = f"{why} still", None

    # ── begun, held, over ─────────────────────────────────────────────────────────────────────

    def _judge(self, seen: Excursion, *, begins: bool, now: datetime, calm: bool = False) -> None:
        known = self.open.get(seen.purpose)
        if known is None:
            if begins:
                times = self._times[seen.purpose] = self._times.get(seen.purpose, 0) + 1
                seen.hold_s = HOLD_S * 2 ** min(times - 1, MOST_HOLDS)
                self.open[seen.purpose] = seen
                self._notes.note("excursion", seen.why, about=seen.purpose)
            return
        if not calm:
            known.calm_since = None
        elif known.calm_since is None:
            known.calm_since = now
        elif (now - known.calm_since).total_seconds() >= known.hold_s:
            del self.open[seen.purpose]
            self._notes.note("over", f"{known.why}: no more since then", about=seen.purpose)

    def _of(self, kind: Kind) -> list[Excursion]:
        return [one for one in self.open.values() if one.kind == kind]


def unanswered(open_now: Iterable[Excursion]) -> list[Excursion]:
    """Those for which no caps were set yet."""
    return [one for one in open_now if one.answered_at is None]


def _is_old(answered_at: datetime | None, now: datetime) -> bool:
    return answered_at is not None and (now - answered_at).total_seconds() >= HEAT_AGAIN_S
