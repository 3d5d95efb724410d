"""The day for people: tables in text, and pictures."""

from pathlib import Path
from typing import Final

import numpy as np
from rich.table import Table

from interlock_evals.day.report import by_minute, clock
from interlock_evals.day.run import RULE_OF_PAUSES, RULE_OF_PEOPLE, Day
from interlock_evals.reports import Promise, Report
from interlock_plant.arrays import Floats
from interlock_tools.svg import Picture, as_svg

WINDOWS: Final = 24


def promises_table(report: Report) -> Table:
    """Each promise, what it came to, its limit, and why it does not hold."""
    table = Table(title=f"{report.name}: what was promised, and what came of it")
    for heading in ("promise", "came to", "limit", "", "why not"):
        table.add_column(heading)
    for key, promise in report.promises.items():
        mark = "[green]held" if promise.held else "[red]broken"
        table.add_row(
            key, _value(promise), f"{promise.limit} {promise.unit}", mark, promise.why_not
        )
    return table


def figures_table(report: Report) -> Table:
    """Everything that was counted."""
    table = Table(title=f"commit {report.commit[:12]}", caption=report.machine)
    table.add_column("figure", no_wrap=True)
    table.add_column("value", justify="right")
    for key, figure in report.figures.items():
        table.add_row(key, f"{figure.value:,.10g} {figure.unit}")
    return table


def hours_table(day: Day) -> Table:
    """The day in up to 24 rows: power against its limit, work, breaker, coolant."""
    record, site = day.record, day.record.plant.site
    small = site.pdu_ids.index(day.story.small_pdu[0])
    table = Table(title="Over the day")
    headings = ("from", "site kW", "most", "limit kW", "work kept %", f"{site.pdu_ids[small]} kW")
    for heading in (*headings, "its heat", "coolant out, most C", "core, most C"):
        table.add_column(heading, justify="right")
    length = max(day.story.seconds // WINDOWS, 60)
    for begin in range(0, day.story.seconds, length):
        part = slice(begin, begin + length)
        limits_w = record.limit_w[part]
        told = limits_w[np.isfinite(limits_w)]
        table.add_row(
            clock(begin),
            f"{record.site_w[part].mean() / 1e3:.0f}",
            f"{record.site_w[part].max() / 1e3:.0f}",
            f"{told.min() / 1e3:.0f}" if told.size else "",
            f"{100 * record.kept(begin, begin + length):.1f}",
            f"{record.pdu_w[part, small].mean() / 1e3:.0f}",
            f"{record.heat[part, small].max():.2f}",
            f"{record.return_c[part].max():.1f}",
            f"{record.core_max_c[part].max():.1f}",
        )
    return table


def told(day: Day) -> list[str]:
    """What people decided, what the plant did by itself, what nobody did: in sentences."""
    record = day.record
    load = "the request trace, at night less" if day.traced else "SYNTHETIC: no trace was there"
    people = ", ".join(f"{n} {operation}" for operation, n in day.by_people.items()) or "nothing"
    name, rating_w = day.story.small_pdu
    rules = f"{RULE_OF_PEOPLE}; {RULE_OF_PAUSES if day.people_pause else 'nobody pauses work'}"
    lines = [
        f"serving load: {load}; {name} has a breaker of {rating_w / 1e3:.0f} kW",
        f"people: {rules}; they approved {people}",
        f"the plant by itself: {len(record.trips)} breakers tripped, {len(record.throttled_gpus)}"
        f" GPUs throttled, {len(record.shut_off)} of them were shut off by heat",
        f"the power agent moved caps by {sum(day.moved_w) / 1e3:.1f} kW of GPU limits in "
        f"{len(day.moved_w)} steps and saw {len(day.excursions)} excursions; nothing here pauses "
        "or moves work, closes a valve or drains a rack: that it leaves to people",
    ]
    happened: dict[str, list[str]] = {}
    for second, fault in day.story.scenario.faults:
        what = f"{fault.kind.value}, {clock(second)} for {fault.lasts_s or day.story.seconds} s"
        happened.setdefault(what, []).append(fault.target_id)
    lines += [f"{what}: {', '.join(targets)}" for what, targets in happened.items()]
    lines += [f"the agent's look failed {n} times: {text}" for text, n in day.troubles.items()]
    seen: set[tuple[str, str]] = set()
    for note in day.notes:  # each thing that it said, at its first time
        text = note.text if note.kind != "infeasible" else note.text.partition(" GPU watts")[0]
        key = (note.kind, text if note.kind != "infeasible" else "")
        if key not in seen:
            seen.add(key)
            lines.append(f"agent, {note.at:%H:%M:%S}: {note.kind}: {note.text}")
    return lines


def pictures(day: Day) -> dict[str, Picture]:
    """Power, work, breakers and coolant over the day."""
    record, site = day.record, day.record.plant.site
    rating_w = np.array([pdu.rating_w for pdu in site.pdus])

    def lines(**named: Floats) -> dict[str, tuple[Floats, Floats]]:
        return {name.replace("_", " "): _line(values) for name, values in named.items()}

    minutes = by_minute(record.pdu_w) / rating_w
    heat = by_minute(record.heat)
    small = site.pdu_ids.index(day.story.small_pdu[0])
    offered, done = by_minute(record.offered), by_minute(record.work)
    cdus = {
        f"supply of {cdu_id}": _line(by_minute(record.supply_c[:, place]))
        for place, cdu_id in enumerate(site.cdu_ids[:2])
    }
    returns = {"hottest rack, out": _line(by_minute(record.return_c.max(axis=1)))}
    cores = {"hottest core": _line(by_minute(record.core_max_c))}
    return {
        "power": Picture(
            "Site power against its limit",
            "hours",
            "kW",
            lines(
                site=by_minute(record.site_w) / 1e3,
                limit=by_minute(record.limit_w) / 1e3,
            ),
        ),
        "work": Picture(
            "Work kept", "hours", "share", lines(kept=done / np.maximum(offered, 1e-9))
        ),
        "breakers": Picture(
            "PDU load over rating, and the breaker's heat (trips at 1)",
            "hours",
            "",
            {
                f"{site.pdu_ids[small]}, load": _line(minutes[:, small]),
                f"{site.pdu_ids[small]}, heat": _line(heat[:, small]),
            },
        ),
        "coolant": Picture("Coolant and cores", "hours", "C", cdus | returns | cores),
    }


def write_pictures(day: Day, folder: Path) -> None:
    """Each as `<folder>/<name of the day>-<picture>.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures(day).items():
        (folder / f"{day.story.name}-{name}.svg").write_text(as_svg(picture), "utf-8")


def _line(values: Floats) -> tuple[Floats, Floats]:
    """By hour, without the minutes in which there is none."""
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(1), np.zeros(1)
    return np.flatnonzero(known) / 60.0, values[known]


def _value(promise: Promise) -> str:
    value = promise.value
    if value is None:
        return "never"
    return value if isinstance(value, str) else f"{value:,.10g} {promise.unit}"
