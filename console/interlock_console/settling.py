"""The report of a grid event: its settlement as CSV, JSON and picture, and sent to the VTN."""

import json
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from rich.console import Console

from interlock_console.settings import InterlockSettings
from interlock_servers.flex.baseline import HIGH_4_OF_5, METHODS
from interlock_servers.flex.meter import meter_data
from interlock_servers.flex.meter_record import FILE_NAME as SITE_METER
from interlock_servers.flex.meter_record import recorded_meter
from interlock_servers.flex.models import RejectedError
from interlock_servers.flex.openadr.client import OpenAdrClient
from interlock_servers.flex.openadr.reports import settlement_report
from interlock_servers.flex.openadr.settings import OpenAdrSettings
from interlock_servers.flex.recorded import FILE_NAME, recorded_targets
from interlock_servers.flex.settings import FlexSettings
from interlock_servers.flex.settlement import Settlement, last_event, settle
from interlock_tools.clock import SystemClock
from interlock_tools.errors import InvalidRequestError
from interlock_tools.svg import Picture, as_svg


class Wanted(NamedTuple):
    """What a person asked for; None is the usual: the last event, what this site has recorded."""

    event_id: str | None
    meter: Path | None
    zone: str | None
    out: Path
    method: str | None
    targets: Path | None
    holidays: tuple[str, ...]
    until: str | None
    send: bool
    resource: str | None


async def report_event(console: Console, settings: InterlockSettings, wanted: Wanted) -> int:
    """Write CSV, JSON and a picture of an event, and send the report where that is wanted.

    Raises:
        FactoryError: something that it needs is not there or not right.
    """
    made = _settled(settings, wanted)
    if wanted.meter is None:
        own = "metered by this site's own bus, not by the meter that the utility settles by"
        made = made._replace(remarks=(*made.remarks, own))
    wanted.out.mkdir(parents=True, exist_ok=True)
    _write(made, wanted.out)
    _say(console, made, wanted.out)
    if wanted.send:
        name = wanted.resource or settings.site.site_id
        sent = await _send(console, _openadr(settings), made, name)
        console.print(f"sent as {sent}", markup=False)
    return 0


def _settled(settings: InterlockSettings, wanted: Wanted) -> Settlement:
    if settings.flex is None:
        raise InvalidRequestError("the settings have no [flex], which says what the feeds are")
    method = METHODS.get(wanted.method or HIGH_4_OF_5.name)
    if method is None:
        raise InvalidRequestError(f"no method {wanted.method!r}; there is: {', '.join(METHODS)}")
    zone = _zone(settings.flex, wanted.zone)
    meter = wanted.meter or settings.data_dir / SITE_METER
    targets = recorded_targets(wanted.targets or settings.data_dir / FILE_NAME)
    return settle(
        wanted.event_id or last_event(targets),
        targets,
        meter_data(_text_of(wanted.meter, meter), str(meter)),
        method,
        feeds=settings.flex.feeds,
        zone=zone,
        holidays={_day(text) for text in wanted.holidays},
        until=None if wanted.until is None else _moment(wanted.until),
    )


def _zone(flex: FlexSettings, wanted: str | None) -> ZoneInfo:
    name = wanted or (flex.settlement.zone if flex.settlement is not None else None)
    if name is None:
        raise InvalidRequestError("say --zone, or set [flex.settlement] zone")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise InvalidRequestError(
            f"{name!r} is no time zone such as Europe/Oslo, or this machine has no tzdata"
        ) from None


def _text_of(given: Path | None, meter: Path) -> str:
    """A CSV that somebody gave, or what this site has recorded itself."""
    if given is None:
        return recorded_meter(meter)
    try:
        return meter.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{meter} cannot be read: {error}") from error


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(f"{text!r} is no day such as 2026-11-26") from None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidRequestError(f"{text!r} is no moment with a time zone")
    return moment


def _write(made: Settlement, out: Path) -> None:
    (out / "settlement.csv").write_text(made.as_csv(), "utf-8")
    (out / "settlement.json").write_text(json.dumps(made.as_json(), indent=2) + "\n", "utf-8")
    (out / "settlement.svg").write_text(as_svg(picture(made)), "utf-8")


def picture(made: Settlement) -> Picture:
    """Baseline, target and meter over the hours of the event; a gap is a gap."""
    hours = np.array([(row.start - made.rows[0].start).total_seconds() / 3600 for row in made.rows])

    def kilowatts(watts: list[float | None]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([np.nan if value is None else value / 1e3 for value in watts])

    return Picture(
        title=f"Grid event {made.event_id}",
        x_label=f"hours after {made.rows[0].start.isoformat()}",
        y_label="kW",
        lines={
            "baseline": (hours, kilowatts([row.baseline_w for row in made.rows])),
            "metered": (hours, kilowatts([row.metered_w for row in made.rows])),
            "target": (hours, kilowatts([row.target_w for row in made.rows])),
        },
    )


def _say(console: Console, made: Settlement, out: Path) -> None:
    totals = made.totals()
    if totals["reduced_kwh"] is None:
        console.print("nothing can be settled", markup=False)
    else:
        share = totals["delivered_pct"]
        of = "" if share is None else f", {share:.1f} % of what was asked"
        console.print(f"reduced by {totals['reduced_kwh']:.1f} kWh{of}", markup=False)
    console.print(
        f"{totals['intervals_settled']} of {totals['intervals']} intervals settled by "
        f"{made.method}, {totals['intervals_over_target']} over the target, {totals['gaps']} gaps",
        markup=False,
    )
    for remark in made.remarks:
        console.print(f"  {remark}", markup=False)
    console.print(f"written to {out}", markup=False)


def _openadr(settings: InterlockSettings) -> OpenAdrSettings:
    if settings.flex is None or settings.flex.openadr is None:
        raise InvalidRequestError("the settings have no [flex.openadr] to send a report to")
    return settings.flex.openadr


async def _send(
    console: Console, settings: OpenAdrSettings, made: Settlement, resource: str
) -> str:
    def refuse(error: RejectedError, where: str, *_: object) -> None:
        console.print(f"  {where}: {error}", markup=False)

    async with OpenAdrClient(settings, SystemClock(), refuse) as ven:
        await ven.look()
        report = settlement_report(made, ven.event(made.event_id), settings, resource_name=resource)
        return await ven.send_report(report)
