"""The power tree: sums from node to site, breakers that heat and trip, and who has power."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from interlock_plant.arrays import Bools, Floats, Ints, sum_by
from interlock_plant.parameters import (
    BREAKER_COOLING_TAU_S,
    BREAKER_HEAT_S,
    BREAKER_PICKUP,
    STEP_S,
)
from interlock_plant.site import SiteSpec
from interlock_plant.ups import UpsModel, UpsState


class Breakers:
    """A row of breakers; one trips when its heat reaches 1 and stays open until closed by hand."""

    def __init__(self, rating_w: Sequence[float]) -> None:
        self.rating_w: Floats = np.array(rating_w, dtype=np.float64)
        self.heat: Floats = np.zeros(len(rating_w))
        self.closed: Bools = np.ones(len(rating_w), dtype=np.bool_)

    def step(self, load_w: Floats, duration_s: float = STEP_S) -> bool:
        """Advance at `load_w`; returns whether any breaker tripped in it."""
        over = (load_w / (BREAKER_PICKUP * self.rating_w)) ** 2 - 1.0
        heating = over * (duration_s / BREAKER_HEAT_S)
        cooled = self.heat * np.exp(-duration_s / BREAKER_COOLING_TAU_S)
        self.heat = np.where(over > 0.0, self.heat + heating, cooled)
        trips = self.closed & (self.heat >= 1.0)
        if not trips.any():
            return False
        self.closed = self.closed & ~trips
        return True

    def close(self, index: int) -> None:
        """Close one breaker; it keeps what heat it has left, so a hot one trips again sooner."""
        self.closed = self.closed.copy()
        self.closed[index] = True


@dataclass
class ElectricalState:
    """What changes: power at every level, mean over the last second, and the breakers."""

    node_w: Floats
    rack_w: Floats
    pdu_w: Floats
    feed_load_w: Floats  # what hangs on each feed, from whatever it comes
    feed_w: Floats  # what the utility gives
    site_w: float  # through the fence: what the feeds take, less what storage gives
    storage_j: float
    storage_wanted_w: float
    storage_w: float  # what it gives; negative while it takes
    pdu_breakers: Breakers
    feed_breakers: Breakers
    ups: UpsState
    feed_present: Bools  # the utility delivers
    pdu_lit: Bools
    rack_share: Floats  # of each rack's load, what its first PDU carries
    rack_open: Bools  # somebody has opened the switch of the rack
    node_lit: Bools = field(default_factory=lambda: np.ones(0, dtype=np.bool_))


class ElectricalModel:
    """What does not change: the tree, and how chassis differ."""

    def __init__(self, site: SiteSpec, *, seed: int) -> None:
        self._site = site
        self._first_gpu = site.first_gpu[:-1]
        self._ups = UpsModel(site)
        self._chassis: Floats | None = None
        if site.chassis_spread > 0.0:
            rng = np.random.default_rng([seed, 4])
            spread = np.clip(rng.standard_normal(len(site.nodes)), -3.0, 3.0)
            self._chassis = 1.0 + site.chassis_spread * spread
        self._is_dual = bool((site.pdu_b_of_rack != site.pdu_of_rack).any())
        self._a_share = np.array(
            [rack.a_share if rack.pdu_b_id else 1.0 for rack in site.racks], dtype=np.float64
        )
        self._levels = _levels(site.pdu_above)
        self._pumps = np.flatnonzero(site.pdu_of_cdu >= 0)

    def fresh(self) -> ElectricalState:
        """No power yet; every breaker closed and cold, every node lit."""
        site = self._site
        return ElectricalState(
            node_w=np.zeros(len(site.nodes)),
            rack_w=np.zeros(len(site.racks)),
            pdu_w=np.zeros(len(site.pdus)),
            feed_load_w=np.zeros(len(site.feeds)),
            feed_w=np.zeros(len(site.feeds)),
            site_w=0.0,
            storage_j=0.0 if site.storage is None else site.storage.energy_j,
            storage_wanted_w=0.0,
            storage_w=0.0,
            pdu_breakers=Breakers([pdu.rating_w for pdu in site.pdus]),
            feed_breakers=Breakers([feed.rating_w for feed in site.feeds]),
            ups=self._ups.fresh(),
            feed_present=np.ones(len(site.feeds), dtype=np.bool_),
            pdu_lit=np.ones(len(site.pdus), dtype=np.bool_),
            rack_share=self._a_share,
            rack_open=np.zeros(len(site.racks), dtype=np.bool_),
            node_lit=np.ones(len(site.nodes), dtype=np.bool_),
        )

    def add_up(self, state: ElectricalState, gpu_w: Floats, pump_w: Floats | None = None) -> None:
        """Sum `gpu_w` up the tree; a node that is lit also draws its host power.

        A feed that is gone gives nothing, whatever its UPS carries; one that is back charges it.
        """
        site, host = self._site, self._site.host
        node_w = host.base_w + host.slope * np.add.reduceat(gpu_w, self._first_gpu)
        if self._chassis is not None:
            node_w = node_w * self._chassis
        state.node_w = np.where(state.node_lit, node_w, 0.0)
        state.rack_w = sum_by(site.rack_of_node, state.node_w, len(site.racks))
        pdus = len(site.pdus)
        if self._is_dual:
            a_w = state.rack_w * state.rack_share
            pdu_w = sum_by(site.pdu_of_rack, a_w, pdus)
            pdu_w += sum_by(site.pdu_b_of_rack, state.rack_w - a_w, pdus)
        else:
            pdu_w = sum_by(site.pdu_of_rack, state.rack_w, pdus)
        if pump_w is not None and self._pumps.size:
            pdu_w += sum_by(site.pdu_of_cdu[self._pumps], pump_w[self._pumps], pdus)
        for level in self._levels:  # deepest first
            pdu_w += sum_by(site.pdu_above[level], pdu_w[level], pdus)
        state.pdu_w = pdu_w
        top = site.pdu_above < 0
        state.feed_load_w = sum_by(site.feed_of_pdu[top], pdu_w[top], len(site.feeds))
        state.feed_w = state.feed_load_w
        if site.ups:
            state.feed_w = state.feed_load_w + self._ups.recharge_w(state.ups)
        utility = self._utility(state)
        if not utility.all():
            state.feed_w = np.where(utility, state.feed_w, 0.0)
        state.site_w = float(state.feed_w.sum())

    def step_storage(self, state: ElectricalState, duration_s: float = STEP_S) -> None:
        """Let storage give or take what is wanted of it, within what it holds and the site draws.

        It stands at the fence and does not feed the site alone: without a feed it does nothing.
        """
        storage, wanted_w = self._site.storage, state.storage_wanted_w
        if storage is None:
            return
        if wanted_w > 0.0:
            state.storage_w = min(wanted_w, state.storage_j / duration_s, state.site_w)
        else:
            room_w = (storage.energy_j - state.storage_j) / duration_s
            state.storage_w = max(wanted_w, -room_w) if state.site_w > 0.0 else 0.0
        state.storage_j -= state.storage_w * duration_s
        state.site_w -= state.storage_w

    def step_protection(self, state: ElectricalState, duration_s: float = STEP_S) -> bool:
        """Advance every breaker and UPS; returns whether who has power may have changed."""
        pdu_tripped = state.pdu_breakers.step(state.pdu_w, duration_s)
        utility = self._utility(state)  # of the step just past
        feed_tripped = state.feed_breakers.step(state.feed_w, duration_s)
        ups_changed = self._ups.step(state.ups, state.feed_load_w, utility, duration_s)
        return pdu_tripped or feed_tripped or ups_changed

    def light(
        self, state: ElectricalState, node_down: Bools, feed_lost: Bools, pdu_lost: Bools
    ) -> None:
        """Work out which nodes have power: one path down to them closed, and the node itself up."""
        site = self._site
        state.feed_present = ~feed_lost
        lit = self._ups.carries(state.ups, self._utility(state))
        pdu_lit = state.pdu_breakers.closed & lit[site.feed_of_pdu] & ~pdu_lost
        for level in reversed(self._levels):
            pdu_lit[level] &= pdu_lit[site.pdu_above[level]]
        state.pdu_lit = pdu_lit
        a_lit, b_lit = pdu_lit[site.pdu_of_rack], pdu_lit[site.pdu_b_of_rack]
        state.rack_share = np.where(a_lit & b_lit, self._a_share, np.where(a_lit, 1.0, 0.0))
        rack_lit = (a_lit | b_lit) & ~state.rack_open
        state.node_lit = rack_lit[site.rack_of_node] & ~node_down

    def pumps_lit(self, state: ElectricalState) -> Bools:
        """Per CDU: whether its pumps have power."""
        of_cdu = self._site.pdu_of_cdu
        return (of_cdu < 0) | state.pdu_lit[np.maximum(of_cdu, 0)]

    def fail_ups(self, state: ElectricalState, place: int, *, failed: bool) -> None:
        """Put a UPS into bypass, or take it back into service, cool."""
        self._ups.fail(state.ups, place, failed=failed)

    def _utility(self, state: ElectricalState) -> Bools:
        return state.feed_present & state.feed_breakers.closed


def _levels(above: Ints) -> list[Ints]:
    """PDUs that stand under others, by depth, the deepest first."""
    depth = np.zeros(len(above), dtype=np.int64)
    at = above.copy()
    while (at >= 0).any():
        depth += at >= 0
        at = np.where(at >= 0, above[np.maximum(at, 0)], -1)
    return [np.flatnonzero(depth == level) for level in range(int(depth.max(initial=0)), 0, -1)]
