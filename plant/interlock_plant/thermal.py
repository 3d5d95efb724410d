"""Heat: from the die into the coolant of its rack, and from there into the facility's water.

All of a rack's power goes into its coolant: an assumption, right for full liquid cooling. Water
temperatures are per CDU; a rack adds its own rise.
"""

from dataclasses import dataclass

import numpy as np

from interlock_plant.arrays import Bools, Floats, sum_by
from interlock_plant.parameters import (
    COOLANT_W_PER_LPM_K,
    EXCHANGER_EFFECTIVENESS,
    FACILITY_SUPPLY_C,
    FLOW_LPM_PER_KW,
    LOOP_J_PER_K_W,
    SHUT_OFF_C,
    STEP_S,
    THROTTLE_C,
    THROTTLE_HYSTERESIS_K,
    THROTTLE_WORK,
    GpuParameters,
)
from interlock_plant.site import SiteSpec


def core_rise(
    fast_k: Floats, slow_k: Floats, power_w: Floats, gpu: GpuParameters, duration_s: float
) -> tuple[Floats, Floats]:
    """Fast and slow rise of the core over its coolant, `duration_s` later at steady `power_w`."""
    fast_end_k = gpu.r_fast_k_per_w * power_w
    slow_end_k = gpu.r_slow_k_per_w * power_w
    fast_k = fast_end_k + (fast_k - fast_end_k) * np.exp(-duration_s / gpu.tau_fast_s)
    slow_k = slow_end_k + (slow_k - slow_end_k) * np.exp(-duration_s / gpu.tau_slow_s)
    return fast_k, slow_k


@dataclass
class CoolingState:
    """What changes. `excess_k` is what a rack's coolant is hotter than at its design flow."""

    fast_k: Floats  # per GPU
    slow_k: Floats
    core_c: Floats
    throttled: Bools
    shut_off: Bools  # latched until the node is repaired
    excess_k: Floats  # per rack
    flow_lpm: Floats
    heat_w: Floats
    supply_c: Floats  # per CDU


class CoolingModel:
    """What does not change: flows and heat capacities by design."""

    def __init__(self, site: SiteSpec) -> None:
        self._site = site
        self._gpu = site.gpu
        self._racks = np.arange(len(site.racks))
        rating_w = np.array([rack.rating_w for rack in site.racks])
        self.design_flow_lpm = FLOW_LPM_PER_KW * rating_w / 1000.0
        self._design_w_per_k = COOLANT_W_PER_LPM_K * self.design_flow_lpm
        self._rack_j_per_k = LOOP_J_PER_K_W * rating_w
        self._cdu_j_per_k = LOOP_J_PER_K_W * np.array([cdu.rating_w for cdu in site.cdus])

    def settled(self, power_w: Floats, rack_w: Floats) -> CoolingState:
        """Steady at `power_w` per GPU and `rack_w` per rack, with every pump and valve right."""
        fast_k, slow_k = (
            self._gpu.r_fast_k_per_w * power_w,
            self._gpu.r_slow_k_per_w * power_w,
        )
        heat_w = self._by_cdu(rack_w)
        flow_w_per_k = np.maximum(self._by_cdu(self._design_w_per_k), 1.0)
        rise_k = heat_w / flow_w_per_k
        supply_c = FACILITY_SUPPLY_C + rise_k * (1.0 / EXCHANGER_EFFECTIVENESS - 1.0)
        nobody = np.zeros(len(power_w), dtype=np.bool_)
        return CoolingState(
            fast_k=fast_k,
            slow_k=slow_k,
            core_c=supply_c[self._site.cdu_of_rack][self._site.rack_of_gpu] + fast_k + slow_k,
            throttled=nobody,
            shut_off=nobody,
            excess_k=np.zeros(len(rack_w)),
            flow_lpm=self.design_flow_lpm,
            heat_w=rack_w,
            supply_c=supply_c,
        )

    def rack_supply_c(self, state: CoolingState) -> Floats:
        """Coolant temperature into each rack."""
        return state.supply_c[self._site.cdu_of_rack]

    def rack_return_c(self, state: CoolingState) -> Floats:
        """Coolant temperature out of each rack; in a rack with no flow, of what stands in it."""
        return self.rack_supply_c(state) + state.heat_w / self._design_w_per_k + state.excess_k

    def cdu_return_c(self, state: CoolingState) -> Floats:
        """Coolant temperature back at each CDU: its racks', mixed by flow."""
        flow = state.flow_lpm
        total = self._by_cdu(flow)
        mixed = self._by_cdu(flow * self.rack_return_c(state))
        return np.where(total > 0.0, mixed / np.maximum(total, 1e-9), state.supply_c)

    def cdu_flow_lpm(self, state: CoolingState) -> Floats:
        """Coolant flow through each CDU."""
        return self._by_cdu(state.flow_lpm)

    def step(
        self, state: CoolingState, power_w: Floats, rack_w: Floats, flow_share: Floats
    ) -> bool:
        """Advance one second; returns whether heat has shut off any GPU in it.

        Args:
            state: changed in place.
            power_w: per GPU.
            rack_w: per rack; all of it becomes heat in the coolant.
            flow_share: per rack, of its design flow, in [0, 1].
        """
        # Rack: m*dE/dt = Q*(1 - f) - f*C*E. At design flow E dies out; without flow it is Q/m.
        push_w = rack_w * (1.0 - flow_share) - flow_share * self._design_w_per_k * state.excess_k
        state.excess_k = state.excess_k + push_w * STEP_S / self._rack_j_per_k
        state.flow_lpm = flow_share * self.design_flow_lpm
        state.heat_w = rack_w

        # CDU: m*dT/dt = heat brought by the racks - heat passed to the facility's water.
        return_c = self.cdu_return_c(state)
        flow_w_per_k = COOLANT_W_PER_LPM_K * self.cdu_flow_lpm(state)
        brought_w = flow_w_per_k * (return_c - state.supply_c)
        passed_w = EXCHANGER_EFFECTIVENESS * flow_w_per_k * (return_c - FACILITY_SUPPLY_C)
        state.supply_c = state.supply_c + (brought_w - passed_w) * STEP_S / self._cdu_j_per_k

        base_c = self.rack_supply_c(state) + state.excess_k
        state.fast_k, state.slow_k = core_rise(
            state.fast_k, state.slow_k, power_w, self._gpu, STEP_S
        )
        state.core_c = base_c[self._site.rack_of_gpu] + state.fast_k + state.slow_k
        return self._protect(state)

    def _protect(self, state: CoolingState) -> bool:
        """Throttle hot GPUs until they are well below the limit; shut off those far above it."""
        if state.core_c.max() <= THROTTLE_C and not state.throttled.any():
            return False
        hot = state.core_c > THROTTLE_C
        still_warm = state.core_c > THROTTLE_C - THROTTLE_HYSTERESIS_K
        state.throttled = hot | (state.throttled & still_warm)
        too_hot = (state.core_c > SHUT_OFF_C) & ~state.shut_off
        state.shut_off = state.shut_off | too_hot
        return bool(too_hot.any())

    def throttle(self, state: CoolingState, natural_w: Floats, idle_w: Floats) -> Floats:
        """The draw that is left of `natural_w` once throttled GPUs have lowered their clocks."""
        if not state.throttled.any():
            return natural_w
        lowered_w = idle_w + THROTTLE_WORK * (natural_w - idle_w)
        return np.where(state.throttled, np.minimum(natural_w, lowered_w), natural_w)

    def _by_cdu(self, values: Floats) -> Floats:
        return sum_by(self._site.cdu_of_rack, values, len(self._site.cdus))
