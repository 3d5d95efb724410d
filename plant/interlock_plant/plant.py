"""The simulated factory: one site and its jobs, advanced one second at a time.

It knows no component and no protocol. Given the same site, jobs, load, seed and commands, two
plants agree to the last bit.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import ArrayLike

from interlock_plant.arrays import Bools, Floats, Ints
from interlock_plant.electrical import ElectricalModel
from interlock_plant.faults import Fault, FaultKind, FaultModel
from interlock_plant.jobs import Job, check_jobs
from interlock_plant.load import Load
from interlock_plant.observed import Observed, PlantState
from interlock_plant.parameters import LEAKAGE_REFERENCE_C, STEP_S
from interlock_plant.power import PowerModel
from interlock_plant.score import Score, ScoreModel
from interlock_plant.site import SiteSpec
from interlock_plant.thermal import CoolingModel
from interlock_tools.errors import InvalidRequestError


@dataclass(frozen=True)
class Snapshot:
    """A plant's whole state at one moment; `Plant.restore` goes back to it, any number of times."""

    site: SiteSpec
    jobs: tuple[Job, ...]
    seed: int
    state: PlantState


class Plant(Observed):
    """A running factory. It starts uncapped, steady and without faults at the load of second 0."""

    def __init__(
        self, site: SiteSpec, jobs: Sequence[Job], *, seed: int, start: datetime, load: Load
    ) -> None:
        """Build the plant.

        Args:
            site: what stands where.
            jobs: what runs where; each GPU at most once.
            seed: of silicon spread and command delays.
            start: aware; the moment of second 0.
            load: how hard each of `jobs` works.

        Raises:
            InvalidRequestError: `start` is naive, the jobs do not fit the site, or the load is of
                other jobs.
        """
        if start.utcoffset() is None:
            raise InvalidRequestError("start must be an aware moment")
        check_jobs(site, jobs)
        if load.at(0).shape != (len(jobs),):
            raise InvalidRequestError(f"the load must give one u for each of {len(jobs)} jobs")
        self.site = site
        self.jobs = tuple(jobs)
        self.seed = seed
        self.start = start.astimezone(UTC)
        self._load = load
        self._job_place = {job.job_id: place for place, job in enumerate(self.jobs)}
        self._power = PowerModel(site, jobs, seed=seed)
        self._cooling = CoolingModel(site)
        self._electrical = ElectricalModel(site)
        self._faults = FaultModel(site)
        self._scoring = ScoreModel(site, self.jobs)
        self._state = self._settle()

    @property
    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return self.start + timedelta(seconds=self._state.second * STEP_S)

    @property
    def score(self) -> Score:
        """What was done and what was broken since the last mark."""
        return Score(self._scoring, self._state.score)

    def step(self) -> None:
        """Advance one second."""
        state, power, cooling = self._state, self._state.power, self._state.cooling
        faults, electrical = state.faults, state.electrical
        if faults.waiting and self._faults.begin_due(faults, self.now, state.second, self.meter_w):
            self._relight()

        state.load_u = self._load_at(state.second)
        power.natural_w = self._power.natural_w(state.load_u, cooling.core_c, self._running())
        reach_w = self._cooling.throttle(cooling, power.natural_w, self._power.idle_w)
        self._power.step(power, reach_w, self.gpu_is_lit, faults.obeys)

        self._electrical.add_up(electrical, power.power_w)
        flow_share = self._faults.flow_share(faults, state.second)
        state.job_work = self._scoring.job_work(self._gpu_work(), state.job_running)
        self._scoring.count(
            state.score, state.job_work, state.load_u[:-1], electrical, state.site_limit_w
        )
        gpus_shut_off = self._cooling.step(cooling, power.power_w, electrical.rack_w, flow_share)
        breakers_tripped = self._electrical.step_breakers(electrical)
        if gpus_shut_off or breakers_tripped:
            self._relight()
        state.second += 1

    # --- commands ---

    def command_caps(self, gpu_index: ArrayLike, cap_w: ArrayLike) -> None:
        """Set power caps; each follows after .1 to 1 s. GPUs that are dark do not hear it.

        Args:
            gpu_index: one GPU index or several, each once.
            cap_w: one cap for all of them, or one each.

        Raises:
            InvalidRequestError: an unknown or repeated GPU, or a cap outside the GPU's limits;
                nothing was done.
        """
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
        self._power.command(self._state.power, gpus[heard], caps_w[heard], self._state.rng)

    def clear_caps(self, gpu_index: ArrayLike) -> None:
        """Set caps back to the GPU's greatest; as `command_caps`."""
        self.command_caps(gpu_index, self.site.gpu.cap_max_w)

    def pause(self, job_id: str) -> None:
        """Stop a job where it stands; its GPUs idle. Pausing twice is the same as once.

        Raises:
            InvalidRequestError: there is no such job.
        """
        self._set_running(job_id, False)

    def resume(self, job_id: str) -> None:
        """Let a paused job go on.

        Raises:
            InvalidRequestError: there is no such job.
        """
        self._set_running(job_id, True)

    def set_site_limit_w(self, limit_w: float | None) -> None:
        """Set the target that the score holds the site to, or None. It forces nothing.

        Raises:
            InvalidRequestError: the limit is not a positive number.
        """
        if limit_w is not None and not (np.isfinite(limit_w) and limit_w > 0):
            raise InvalidRequestError(f"limit_w must be a positive number, not {limit_w}")
        self._state.site_limit_w = limit_w

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

    def inject(self, fault: Fault) -> None:
        """Let a fault happen, now or at its moment.

        Raises:
            InvalidRequestError: no such target, or its moment is past; nothing was done.
        """
        self._faults.check(fault, self.now)
        faults = self._state.faults
        if fault.at is not None:
            faults.waiting = (*faults.waiting, fault)
            return
        self._faults.begin(faults, fault, self._state.second, self.meter_w)
        self._relight()

    def repair(self, kind: FaultKind, target_id: str) -> None:
        """End a fault. Repairing a node or a leak also restarts GPUs that heat had shut off.

        Raises:
            InvalidRequestError: there is no such fault.
        """
        state = self._state
        self._faults.repair(state.faults, kind, target_id)
        if kind is FaultKind.CAP_IGNORED:
            power = state.power
            settled = state.faults.obeys & (power.delay_left_s <= 0.0)
            power.cap_effective_w = np.where(settled, power.cap_set_w, power.cap_effective_w)
        if kind is FaultKind.NODE_DOWN:
            there = self.site.node_of_gpu == self.site.node_ids.index(target_id)
            state.cooling.shut_off = state.cooling.shut_off & ~there
        if kind is FaultKind.LEAK:
            there = self.site.rack_of_gpu == self.site.rack_ids.index(target_id)
            state.cooling.shut_off = state.cooling.shut_off & ~there
        self._relight()

    # --- snapshots ---

    def snapshot(self) -> Snapshot:
        """The whole state now, apart from the load, which is a function of time."""
        return Snapshot(self.site, self.jobs, self.seed, copy.deepcopy(self._state))

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot; the same commands then lead to the same seconds, bit by bit.

        Raises:
            InvalidRequestError: it was taken of another site, other jobs or another seed.
        """
        if (snapshot.site, snapshot.jobs, snapshot.seed) != (self.site, self.jobs, self.seed):
            raise InvalidRequestError("the snapshot was taken of another plant")
        self._state = copy.deepcopy(snapshot.state)

    # --- inside ---

    def _settle(self) -> PlantState:
        """The steady state at the load of second 0: draw and temperature agree."""
        load_u = self._load_at(0)
        electrical = self._electrical.fresh()
        natural_w = self._power.natural_w(load_u, np.full(self.site.gpu_count, LEAKAGE_REFERENCE_C))
        for _ in range(5):  # the leakage feedback shrinks tenfold each time
            power = self._power.settled(natural_w)
            self._electrical.add_up(electrical, power.power_w)
            cooling = self._cooling.settled(power.power_w, electrical.rack_w)
            natural_w = self._power.natural_w(load_u, cooling.core_c)
        running = np.ones(len(self.jobs), dtype=np.bool_)
        return PlantState(
            second=0,
            rng=np.random.default_rng([self.seed, 0]),
            load_u=load_u,
            job_running=running,
            job_work=self._scoring.job_work(power.work, running),
            site_limit_w=None,
            power=power,
            cooling=cooling,
            electrical=electrical,
            faults=self._faults.none(),
            score=self._scoring.zero(),
        )

    def _load_at(self, second: int) -> Floats:
        return np.append(self._load.at(second), 0.0)

    def _running(self) -> Bools | None:
        """Per GPU, or None while nothing is paused."""
        if self._state.job_running.all():
            return None
        return np.append(self._state.job_running, True)[self._power.job_of_gpu]

    def _set_running(self, job_id: str, running: bool) -> None:
        if job_id not in self._job_place:
            raise InvalidRequestError(f"there is no job {job_id!r}")
        self._state.job_running = self._state.job_running.copy()
        self._state.job_running[self._job_place[job_id]] = running

    def _relight(self) -> None:
        """Work out who has power; whoever has lost it forgets its caps."""
        state = self._state
        self._electrical.light(state.electrical, state.faults.node_down)
        self._power.forget(state.power, ~self.gpu_is_lit)

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
