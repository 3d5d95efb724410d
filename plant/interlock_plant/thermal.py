"""Heat: from the die into the coolant of its rack, and from there into the facility's water.

All of a rack's power goes into its coolant: an assumption, right for full liquid cooling. Water
temperatures are per CDU; every node (a tray) adds what its own flow leaves in it.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from interlock_plant.arrays import Bools, Floats, sum_by
from interlock_plant.parameters import (
    COOLANT_W_PER_LPM_K,
    EXCHANGER_EFFECTIVENESS,
    FACILITY_SUPPLY_C,
    FLOW_LPM_PER_KW,
    HBM_THROTTLE_C,
    LOOP_J_PER_K_W,
    PUMP_EXPONENT,
    PUMP_POWER_SHARE,
    SHUT_OFF_K,
    STEP_S,
    SUPPLY_CONTROL_S,
    THROTTLE_C,
    THROTTLE_HYSTERESIS_K,
    THROTTLE_WORK,
    GpuParameters,
)
from interlock_plant.site import SiteSpec

LONGEST_EULER_S: Final = 10.0  # the water's fastest time constant is 40 s


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
    """What changes. `excess_k` is what a node's coolant is hotter than at its design flow."""

    fast_k: Floats  # per GPU
    slow_k: Floats
    hbm_k: Floats  # what the memory is hotter than the core would be
    core_c: Floats
    hbm_c: Floats
    throttled: Bools
    shut_off: Bools  # latched until the node is repaired
    excess_k: Floats  # per node
    flow_lpm: Floats  # per rack
    heat_w: Floats
    supply_c: Floats  # per CDU
    pump_w: Floats
    target_c: Floats  # per CDU; at the facility's own temperature its valve is fully open
    isolated: Bools  # per rack: somebody has shut its coolant valves


class CoolingModel:
    """What does not change: flows and heat capacities by design."""

    def __init__(self, site: SiteSpec) -> None:
        self._site = site
        self._gpu = site.gpu
        self._core_factor: Floats | None = None
        rating_w = np.array([rack.rating_w for rack in site.racks])
        nodes = np.bincount(site.rack_of_node, minlength=len(site.racks))
        self._node_part = 1.0 / np.maximum(nodes, 1)[site.rack_of_node]  # of its rack
        self.design_flow_lpm = FLOW_LPM_PER_KW * rating_w / 1000.0
        self._design_w_per_k = COOLANT_W_PER_LPM_K * self.design_flow_lpm
        self._node_w_per_k = self._design_w_per_k[site.rack_of_node] * self._node_part
        self._node_j_per_k = LOOP_J_PER_K_W * rating_w[site.rack_of_node] * self._node_part
        self._cdu_rating_w = np.array([cdu.rating_w for cdu in site.cdus])
        self._cdu_j_per_k = LOOP_J_PER_K_W * self._cdu_rating_w

    def bind(self, core_factor: Floats | None) -> None:
        """Take note of how much each core warms for its power; None for as usual."""
        self._core_factor = core_factor

    def settled(self, power_w: Floats, rack_w: Floats) -> CoolingState:
        """Steady at `power_w` per GPU and `rack_w` per rack, with every pump and valve right."""
        gpu = self._gpu
        fast_k, slow_k = gpu.r_fast_k_per_w * power_w, gpu.r_slow_k_per_w * power_w
        hbm_k = gpu.hbm_over_core_k_per_w * power_w
        heat_w = self._by_cdu(rack_w)
        flow_w_per_k = np.maximum(self._by_cdu(self._design_w_per_k), 1.0)
        rise_k = heat_w / flow_w_per_k
        supply_c = FACILITY_SUPPLY_C + rise_k * (1.0 / EXCHANGER_EFFECTIVENESS - 1.0)
        nobody = np.zeros(len(power_w), dtype=np.bool_)
        base_c = supply_c[self._site.cdu_of_rack][self._site.rack_of_gpu]
        core_k = fast_k + slow_k
        return CoolingState(
            fast_k=fast_k,
            slow_k=slow_k,
            hbm_k=hbm_k,
            core_c=base_c + self._at_core(core_k),
            hbm_c=base_c + core_k + hbm_k,
            throttled=nobody,
            shut_off=nobody,
            excess_k=np.zeros(len(self._site.nodes)),
            flow_lpm=self.design_flow_lpm,
            heat_w=rack_w,
            supply_c=supply_c,
            pump_w=PUMP_POWER_SHARE * self._cdu_rating_w,
            target_c=np.full(len(self._site.cdus), FACILITY_SUPPLY_C),
            isolated=np.zeros(len(self._site.racks), dtype=np.bool_),
        )

    def rack_supply_c(self, state: CoolingState) -> Floats:
        """Coolant temperature into each rack."""
        return state.supply_c[self._site.cdu_of_rack]

    def rack_return_c(self, state: CoolingState) -> Floats:
        """Coolant temperature out of each rack; in a rack with no flow, of what stands in it."""
        excess_k = self._by_rack(state.excess_k * self._node_part)
        return self.rack_supply_c(state) + state.heat_w / self._design_w_per_k + excess_k

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
        self,
        state: CoolingState,
        power_w: Floats,
        node_w: Floats,
        pump_share: Floats,
        valve_share: Floats,
        fouled_k: Floats | None = None,
        duration_s: float = STEP_S,
    ) -> bool:
        """Advance one second; returns whether heat has shut off any GPU in it.

        Args:
            state: changed in place.
            power_w: per GPU.
            node_w: per node; all of it becomes heat in the coolant.
            pump_share: per CDU, what its pumps move of the design flow, in [0, 1].
            valve_share: per node, what its valves let through of that, in [0, 1].
            fouled_k: per node, what a poor cold plate adds; None where there is none.
            duration_s: 1, or longer in a planning step.
        """
        site = self._site
        flow_share = pump_share[site.cdu_of_rack][site.rack_of_node] * valve_share
        if state.isolated.any():
            flow_share = np.where(state.isolated[site.rack_of_node], 0.0, flow_share)
        state.pump_w = PUMP_POWER_SHARE * self._cdu_rating_w * pump_share**PUMP_EXPONENT
        state.flow_lpm = self.design_flow_lpm * self._by_rack(flow_share * self._node_part)
        state.heat_w = self._by_rack(node_w)
        for _ in range(count := math.ceil(duration_s / LONGEST_EULER_S)):
            self._step_water(state, node_w, flow_share, duration_s / count)

        base_c = self.rack_supply_c(state)[site.rack_of_node] + state.excess_k
        if fouled_k is not None:
            base_c = base_c + fouled_k
        state.fast_k, state.slow_k = core_rise(
            state.fast_k, state.slow_k, power_w, self._gpu, duration_s
        )
        hbm_end_k = self._gpu.hbm_over_core_k_per_w * power_w
        decay = np.exp(-duration_s / self._gpu.tau_slow_s)
        state.hbm_k = hbm_end_k + (state.hbm_k - hbm_end_k) * decay
        base_c = base_c[site.node_of_gpu]
        core_k = state.fast_k + state.slow_k
        state.core_c = base_c + self._at_core(core_k)
        state.hbm_c = base_c + core_k + state.hbm_k
        return self._protect(state)

    def _step_water(
        self, state: CoolingState, node_w: Floats, flow_share: Floats, duration_s: float
    ) -> None:
        # Node: m*dE/dt = Q*(1 - f) - f*C*E. At design flow E dies out; without flow it is Q/m.
        push_w = node_w * (1.0 - flow_share) - flow_share * self._node_w_per_k * state.excess_k
        state.excess_k = state.excess_k + push_w * duration_s / self._node_j_per_k

        # CDU: m*dT/dt = heat brought by the racks - heat passed to the facility's water.
        return_c = self.cdu_return_c(state)
        flow_w_per_k = COOLANT_W_PER_LPM_K * self.cdu_flow_lpm(state)
        brought_w = flow_w_per_k * (return_c - state.supply_c)
        passed_w = EXCHANGER_EFFECTIVENESS * flow_w_per_k * (return_c - FACILITY_SUPPLY_C)
        if (state.target_c > FACILITY_SUPPLY_C).any():  # its valve lets less through than it could
            over_k = state.supply_c - state.target_c
            wanted_w = brought_w + over_k * self._cdu_j_per_k / SUPPLY_CONTROL_S
            passed_w = np.clip(wanted_w, 0.0, np.maximum(passed_w, 0.0))
        state.supply_c = state.supply_c + (brought_w - passed_w) * duration_s / self._cdu_j_per_k

    def _protect(self, state: CoolingState) -> bool:
        """Throttle hot GPUs until they are well below the limit; shut off those far above it."""
        over_k = np.maximum(state.core_c - THROTTLE_C, state.hbm_c - HBM_THROTTLE_C)
        if over_k.max() <= 0.0 and not state.throttled.any():
            return False
        hot = over_k > 0.0
        still_warm = over_k > -THROTTLE_HYSTERESIS_K
        state.throttled = hot | (state.throttled & still_warm)
        too_hot = (over_k > SHUT_OFF_K) & ~state.shut_off
        state.shut_off = state.shut_off | too_hot
        return bool(too_hot.any())

    def throttle(self, state: CoolingState, natural_w: Floats, idle_w: Floats) -> Floats:
        """The draw that is left of `natural_w` once throttled GPUs have lowered their clocks."""
        if not state.throttled.any():
            return natural_w
        lowered_w = idle_w + THROTTLE_WORK * (natural_w - idle_w)
        return np.where(state.throttled, np.minimum(natural_w, lowered_w), natural_w)

    def _at_core(self, rise_k: Floats) -> Floats:
        return rise_k if self._core_factor is None else rise_k * self._core_factor

    def _by_rack(self, values: Floats) -> Floats:
        return sum_by(self._site.rack_of_node, values, len(self._site.racks))

    def _by_cdu(self, values: Floats) -> Floats:
        return sum_by(self._site.cdu_of_rack, values, len(self._site.cdus))
