"""UPS: ride through the loss of a feed on stored energy, with a short overload table."""

from dataclasses import dataclass

import numpy as np

from interlock_plant.arrays import Bools, Floats
from interlock_plant.parameters import STEP_S, UPS_COOLING_S, UPS_OVERLOAD, UPS_RECHARGE_SHARE
from interlock_plant.site import SiteSpec


@dataclass
class UpsState:
    """What changes, per UPS."""

    stored_j: Floats
    strain: Floats  # share of the time at overload that it has used; it fails at 1
    failed: Bools  # in bypass: the feed reaches the load, and nothing rides through


class UpsModel:
    """What does not change: which feed each stands behind, and how much it holds."""

    def __init__(self, site: SiteSpec) -> None:
        self._feeds = len(site.feeds)
        self._feed = site.feed_of_ups
        self._rating_w = np.array([ups.rating_w for ups in site.ups])
        self._recharge_w = UPS_RECHARGE_SHARE * self._rating_w
        self._full_j = np.array([ups.rating_w * ups.ride_s for ups in site.ups])

    def fresh(self) -> UpsState:
        """Full and cool."""
        count = len(self._rating_w)
        return UpsState(self._full_j.copy(), np.zeros(count), np.zeros(count, dtype=np.bool_))

    def carries(self, state: UpsState, utility: Bools) -> Bools:
        """Per feed: whether its load has power, from the utility or from a UPS."""
        lit = utility.copy()
        lit[self._feed] |= ~state.failed & (state.stored_j > 0.0)
        return lit

    def recharge_w(self, state: UpsState) -> Floats:
        """Per feed: what its UPS takes to fill up again, while the utility is there."""
        out = np.zeros(self._feeds)
        out[self._feed] = np.where(state.stored_j < self._full_j, self._recharge_w, 0.0)
        return out

    def fail(self, state: UpsState, place: int, *, failed: bool) -> None:
        """Put one into bypass, or back into service, cool."""
        state.failed, state.strain = state.failed.copy(), state.strain.copy()
        state.failed[place], state.strain[place] = failed, 0.0

    def step(
        self, state: UpsState, feed_w: Floats, utility: Bools, duration_s: float = STEP_S
    ) -> bool:
        """Advance; returns whether a UPS ran empty, failed or took over."""
        if not self._rating_w.size:
            return False
        load_w, present = feed_w[self._feed], utility[self._feed]
        was = state.stored_j > 0.0
        change_j = np.where(present, self._recharge_w * duration_s, -load_w * duration_s)
        state.stored_j = np.clip(state.stored_j + change_j, 0.0, self._full_j)
        # An overload counts wherever the power comes from: it flows through the converter.
        longest_s = overload_s(load_w / self._rating_w)
        cooled = np.maximum(state.strain - duration_s / UPS_COOLING_S, 0.0)
        strained = state.strain + duration_s / longest_s
        state.strain = np.where(np.isfinite(longest_s), strained, cooled)
        fails = ~state.failed & (state.strain >= 1.0)
        state.failed = state.failed | fails
        return bool(fails.any() or (was != (state.stored_j > 0.0)).any())


def overload_s(share: Floats) -> Floats:
    """Longest time at a load, share of the rating: infinite up to 1, the table's low ends above."""
    limits = np.array([row[0] for row in UPS_OVERLOAD])
    times = np.array([*(row[1] for row in UPS_OVERLOAD), 1e-3])
    longest_s: Floats = times[np.searchsorted(limits, share)]
    return np.where(share <= 1.0, np.inf, longest_s)
