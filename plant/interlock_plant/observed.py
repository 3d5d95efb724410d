"""Everything that can be seen of a plant, as read-only arrays in index order.

An array describes the last whole second and is never changed afterwards; read it again after the
next step. What a property calls a meter may lie (`METER_FROZEN`); everything else is the truth.
"""

from collections.abc import Sequence

import numpy as np

from interlock_plant.arrays import Bools, Floats, read_only, sum_by
from interlock_plant.electrical import ElectricalModel
from interlock_plant.faults import Fault
from interlock_plant.jobs import Job
from interlock_plant.lifecycle import LifeModel, Phase
from interlock_plant.parameters import SENSE_EVERY_S, SENSE_WINDOW_S, SUB_STEP_S, THROTTLE_WORK
from interlock_plant.power import PowerModel
from interlock_plant.score import ScoreModel
from interlock_plant.site import SITE_METER, SiteSpec
from interlock_plant.state import PlantState
from interlock_plant.thermal import CoolingModel
from interlock_tools.errors import InvalidRequestError


class Observed:
    """The readable side of a plant."""

    site: SiteSpec
    jobs: tuple[Job, ...]  # those that hold GPUs now
    _placed: list[int]  # their places in the roster
    _is_static: bool
    _state: PlantState
    _power: PowerModel
    _cooling: CoolingModel
    _electrical: ElectricalModel
    _life: LifeModel
    _scoring: ScoreModel

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
    def gpu_sampled_w(self) -> Floats:
        """The driver's instant reading: of the last 25 ms of the second, not of the second.

        After a transient it differs from the mean; a swing within the second can hide from it.
        """
        power = self._state.power
        shown = power.end_w
        if power.moving.size and len(power.moving_w) > 1:
            shown = shown.copy()
            before_w, end_w = power.moving_w[-2], power.moving_w[-1]
            middle = SENSE_WINDOW_S / 2.0 / max(SUB_STEP_S, SENSE_EVERY_S)
            shown[power.moving] = end_w + (before_w - end_w) * middle
        return read_only(np.where(self.gpu_is_lit, shown, 0.0))

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
    def gpu_hbm_c(self) -> Floats:
        """Memory temperature."""
        return read_only(self._state.cooling.hbm_c)

    @property
    def gpu_is_braked(self) -> Bools:
        """Whether the power brake holds it."""
        held = self._power.braked(self._state.power)
        return read_only(np.zeros(self.site.gpu_count, dtype=np.bool_) if held is None else held)

    @property
    def gpu_is_throttled(self) -> Bools:
        """Whether heat has lowered its clocks."""
        return read_only(self._state.cooling.throttled)

    @property
    def gpu_is_lit(self) -> Bools:
        """Whether it has power: its node is lit, heat has not shut it off, the bus sees it."""
        lit = self._state.electrical.node_lit[self.site.node_of_gpu]
        return read_only(lit & ~self._state.cooling.shut_off & ~self._state.faults.gpu_gone)

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
        return self._of_placed(self._state.load_u[:-1])

    @property
    def job_work(self) -> Floats:
        """Relative throughput in [0, 1] of each job; a gang's is that of its slowest GPU."""
        return self._of_placed(self._state.job_work)

    @property
    def job_is_running(self) -> Bools:
        """False while the job is paused, saved, loading or interrupted."""
        running = self._state.life.running
        return read_only(running if self._is_static else running[self._placed])

    @property
    def job_slo_held(self) -> Bools:
        """Whether the service level of each job holds; true for work without one."""
        state = self._state
        held = self._scoring.slo_held(state.job_work, state.load_u[:-1])
        return read_only(held if self._is_static else held[self._placed])

    @property
    def job_backlog_s(self) -> Floats:
        """What users of each serving job wait for, in seconds of its full throughput."""
        return self._of_placed(self._state.backlog_s)

    @property
    def phases(self) -> dict[str, Phase]:
        """Where each job is in its life, those of the queue too."""
        phase = self._state.life.phase.tolist()
        roster = self._life.roster
        return {job.job_id: Phase(at) for job, at in zip(roster, phase, strict=True)}

    @property
    def waited_s(self) -> dict[str, float]:
        """How long each job of the queue has waited since it arrived."""
        waited = self._state.life.waited_s.tolist()
        return {job.job_id: s for job, s in zip(self._life.roster, waited, strict=True) if s}

    @property
    def interruptions(self) -> dict[str, int]:
        """How often each job that was ever interrupted lost work."""
        times = self._state.life.interruptions.tolist()
        return {job.job_id: n for job, n in zip(self._life.roster, times, strict=True) if n}

    def done_s(self, job_id: str) -> float:
        """What a job has done, in seconds at full throughput.

        Raises:
            InvalidRequestError: there is no such job.
        """
        return float(self._state.life.done_s[self._life.place(job_id)])

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
        """What the utility gives through each feed; nothing while a UPS carries the load."""
        return read_only(self._state.electrical.feed_w)

    @property
    def site_power_w(self) -> float:
        """Through the fence: the sum over the feeds, less what storage gives."""
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

    @property
    def feed_is_present(self) -> Bools:
        """Whether the utility delivers at each feed."""
        return read_only(self._state.electrical.feed_present)

    @property
    def pdu_is_lit(self) -> Bools:
        """Whether each PDU has power."""
        return read_only(self._state.electrical.pdu_lit)

    @property
    def ups_stored_j(self) -> Floats:
        """Energy in each UPS."""
        return read_only(self._state.electrical.ups.stored_j)

    @property
    def ups_is_failed(self) -> Bools:
        """Whether each UPS is in bypass, by a fault or by an overload that lasted too long."""
        return read_only(self._state.electrical.ups.failed)

    @property
    def storage_j(self) -> float:
        """Energy in the site's storage; 0 where there is none."""
        return self._state.electrical.storage_j

    @property
    def storage_w(self) -> float:
        """What the site's storage gives; negative while it takes."""
        return self._state.electrical.storage_w

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
        """Leak sensor of each rack, wet too when a node in it leaks."""
        faults, site = self._state.faults, self.site
        if faults.node_leak_began_s.max() < 0:
            return read_only(faults.leaks)
        leaking = (faults.node_leak_began_s >= 0).astype(np.float64)
        wet = sum_by(site.rack_of_node, leaking, len(site.racks))
        return read_only(faults.leaks | (wet > 0))

    @property
    def cdu_pump_w(self) -> Floats:
        """Power of the pumps of each CDU."""
        return read_only(self._state.cooling.pump_w)

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

    @property
    def cdu_target_c(self) -> Floats:
        """What each CDU's supply shall be; at most the facility's own: as cold as it goes."""
        return read_only(self._state.cooling.target_c)

    @property
    def rack_is_open(self) -> Bools:
        """Whether the switch of each rack is open."""
        return read_only(self._state.electrical.rack_open)

    # --- faults ---

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults that have begun and are not repaired: the answer sheet, not a sensor."""
        return self._state.faults.active

    @property
    def xids(self) -> tuple[tuple[str, int], ...]:
        """What the drivers report: target and XID of each fault that has one."""
        active = self._state.faults.active
        return tuple((fault.target_id, fault.xid) for fault in active if fault.xid is not None)

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
        throttled, stalled = self._state.cooling.throttled, self._state.faults.gpu_stalled
        if throttled.any():
            work = np.where(throttled, work * THROTTLE_WORK, work)
        return np.where(stalled, 0.0, work) if stalled.any() else work

    def _of_placed(self, values: Floats) -> Floats:
        return read_only(values if self._is_static else values[self._placed])
