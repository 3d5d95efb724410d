"""Everything that can be seen of a plant, as read-only arrays in index order.

An array describes the last whole second and is never changed afterwards; read it again after the
next step. What a property calls a meter may lie (`METER_FROZEN`); everything else is the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interlock_plant.arrays import Bools, Floats, read_only
from interlock_plant.electrical import ElectricalState
from interlock_plant.faults import Fault, FaultState
from interlock_plant.parameters import THROTTLE_WORK
from interlock_plant.power import PowerModel, PowerState
from interlock_plant.score import ScoreState
from interlock_plant.site import SITE_METER, SiteSpec
from interlock_plant.thermal import CoolingModel, CoolingState
from interlock_tools.errors import InvalidRequestError


@dataclass
class PlantState:
    """Everything that changes; a deep copy of it is a snapshot."""

    second: int
    rng: np.random.Generator
    load_u: Floats  # per job, with one more entry for idle GPUs
    job_running: Bools  # per job; False while paused
    job_work: Floats
    site_limit_w: float | None
    power: PowerState
    cooling: CoolingState
    electrical: ElectricalState
    faults: FaultState
    score: ScoreState


class Observed:
    """The readable side of a plant."""

    site: SiteSpec
    _state: PlantState
    _power: PowerModel
    _cooling: CoolingModel

    # --- GPUs ---

    @property
    def gpu_power_w(self) -> Floats:
        """Mean power over the last second."""
        return read_only(self._state.power.power_w)

    @property
    def gpu_peak_w(self) -> Floats:
        """Greatest power within the last second, overshoot included."""
        return read_only(self._state.power.peak_w)

    @property
    def gpu_energy_j(self) -> Floats:
        """Energy since the start."""
        return read_only(self._state.power.energy_j)

    @property
    def gpu_cap_set_w(self) -> Floats:
        """The cap that the GPU has accepted and will report."""
        return read_only(self._state.power.cap_set_w)

    @property
    def gpu_cap_effective_w(self) -> Floats:
        """The cap that the GPU follows; differs while a command is under way, or is ignored."""
        return read_only(self._state.power.cap_effective_w)

    @property
    def gpu_core_c(self) -> Floats:
        """Core temperature."""
        return read_only(self._state.cooling.core_c)

    @property
    def gpu_is_throttled(self) -> Bools:
        """Whether heat has lowered its clocks."""
        return read_only(self._state.cooling.throttled)

    @property
    def gpu_is_lit(self) -> Bools:
        """Whether it has power: its node is lit and heat has not shut it off."""
        lit = self._state.electrical.node_lit[self.site.node_of_gpu]
        return read_only(lit & ~self._state.cooling.shut_off)

    @property
    def gpu_work(self) -> Floats:
        """Relative throughput in [0, 1] that caps, heat and lost power leave it."""
        return read_only(self._gpu_work())

    @property
    def natural_w(self) -> Floats:
        """Uncapped draw of each GPU at its present load and temperature."""
        return read_only(self._state.power.natural_w)

    @property
    def natural_full_w(self) -> Floats:
        """Uncapped draw of each GPU if its job were at full load, at the present temperature."""
        full_u = np.ones_like(self._state.load_u)
        return self._power.natural_w(full_u, self._state.cooling.core_c)

    # --- jobs ---

    @property
    def job_load(self) -> Floats:
        """Load `u` in [0, 1] of each job."""
        return read_only(self._state.load_u[:-1])

    @property
    def job_work(self) -> Floats:
        """Relative throughput in [0, 1] of each job; a gang's is that of its slowest GPU."""
        return read_only(self._state.job_work)

    @property
    def job_is_running(self) -> Bools:
        """False while the job is paused."""
        return read_only(self._state.job_running)

    # --- power tree: the truth, and what the meters say ---

    @property
    def node_power_w(self) -> Floats:
        """Node power at the wall, host included."""
        return read_only(self._state.electrical.node_w)

    @property
    def rack_power_w(self) -> Floats:
        """Sum over the nodes of each rack."""
        return read_only(self._state.electrical.rack_w)

    @property
    def pdu_power_w(self) -> Floats:
        """Sum over the racks of each PDU."""
        return read_only(self._state.electrical.pdu_w)

    @property
    def feed_power_w(self) -> Floats:
        """Sum over the PDUs of each feed."""
        return read_only(self._state.electrical.feed_w)

    @property
    def site_power_w(self) -> float:
        """Sum over the feeds."""
        return self._state.electrical.site_w

    @property
    def site_limit_w(self) -> float | None:
        """The site's target, if there is one."""
        return self._state.site_limit_w

    @property
    def node_meter_w(self) -> Floats:
        """What the meter of each node says."""
        return self._metered(self.site.node_ids, self._state.electrical.node_w)

    @property
    def rack_meter_w(self) -> Floats:
        """What the meter of each rack says."""
        return self._metered(self.site.rack_ids, self._state.electrical.rack_w)

    @property
    def pdu_meter_w(self) -> Floats:
        """What the meter of each PDU says."""
        return self._metered(self.site.pdu_ids, self._state.electrical.pdu_w)

    @property
    def feed_meter_w(self) -> Floats:
        """What the meter of each feed says."""
        return self._metered(self.site.feed_ids, self._state.electrical.feed_w)

    @property
    def site_meter_w(self) -> float:
        """What the meter at the fence says."""
        return self._state.faults.frozen_w.get(SITE_METER, self._state.electrical.site_w)

    @property
    def node_is_lit(self) -> Bools:
        """Whether each node has power."""
        return read_only(self._state.electrical.node_lit)

    @property
    def pdu_breaker_is_closed(self) -> Bools:
        """Breaker of each PDU."""
        return read_only(self._state.electrical.pdu_breakers.closed)

    @property
    def pdu_breaker_heat(self) -> Floats:
        """Heat of each PDU's breaker; it trips at 1."""
        return read_only(self._state.electrical.pdu_breakers.heat)

    @property
    def feed_breaker_is_closed(self) -> Bools:
        """Breaker of each feed."""
        return read_only(self._state.electrical.feed_breakers.closed)

    # --- coolant ---

    @property
    def rack_liquid_supply_c(self) -> Floats:
        """Coolant into each rack."""
        return read_only(self._cooling.rack_supply_c(self._state.cooling))

    @property
    def rack_liquid_return_c(self) -> Floats:
        """Coolant out of each rack; with no flow, what stands in it."""
        return read_only(self._cooling.rack_return_c(self._state.cooling))

    @property
    def rack_liquid_flow_lpm(self) -> Floats:
        """Coolant flow through each rack."""
        return read_only(self._state.cooling.flow_lpm)

    @property
    def rack_leaks(self) -> Bools:
        """Leak sensor of each rack."""
        return read_only(self._state.faults.leaks)

    @property
    def cdu_supply_c(self) -> Floats:
        """Coolant from each CDU."""
        return read_only(self._state.cooling.supply_c)

    @property
    def cdu_return_c(self) -> Floats:
        """Coolant back at each CDU."""
        return read_only(self._cooling.cdu_return_c(self._state.cooling))

    @property
    def cdu_flow_lpm(self) -> Floats:
        """Coolant flow through each CDU."""
        return read_only(self._cooling.cdu_flow_lpm(self._state.cooling))

    # --- faults ---

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults that have begun and are not repaired: the answer sheet, not a sensor."""
        return self._state.faults.active

    def meter_w(self, meter_id: str) -> float:
        """What one meter says: `site`, or the id of a feed, PDU, rack or node.

        Raises:
            InvalidRequestError: there is no such meter.
        """
        if meter_id == SITE_METER:
            return self.site_meter_w
        for ids, readings in (
            (self.site.feed_ids, self.feed_meter_w),
            (self.site.pdu_ids, self.pdu_meter_w),
            (self.site.rack_ids, self.rack_meter_w),
            (self.site.node_ids, self.node_meter_w),
        ):
            if meter_id in ids:
                return float(readings[ids.index(meter_id)])
        raise InvalidRequestError(f"{self.site.name} has no meter {meter_id!r}")

    def _metered(self, ids: Sequence[str], truth_w: Floats) -> Floats:
        frozen_w = self._state.faults.frozen_w
        if not frozen_w:
            return read_only(truth_w)
        shown = [frozen_w.get(name, float(w)) for name, w in zip(ids, truth_w, strict=True)]
        return read_only(np.array(shown))

    def _gpu_work(self) -> Floats:
        work = self._state.power.work
        throttled = self._state.cooling.throttled
        return np.where(throttled, work * THROTTLE_WORK, work) if throttled.any() else work
