"""What the plant was like, second by second: the truth, for the judge and for pictures."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from interlock_plant.arrays import Bools, Floats
from interlock_plant.plant import Plant
from interlock_plant.site import SITE_METER

FLOOR_TOLERANCE: Final = 1e-9
SAME_W: Final = 0.5
FAULTS_TOLD: Final = 2
UNDER_A_CAP: Final = "GPUs under a cap"


@dataclass
class Spell:
    """Seconds without a break in which something was wrong."""

    what: str
    began_s: int
    seconds: int = 0
    over_ws: float = 0.0  # watts over, summed over its seconds
    over_late_ws: float = 0.0  # of that, after the first control delay
    whys: Counter[str] = field(default_factory=Counter)

    @property
    def why(self) -> str:
        """What stood against it for most of the time."""
        return self.whys.most_common(1)[0][0] if self.whys else ""


class DayRecord:
    """Takes one look after each plant second; never touches the plant."""

    def __init__(self, plant: Plant, seconds: int, control_delay_s: float) -> None:
        self.plant = plant
        self._delay_s = control_delay_s
        site = plant.site
        self.site_w = np.full(seconds, np.nan)
        self.limit_w = np.full(seconds, np.nan)
        self.pdu_w = np.full((seconds, len(site.pdus)), np.nan)
        self.heat = np.zeros((seconds, len(site.pdus)))
        self.supply_c = np.full((seconds, len(site.cdus)), np.nan)
        self.return_c = np.full((seconds, len(site.racks)), np.nan)
        self.core_max_c = np.full(seconds, np.nan)
        self.work = np.zeros(seconds)
        self.offered = np.zeros(seconds)
        self.cap_moved_w = np.zeros(seconds)
        self.moves = np.zeros(site.gpu_count, dtype=np.int64)  # changes of its cap, GPU by GPU
        self.turns = np.zeros(site.gpu_count, dtype=np.int64)  # from down to up or up to down
        self._way = np.zeros(site.gpu_count)
        # Seconds in which the sum of the caps of a rack or PDU turned from down to up or back.
        self.turned: dict[str, list[int]] = {}
        self._ways: dict[str, float] = {}
        self.forgotten = 0  # caps that went up because a GPU lost power
        self.over: list[Spell] = []
        self.floors: list[Spell] = []
        self.trips: list[tuple[int, str]] = []
        self.throttled_gpu_s = 0
        self.shut_off: set[int] = set()
        self.throttled_gpus: set[int] = set()
        self._open: dict[tuple[str, str], Spell] = {}
        self._cap_w = plant.gpu_cap_set_w
        self._lit = plant.gpu_is_lit
        self._closed = self._breakers()
        ratings = {
            **{feed.feed_id: feed.rating_w for feed in site.feeds},
            **{pdu.pdu_id: pdu.rating_w for pdu in site.pdus},
            **{rack.rack_id: rack.rating_w for rack in site.racks},
        }
        self._names, self._rating_w = tuple(ratings), np.array(list(ratings.values()))
        self._floor = np.array([job.floor_work or 0.0 for job in plant.jobs])
        self._done = (plant.score.work_done, plant.score.work_uncapped)

    def take(self) -> None:
        """Look at the second that has just passed."""
        plant = self.plant
        at = plant.second - 1
        self.site_w[at] = plant.site_power_w
        limit_w = plant.site_limit_w
        self.limit_w[at] = np.nan if limit_w is None else limit_w
        self.pdu_w[at] = plant.pdu_power_w
        self.heat[at] = plant.pdu_breaker_heat
        self.supply_c[at] = plant.cdu_supply_c
        self.return_c[at] = plant.rack_liquid_return_c
        self.core_max_c[at] = plant.gpu_core_c.max()
        done = (plant.score.work_done, plant.score.work_uncapped)
        self.work[at], self.offered[at] = done[0] - self._done[0], done[1] - self._done[1]
        self._done = done
        self._caps(at)
        self._budgets(at, limit_w)
        self._floors(at)
        self._protections(at)

    def kept(self, begin_s: int = 0, end_s: int | None = None) -> float:
        """Work done over work offered, in these seconds."""
        part = slice(begin_s, end_s)
        offered = float(self.offered[part].sum())
        return float(self.work[part].sum()) / offered if offered > 0 else 1.0

    # --- inside ---

    def _caps(self, at: int) -> None:
        cap_w, lit = self.plant.gpu_cap_set_w, self.plant.gpu_is_lit
        moved_w = np.abs(cap_w - self._cap_w)
        if moved_w.any():
            moved = moved_w > SAME_W
            dark = moved & ~(lit & self._lit)
            self.forgotten += int(dark.sum())
            self.moves += moved & ~dark
            way = np.sign(cap_w - self._cap_w)
            self.turns += moved & ~dark & (way == -self._way)
            self._way = np.where(moved & ~dark, way, self._way)
            self._domains(at, np.where(moved & ~dark, cap_w - self._cap_w, 0.0))
            self.cap_moved_w[at] = float(moved_w[~dark].sum())
        self._cap_w, self._lit = cap_w, lit

    def _domains(self, at: int, rise_w: Floats) -> None:
        site = self.plant.site
        racks_w = np.bincount(site.rack_of_gpu, rise_w, len(site.racks))
        pdus_w = np.bincount(site.pdu_of_rack, racks_w, len(site.pdus))
        names = (*site.rack_ids, *site.pdu_ids)
        for name, watts in zip(names, [*racks_w.tolist(), *pdus_w.tolist()], strict=True):
            way = math.copysign(1.0, watts) if abs(watts) > SAME_W else 0.0
            if not way:
                continue
            if way == -self._ways.get(name, way):
                self.turned.setdefault(name, []).append(at)
            self._ways[name] = way

    def _budgets(self, at: int, limit_w: float | None) -> None:
        plant = self.plant
        loads = np.concatenate([plant.feed_power_w, plant.pdu_power_w, plant.rack_power_w])
        over_w = loads - self._rating_w
        wrong = {self._names[place]: float(over_w[place]) for place in np.flatnonzero(over_w > 0)}
        if limit_w is not None and plant.site_power_w > limit_w:
            wrong[SITE_METER] = plant.site_power_w - limit_w
        for name, watts in wrong.items():
            spell = self._spell("over", name, at, self.over)
            spell.seconds += 1
            spell.over_ws += watts
            spell.over_late_ws += watts if at - spell.began_s >= self._delay_s else 0.0
        self._close("over", set(wrong))

    def _floors(self, at: int) -> None:
        plant = self.plant
        below = np.flatnonzero(plant.job_work < self._floor - FLOOR_TOLERANCE)
        names = {plant.jobs[place].job_id for place in below}
        for place in below:
            job = plant.jobs[place]
            spell = self._spell("floor", job.job_id, at, self.floors)
            spell.seconds += 1
            spell.whys[self._why(np.array(job.gpu_indices))] += 1
        self._close("floor", names)

    def _why(self, gpus: Floats) -> str:
        plant = self.plant
        reasons: list[tuple[str, Bools]] = [
            ("GPUs without power or shut off by heat", ~plant.gpu_is_lit[gpus]),
            ("GPUs throttled by heat", plant.gpu_is_throttled[gpus]),
            (UNDER_A_CAP, plant.gpu_cap_set_w[gpus] < plant.site.gpu.cap_max_w - SAME_W),
        ]
        active = [
            f"{fault.kind.value} at {fault.target_id}" for fault in plant.faults[:FAULTS_TOLD]
        ]
        beside = f", beside {' and '.join(active)}" if active else ""
        for text, there in reasons:
            if there.any():
                return text + beside
        return f"not known{beside}"

    def _protections(self, at: int) -> None:
        plant = self.plant
        closed = self._breakers()
        if not np.array_equal(closed, self._closed):
            names = (*plant.site.pdu_ids, *plant.site.feed_ids)
            self.trips += [(at, names[p]) for p in np.flatnonzero(self._closed & ~closed)]
            self._closed = closed
        throttled = plant.gpu_is_throttled & plant.gpu_is_lit
        if throttled.any():
            self.throttled_gpu_s += int(throttled.sum())
            self.throttled_gpus |= set(np.flatnonzero(throttled).tolist())
        dark = ~plant.gpu_is_lit & plant.node_is_lit[plant.site.node_of_gpu]
        if dark.any():
            self.shut_off |= set(np.flatnonzero(dark).tolist())

    def _breakers(self) -> Bools:
        plant = self.plant
        return np.concatenate([plant.pdu_breaker_is_closed, plant.feed_breaker_is_closed])

    def _spell(self, kind: str, name: str, at: int, into: list[Spell]) -> Spell:
        spell = self._open.get((kind, name))
        if spell is None:
            spell = self._open[kind, name] = Spell(name, at)
            into.append(spell)
        return spell

    def _close(self, kind: str, still: set[str]) -> None:
        for key in [key for key in self._open if key[0] == kind and key[1] not in still]:
            del self._open[key]
