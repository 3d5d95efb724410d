"""The day as a report: figures, promises with their limits, and why where one does not hold."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

import numpy as np

from interlock_evals.day.record import UNDER_A_CAP, Spell
from interlock_evals.day.rig import START
from interlock_evals.day.run import CONTROL_DELAY_S, Day
from interlock_evals.reports import Figure, Promise, Report
from interlock_plant.arrays import Bools, Floats
from interlock_plant.grid import GridEvent
from interlock_plant.parameters import H100_HOST, JobClass
from interlock_plant.site import SITE_METER
from interlock_tools.change import ENDED, ChangeState

VERSIONS_OF: Final = ("interlock-dsx", "mcp", "paho-mqtt", "grpcio", "cedarpy", "numpy")
MOVES_PER_EVENT: Final = (
    2  # a cut or an excursion is one step down and one back; more is to and fro
)
# One event is down and, an hour's end, up again; a second one in the same hour begins another turn.
REVERSALS_AN_HOUR: Final = 2
HOUR_S: Final = 3600
DECLARED_S: Final = 3600  # a promise whose break was declared before that is declared
NEAR_ITS_RATING: Final = 0.90  # at the hardest load: margin, whole jobs and whole watts are left
TOLD: Final = 3  # spells told one by one
SAME_W: Final = 0.5


def report_of(day: Day) -> Report:
    """The whole of it in the house's form."""
    return Report.of(day.story.name, figures_of(day), promises_of(day), VERSIONS_OF)


def figures_of(day: Day) -> dict[str, Figure]:
    """Everything that was counted or measured."""
    record, story, plant = day.record, day.story, day.record.plant
    found = {
        "simulated_s": Figure(story.seconds, "s"),
        "wall_s": Figure(round(day.wall_s, 1), "s"),
        "real_trace": Figure(int(day.traced), ""),
        "energy_kwh": Figure(round(float(record.site_w.sum()) / 3.6e6, 1), "kWh"),
        "work_kept_pct": Figure(round(100 * record.kept(), 2), "%"),
        "budget_over_ws": Figure(round(sum(s.over_ws for s in record.over)), "W s"),
        "breaker_trips": Figure(len(record.trips), ""),
        "cap_moved_w_per_gpu": Figure(
            round(float(record.cap_moved_w.sum()) / plant.site.gpu_count, 1), "W"
        ),
        "cap_steps": Figure(int((record.cap_moved_w > 0).sum()), "s"),
        "caps_forgotten_in_the_dark": Figure(record.forgotten, "GPUs"),
        "core_max_c": Figure(round(float(record.core_max_c.max()), 1), "C"),
        "coolant_return_max_c": Figure(round(float(record.return_c.max()), 1), "C"),
        "throttled_gpu_s": Figure(record.throttled_gpu_s, "GPU s"),
        "throttled_gpus": Figure(len(record.throttled_gpus), "GPUs"),
        "shut_off_gpus": Figure(len(record.shut_off), "GPUs"),
        "gpus_below_their_default_at_the_end": Figure(int(_low(day).sum()), "GPUs"),
        "floor_declared_s": Figure(_seconds(floors_of(day, declared=True)), "job s"),
        "cap_turns_of_a_domain": Figure(max(map(len, record.turned.values()), default=0), ""),
        "ledger_records": Figure(day.proof.size, ""),
        "approved_by_people": Figure(sum(day.by_people.values()), "changes"),
        "agent_troubles": Figure(sum(day.troubles.values()), ""),
    }
    for number, moved_w in enumerate(day.moved_w, start=1):
        found[f"agent_step_{number:02d}_moved_w"] = Figure(moved_w, "W")
    found["agent_steps_moved_w"] = Figure(sum(day.moved_w), "W")
    found["cap_turns_of_one_gpu"] = Figure(int(record.turns.max()), "")
    for place, pdu_id in enumerate(plant.site.pdu_ids):
        found[f"breaker_heat_max_{pdu_id}"] = Figure(
            round(float(record.heat[:, place].max()), 3), ""
        )
    for place, cdu_id in enumerate(plant.site.cdu_ids):
        most_c = float(record.supply_c[:, place].max())
        found[f"coolant_supply_max_{cdu_id}_c"] = Figure(round(most_c, 2), "C")
    for number, (event, _) in enumerate(day.sent, start=1):
        found |= _of_cut(day, event, number)
    for name, (seconds, over_ws) in _by_name(record.over).items():
        found[f"over_{name}_s"] = Figure(seconds, "s")
        found[f"over_{name}_ws"] = Figure(round(over_ws), "W s")
    for name, (seconds, _) in _by_name(record.floors).items():
        found[f"below_floor_{name}_s"] = Figure(seconds, "s")
    states = {str(state) for state in ENDED} | set(day.by_state)
    found |= {f"changes_{s}": Figure(day.by_state[s], "changes") for s in sorted(states)}
    found |= {f"rule {rule}": Figure(n, "decisions") for rule, n in sorted(day.by_rule.items())}
    kinds = Counter(note.kind for note in day.notes)
    found |= {f"agent_{kind}": Figure(n, "notes") for kind, n in sorted(kinds.items())}
    return found


def promises_of(day: Day) -> dict[str, Promise]:
    """What a day is held to."""
    record = day.record
    late_ws = sum(spell.over_late_ws for spell in record.over)
    open_now = [c for c in day.changes if c.state not in ENDED or c.state is ChangeState.STUCK]
    moves = int(record.moves.max())
    floors_s = _seconds(floors_of(day, declared=False))
    turns, where = reversals_in_an_hour(record.turned)
    return {
        **{
            f"cut_{number}_reached_s": _reached(day, event)
            for number, (event, _) in enumerate(day.sent, start=1)
        },
        "budget_over_after_a_control_delay_ws": Promise.at_most(
            round(late_ws), 0, "W s", why_over(day)
        ),
        "slo_floor_broken_s": Promise.at_most(floors_s, 0, "job s", why_floors(day)),
        "breaker_trips": Promise.at_most(
            len(record.trips),
            0,
            "",
            ", ".join(f"{name} at {clock(at)}" for at, name in record.trips),
        ),
        "ledger_verified": Promise.at_least(int(day.proof.verified), 1, "", day.proof.says),
        "changes_not_ended": Promise.at_most(
            len(open_now), 0, "changes", ", ".join(f"{c.change_id} {c.state}" for c in open_now)
        ),
        "cap_moves_of_one_gpu": Promise.at_most(
            moves,
            MOVES_PER_EVENT * (len(day.sent) + len(day.excursions)),
            "",
            "a cut or an excursion is one step down and one back; more is to and fro",
        ),
        "cap_reversals_in_an_hour": Promise.at_most(turns, REVERSALS_AN_HOUR, "", where),
        "caps_that_could_rise_at_the_end": Promise.at_most(
            len(day.could_rise), 0, "nodes", ", ".join(day.could_rise)
        ),
        "caps_left_low_at_the_end": Promise.at_most(_left_low(day), 0, "GPUs", _why_low(day)),
    }


def why_over(day: Day) -> str:
    """Which budgets were passed, for how long, and who did or could do what."""
    said: list[str] = []
    for name, (seconds, over_ws) in _by_name(day.record.over, late=True).items():
        told = f"{name}: {seconds} s, {over_ws / 1e6:.2f} MW s"
        if name == SITE_METER:
            told += _why_site(day)
        elif name in day.record.plant.site.pdu_ids:
            place = day.record.plant.site.pdu_ids.index(name)
            heat = float(day.record.heat[:, place].max())
            told += f" ({_answered(day, name)}; the breaker's heat reached {heat:.2f} of 1)"
        said.append(told)
    return "; ".join(said)


def _answered(day: Day, domain: str) -> str:
    """When the agent saw this domain near its limit."""
    seen = [note for note in day.excursions if note.text.startswith(f"{domain} ")]
    if not seen:
        return "the agent never saw it near its limit"
    return f"the agent saw it near its limit {len(seen)} times, first at {seen[0].at:%H:%M:%S}"


def _why_site(day: Day) -> str:
    """What kept the agent from acting for the grid, in brackets; nothing where nothing did."""
    said: list[str] = []
    looks = [note.text for note in day.notes if note.kind == "infeasible"]
    if looks:
        said.append(f"the agent told {len(looks)} times that there is no plan; first: {looks[0]}")
    said += [f"its look failed {n} times: {text}" for text, n in day.troubles.most_common(1)]
    return f" ({'; '.join(said)})" if said else ""


def floors_of(day: Day, *, declared: bool) -> list[Spell]:
    """Spells below a floor; declared are those that the agent foretold and that no cap made.

    A declaration names the job, comes before the break, and is no older than an hour then.
    """
    said = [((note.at - START).total_seconds(), note.text) for note in day.declared]

    def foretold(spell: Spell) -> bool:
        return not spell.why.startswith(UNDER_A_CAP) and any(
            text.startswith(f"{spell.what} cannot keep its floor")
            and at_s <= spell.began_s <= at_s + DECLARED_S
            for at_s, text in said
        )

    return [spell for spell in day.record.floors if foretold(spell) == declared]


def _seconds(spells: Iterable[Spell]) -> int:
    return sum(spell.seconds for spell in spells)


def reversals_in_an_hour(turned: Mapping[str, Sequence[int]]) -> tuple[int, str]:
    """How often the caps of one domain changed direction within an hour at most, and which."""
    worst, where = 0, ""
    for name, seconds in turned.items():
        for place, second in enumerate(seconds):
            count = sum(1 for later in seconds[place:] if later < second + HOUR_S)
            if count > worst:
                worst, where = count, f"{name} from {clock(second)}"
    return worst, where


def why_floors(day: Day) -> str:
    """Which floors were broken without a word, for how long, and what stood against them."""
    broken = floors_of(day, declared=False)
    said = [
        f"{spell.what} from {clock(spell.began_s)} for {spell.seconds} s: {spell.why}"
        for spell in sorted(broken, key=lambda s: -s.seconds)[:TOLD]
    ]
    rest = len(broken) - TOLD
    return "; ".join([*said, *([f"and {rest} shorter"] if rest > 0 else [])])


def clock(second: int) -> str:
    """The time of day of a second."""
    return f"{START + timedelta(seconds=second):%H:%M:%S}"


def reached_s(day: Day, event: GridEvent) -> float | None:
    """When the site went under the limit for good, from the cut's beginning; None: never.

    Negative is before it began. The truth at the fence, not the meter.
    """
    told_s = next(at for at, other in day.story.scenario.grid if other is event)
    over = np.flatnonzero(day.record.site_w[told_s : event.ends_s] > event.target_w)
    if not over.size:
        return float(told_s - event.begins_s)
    first = told_s + int(over[-1]) + 1
    return None if first >= event.ends_s else float(first - event.begins_s)


def _reached(day: Day, event: GridEvent) -> Promise:
    took_s = reached_s(day, event)
    if took_s is None:
        kw = float(day.record.site_w[event.begins_s : event.ends_s].mean()) / 1e3
        why = f"{event.target_w / 1e3:.0f} kW asked, {kw:.0f} kW drawn on average{_why_site(day)}"
        return Promise.unmeasured(CONTROL_DELAY_S, "s", why)
    return Promise.at_most(took_s, CONTROL_DELAY_S, "s", _why_site(day) or None)


def _of_cut(day: Day, event: GridEvent, number: int) -> dict[str, Figure]:
    record = day.record
    part = slice(event.begins_s, event.ends_s)
    before = record.site_w[max(event.begins_s - 3600, 0) : event.begins_s]
    return {
        f"cut_{number}_target_w": Figure(event.target_w, "W"),
        f"cut_{number}_drawn_w": Figure(round(float(record.site_w[part].mean())), "W"),
        f"cut_{number}_drawn_max_w": Figure(round(float(record.site_w[part].max())), "W"),
        f"cut_{number}_drawn_hour_before_w": Figure(round(float(before.mean())), "W"),
        f"cut_{number}_work_kept_pct": Figure(
            round(100 * record.kept(event.begins_s, event.ends_s), 2), "%"
        ),
    }


def _low(day: Day) -> Bools:
    plant = day.record.plant
    low: Bools = plant.gpu_cap_set_w < plant.site.gpu.cap_max_w - SAME_W
    return low


def _left_low(day: Day) -> int:
    """GPUs below their default that no rack or PDU needs there, by the plant's own draws.

    One needs them low that could not carry all of its GPUs at their default at the hardest load,
    and that is near its rating as they are; of a job in step one GPU's need is that of all.
    """
    plant = day.record.plant
    site = plant.site
    most_w = plant.natural_full_w

    def loads_w(cap_w: Floats) -> tuple[Floats, Floats]:
        gpus_w = np.bincount(site.node_of_gpu, np.minimum(cap_w, most_w), len(site.nodes))
        nodes_w = H100_HOST.base_w + H100_HOST.slope * gpus_w
        racks_w = np.bincount(site.rack_of_node, nodes_w, len(site.racks))
        pdus_w = np.bincount(site.pdu_of_rack, racks_w, len(site.pdus))
        return racks_w.astype(np.float64), pdus_w.astype(np.float64)

    racks, pdus = (
        (free_w > rating_w) & (now_w >= NEAR_ITS_RATING * rating_w)
        for free_w, now_w, rating_w in zip(
            loads_w(np.full(site.gpu_count, site.gpu.cap_max_w)),
            loads_w(plant.gpu_cap_set_w),
            (np.array([r.rating_w for r in site.racks]), np.array([p.rating_w for p in site.pdus])),
            strict=True,
        )
    )
    needed = racks[site.rack_of_gpu] | pdus[site.pdu_of_rack[site.rack_of_gpu]]
    for job in plant.jobs:
        gpus = list(job.gpu_indices)
        if job.job_class is JobClass.TRAIN and needed[gpus].any():
            needed[gpus] = True
    return int((_low(day) & ~needed).sum())


def _why_low(day: Day) -> str:
    """What became of the wish to release."""
    refused = [note for note in day.notes if note.kind == "refused"]
    if not day.could_rise:
        return "no plan raises them, though no rack or PDU needs them low"
    if not refused:
        return "nobody asked to release them"
    return f"asked {len(refused)} times, last at {refused[-1].at:%H:%M:%S}: {refused[-1].text}"


def _by_name(spells: Iterable[Spell], *, late: bool = False) -> dict[str, tuple[int, float]]:
    """Seconds and watt-seconds of each name; `late` leaves out what ended within a control delay.

    Names come with the worst first.
    """
    sums: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for spell in spells:
        if not late or spell.over_late_ws > 0:
            seconds, over_ws = sums[spell.what]
            sums[spell.what] = (seconds + spell.seconds, over_ws + spell.over_ws)
    return dict(sorted(sums.items(), key=lambda item: (-item[1][1], -item[1][0])))


def by_minute(values: Floats) -> Floats:
    """Means over minutes; of a minute in which nothing is known, NaN."""
    whole = len(values) // 60 * 60
    rows = values[:whole].reshape(-1, 60, *values.shape[1:])
    known = np.isfinite(rows)
    count = known.sum(axis=1)
    total = np.where(known, rows, 0.0).sum(axis=1)
    means: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means
