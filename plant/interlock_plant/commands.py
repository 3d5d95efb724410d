"""What can be done to a plant: caps, the brake, jobs, grid events, breakers and faults."""

from abc import abstractmethod
from datetime import datetime

import numpy as np
from numpy.typing import ArrayLike

from interlock_plant.arrays import Ints
from interlock_plant.faults import Fault, FaultKind, FaultModel
from interlock_plant.grid import GridEvent, announce
from interlock_plant.observed import Observed
from interlock_plant.power import Channel
from interlock_tools.errors import InvalidRequestError


class Commands(Observed):
    """The writable side of a plant."""

    _faults: FaultModel

    @property
    @abstractmethod
    def now(self) -> datetime:
        """The present moment, aware, in UTC."""

    def command_caps(self, gpu_index: ArrayLike, cap_w: ArrayLike) -> None:
        """Set power caps; each follows after .1 to 1 s. GPUs that are dark do not hear it.

        Args:
            gpu_index: one GPU index or several, each once.
            cap_w: one cap for all of them, or one each.

        Raises:
            InvalidRequestError: an unknown or repeated GPU, or a cap outside the GPU's limits;
                nothing was done.
        """
        self.command_caps_by(Channel.IN_BAND, gpu_index, cap_w)

    def command_caps_by(self, channel: Channel, gpu_index: ArrayLike, cap_w: ArrayLike) -> None:
        """Set power caps by a channel of choice, with that channel's delay; as `command_caps`."""
        gpus = self._gpus(gpu_index)
        caps_w = np.asarray(cap_w, dtype=np.float64)
        if caps_w.ndim > 1 or caps_w.size not in (1, gpus.size):
            raise InvalidRequestError(
                f"cap_w holds {caps_w.size} values for {gpus.size} GPUs; give one, or one each"
            )
        caps_w = np.broadcast_to(caps_w.reshape(-1), gpus.shape)
        low_w, high_w = self.site.gpu.cap_min_w, self.site.gpu.cap_max_w
        wrong = np.flatnonzero(~((caps_w >= low_w) & (caps_w <= high_w)))
        if wrong.size:
            raise InvalidRequestError(
                f"cap_w {caps_w[wrong[0]]} for GPU {gpus[wrong[0]]} is not in"
                f" {low_w:.0f}..{high_w:.0f} W"
            )
        heard = self.gpu_is_lit[gpus]
        self._power.command(self._state.power, gpus[heard], caps_w[heard], self._state.rng, channel)

    def clear_caps(self, gpu_index: ArrayLike) -> None:
        """Set caps back to the GPU's greatest; as `command_caps`."""
        self.command_caps(gpu_index, self.site.gpu.cap_max_w)

    def lock_clocks(self, gpu_index: ArrayLike, share: float) -> None:
        """Lock clocks at a share of full ones, in (0, 1]; 1 unlocks. In force at once.

        Raises:
            InvalidRequestError: an unknown or repeated GPU, or a share outside (0, 1].
        """
        if not 0.0 < share <= 1.0:
            raise InvalidRequestError(f"share must be in (0, 1], not {share}")
        gpus = self._gpus(gpu_index)
        self._power.lock_clocks(self._state.power, gpus[self.gpu_is_lit[gpus]], share)

    def brake(self, gpu_index: ArrayLike, *, on: bool = True) -> None:
        """Pull the power brake, which holds after 5 s and nearly halts the work; or release it.

        Raises:
            InvalidRequestError: an unknown or repeated GPU; nothing was done.
        """
        gpus = self._gpus(gpu_index)
        heard = self.gpu_is_lit[gpus]
        self._power.brake(self._state.power, gpus[heard], on=on)

    # --- jobs ---

    def pause(self, job_id: str) -> None:
        """Stop a job where it stands; its GPUs idle. Pausing twice is the same as once.

        Raises:
            InvalidRequestError: there is no such job.
        """
        self._life.pause(self._state.life, self._life.place(job_id))

    def resume(self, job_id: str) -> None:
        """Let a paused job go on at once, a saved one after it has loaded its state (39 to 145 s).

        Raises:
            InvalidRequestError: there is no such job.
        """
        self._life.resume(self._state.life, self._life.place(job_id))

    def save(self, job_id: str) -> None:
        """Let a job write a checkpoint (77 to 146 s) and stand still after it.

        Raises:
            InvalidRequestError: there is no such job, it cannot be saved, or it does not run.
        """
        self._life.save(self._state.life, self._life.place(job_id))

    def give_away(self, job_id: str) -> None:
        """Free the GPUs of a saved job of the queue; it waits for others.

        Raises:
            InvalidRequestError: there is no such job, it is not saved, or not of the queue.
        """
        self._life.give_away(self._state.life, self._life.place(job_id))
        self._bind()

    def move(self, job_id: str, node_id: str, to_node_id: str) -> None:
        """Move a job's part on one node to a free one; a gang starts from its last checkpoint.

        Raises:
            InvalidRequestError: no such job or node, the job is not there, or the other is taken.
        """
        places = self.site.node_places
        for name in (node_id, to_node_id):
            if name not in places:
                raise InvalidRequestError(f"{self.site.name} has no node {name!r}")
        place = self._life.place(job_id)
        self._life.move(self._state.life, place, places[node_id], places[to_node_id])
        self._bind()

    # --- the site ---

    def set_site_limit_w(self, limit_w: float | None) -> None:
        """Set the target that the score holds the site to, or None. It forces nothing.

        Raises:
            InvalidRequestError: the limit is not a positive number.
        """
        if limit_w is not None and not (np.isfinite(limit_w) and limit_w > 0):
            raise InvalidRequestError(f"limit_w must be a positive number, not {limit_w}")
        self._state.site_limit_w = limit_w

    def set_storage_w(self, power_w: float) -> None:
        """Let the site's storage give power (positive) or take it (negative), while it can.

        Raises:
            InvalidRequestError: there is no storage here, or it cannot give or take as much.
        """
        storage = self.site.storage
        if storage is None:
            raise InvalidRequestError(f"{self.site.name} has no storage")
        if not abs(power_w) <= storage.power_w:
            raise InvalidRequestError(
                f"power_w must be within {storage.power_w:.0f} W either way, not {power_w}"
            )
        self._state.electrical.storage_wanted_w = power_w

    def announce(self, event: GridEvent) -> None:
        """Take on a grid event: the site's limit then follows it by itself, ramps included.

        Raises:
            InvalidRequestError: it has begun already, or overlaps another.
        """
        announce(self._state.grid, event, self._state.second)

    def close_breaker(self, breaker_id: str) -> None:
        """Close the breaker of a PDU or feed; a breaker that is still hot may trip again at once.

        Raises:
            InvalidRequestError: there is no such PDU or feed.
        """
        electrical = self._state.electrical
        if breaker_id in self.site.pdu_ids:
            electrical.pdu_breakers.close(self.site.pdu_ids.index(breaker_id))
        elif breaker_id in self.site.feed_ids:
            electrical.feed_breakers.close(self.site.feed_ids.index(breaker_id))
        else:
            raise InvalidRequestError(f"{self.site.name} has no breaker {breaker_id!r}")
        self._relight()

    # --- coolant and power of a rack, as a building management system has them ---

    def set_cdu_target_c(self, cdu_id: str, target_c: float) -> None:
        """Set what a CDU's supply shall be; it follows within minutes, as warm as its heat allows.

        Colder than the facility's own water it never is: there its valve stands fully open.

        Raises:
            InvalidRequestError: there is no such CDU, or the target is no temperature of water.
        """
        if cdu_id not in self.site.cdu_ids:
            raise InvalidRequestError(f"{self.site.name} has no CDU {cdu_id!r}")
        if not 0.0 < target_c < 100.0:
            raise InvalidRequestError(f"target_c must be in (0, 100), not {target_c}")
        cooling = self._state.cooling
        cooling.target_c = cooling.target_c.copy()
        cooling.target_c[self.site.cdu_ids.index(cdu_id)] = target_c

    def isolate_liquid(self, rack_id: str, *, shut: bool = True) -> None:
        """Shut the coolant valves of a rack at once, or open them.

        Raises:
            InvalidRequestError: there is no such rack.
        """
        place, cooling = self._rack(rack_id), self._state.cooling
        cooling.isolated = cooling.isolated.copy()
        cooling.isolated[place] = shut

    def isolate_power(self, rack_id: str, *, opened: bool = True) -> None:
        """Open the switch of a rack at once, or close it: its GPUs then restart unless still hot.

        Raises:
            InvalidRequestError: there is no such rack.
        """
        place, electrical = self._rack(rack_id), self._state.electrical
        electrical.rack_open = electrical.rack_open.copy()
        electrical.rack_open[place] = opened
        if not opened:
            cooling = self._state.cooling
            cooling.shut_off = cooling.shut_off & (self.site.rack_of_gpu != place)
        self._relight()

    # --- faults ---

    def inject(self, fault: Fault) -> None:
        """Let a fault happen, now or at its moment.

        Raises:
            InvalidRequestError: no such target, or its moment is past; nothing was done.
        """
        self._faults.check(fault, self.now)
        faults = self._state.faults
        if fault.at is not None:
            self._faults.wait(faults, fault)
            return
        self._faults.begin(faults, fault, self._state.second, self.meter_w)
        self._after_fault(fault.kind, fault.target_id, begins=True)
        self._relight()

    def repair(self, kind: FaultKind, target_id: str) -> None:
        """End a fault. Repairing a node or a leak also restarts GPUs that heat had shut off.

        Raises:
            InvalidRequestError: there is no such fault.
        """
        self._faults.repair(self._state.faults, kind, target_id)
        self._after_fault(kind, target_id, begins=False)
        self._relight()

    def _after_fault(self, kind: FaultKind, target_id: str, *, begins: bool) -> None:
        """What a fault or its end does outside the list of faults."""
        state, site = self._state, self.site
        if kind is FaultKind.UPS_LOSS:
            place = site.ups_ids.index(target_id)
            self._electrical.fail_ups(state.electrical, place, failed=begins)
        if begins:
            return
        if kind is FaultKind.CAP_IGNORED:
            power = state.power
            settled = state.faults.obeys & (power.delay_left_s <= 0.0)
            power.cap_effective_w = np.where(settled, power.cap_set_w, power.cap_effective_w)
        if kind in (FaultKind.NODE_DOWN, FaultKind.LEAK):
            if target_id in site.node_places:
                there = site.node_of_gpu == site.node_places[target_id]
            else:
                there = site.rack_of_gpu == site.rack_ids.index(target_id)
            state.cooling.shut_off = state.cooling.shut_off & ~there

    # --- inside ---

    @abstractmethod
    def _bind(self) -> None:
        """Take note of what runs where."""

    @abstractmethod
    def _relight(self) -> None:
        """Work out who has power."""

    def _rack(self, rack_id: str) -> int:
        if rack_id not in self.site.rack_ids:
            raise InvalidRequestError(f"{self.site.name} has no rack {rack_id!r}")
        return self.site.rack_ids.index(rack_id)

    def _gpus(self, gpu_index: ArrayLike) -> Ints:
        raw = np.atleast_1d(np.asarray(gpu_index))
        if raw.size == 0:
            return np.zeros(0, dtype=np.int64)
        if raw.ndim != 1 or not np.issubdtype(raw.dtype, np.integer):
            raise InvalidRequestError("gpu_index must be a whole number, or a list of them")
        gpus = raw.astype(np.int64)
        if gpus.min() < 0 or gpus.max() >= self.site.gpu_count:
            raise InvalidRequestError(
                f"gpu_index must be in 0..{self.site.gpu_count - 1};"
                f" found {gpus.min()}..{gpus.max()}"
            )
        if len(np.unique(gpus)) != len(gpus):
            raise InvalidRequestError("gpu_index names a GPU twice")
        return gpus
