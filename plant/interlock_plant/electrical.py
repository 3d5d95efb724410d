"""The power tree: sums from node to site, breakers that heat and trip, and who has power."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from interlock_plant.arrays import Bools, Floats, sum_by
from interlock_plant.parameters import (
    BREAKER_COOLING_TAU_S,
    BREAKER_HEAT_S,
    BREAKER_PICKUP,
    STEP_S,
)
from interlock_plant.site import SiteSpec


class Breakers:
    """A row of breakers; one trips when its heat reaches 1 and stays open until closed by hand."""

    def __init__(self, rating_w: Sequence[float]) -> None:
        self.rating_w: Floats = np.array(rating_w, dtype=np.float64)
        self.heat: Floats = np.zeros(len(rating_w))
        self.closed: Bools = np.ones(len(rating_w), dtype=np.bool_)

    def step(self, load_w: Floats) -> bool:
        """Advance one second at `load_w`; returns whether any breaker tripped in it."""
        over = (load_w / (BREAKER_PICKUP * self.rating_w)) ** 2 - 1.0
        heating = over * (STEP_S / BREAKER_HEAT_S)
        cooled = self.heat * np.exp(-STEP_S / BREAKER_COOLING_TAU_S)
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
    feed_w: Floats
    site_w: float
    pdu_breakers: Breakers
    feed_breakers: Breakers
    node_lit: Bools = field(default_factory=lambda: np.ones(0, dtype=np.bool_))


class ElectricalModel:
    """What does not change: the tree."""

    def __init__(self, site: SiteSpec) -> None:
        self._site = site
        self._first_gpu = np.searchsorted(site.node_of_gpu, np.arange(len(site.nodes)))

    def fresh(self) -> ElectricalState:
        """No power yet; every breaker closed and cold, every node lit."""
        site = self._site
        return ElectricalState(
            node_w=np.zeros(len(site.nodes)),
            rack_w=np.zeros(len(site.racks)),
            pdu_w=np.zeros(len(site.pdus)),
            feed_w=np.zeros(len(site.feeds)),
            site_w=0.0,
            pdu_breakers=Breakers([pdu.rating_w for pdu in site.pdus]),
            feed_breakers=Breakers([feed.rating_w for feed in site.feeds]),
            node_lit=np.ones(len(site.nodes), dtype=np.bool_),
        )

    def add_up(self, state: ElectricalState, gpu_w: Floats) -> None:
        """Sum `gpu_w` up the tree; a node that is lit also draws its host power."""
        site, host = self._site, self._site.host
        node_w = host.base_w + host.slope * np.add.reduceat(gpu_w, self._first_gpu)
        state.node_w = np.where(state.node_lit, node_w, 0.0)
        state.rack_w = sum_by(site.rack_of_node, state.node_w, len(site.racks))
        state.pdu_w = sum_by(site.pdu_of_rack, state.rack_w, len(site.pdus))
        state.feed_w = sum_by(site.feed_of_pdu, state.pdu_w, len(site.feeds))
        state.site_w = float(state.feed_w.sum())

    def step_breakers(self, state: ElectricalState) -> bool:
        """Advance every breaker one second; returns whether any tripped."""
        pdu_tripped = state.pdu_breakers.step(state.pdu_w)
        feed_tripped = state.feed_breakers.step(state.feed_w)
        return pdu_tripped or feed_tripped

    def light(self, state: ElectricalState, node_down: Bools) -> None:
        """Work out which nodes have power: both breakers above closed, and the node itself up."""
        site = self._site
        pdu_lit = state.pdu_breakers.closed & state.feed_breakers.closed[site.feed_of_pdu]
        state.node_lit = pdu_lit[site.pdu_of_rack][site.rack_of_node] & ~node_down
