"""The simulated factory: one site and its jobs, advanced one second at a time.

It knows no component and no protocol. Given the same site, jobs, load, seed and commands, two
plants agree to the last bit.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from interlock_plant.arrays import Bools, Floats, Ints
from interlock_plant.commands import Commands
from interlock_plant.electrical import ElectricalModel
from interlock_plant.faults import FaultKind, FaultModel
from interlock_plant.grid import GridState, limit_w
from interlock_plant.jobs import Job, check_jobs, core_factor
from interlock_plant.lifecycle import JobRequest, LifeModel
from interlock_plant.load import Load
from interlock_plant.parameters import LEAKAGE_REFERENCE_C, PLANNING_STEP_S, STEP_S
from interlock_plant.power import PowerModel
from interlock_plant.score import Score, ScoreModel
from interlock_plant.site import SiteSpec
from interlock_plant.state import PlantState
from interlock_plant.swing import NodeLoad
from interlock_plant.thermal import CoolingModel
from interlock_tools.errors import InvalidRequestError


@dataclass(frozen=True)
class Snapshot:
    """A plant's whole state at one moment; `Plant.restore` goes back to it, any number of times."""

    site: SiteSpec
    jobs: tuple[Job, ...]
    seed: int
    state: PlantState


class Plant(Commands):
    """A running factory. It starts uncapped, steady and without faults at the load of second 0."""

    def __init__(
        self,
        site: SiteSpec,
        jobs: Sequence[Job],
        *,
        seed: int,
        start: datetime,
        load: Load,
        queue: Sequence[JobRequest] = (),
        recovers: bool = False,
    ) -> None:
        """Build the plant.

        Args:
            site: what stands where.
            jobs: what runs where from the start; each GPU at most once.
            seed: of silicon and chassis spread, command delays and checkpoints.
            start: aware; the moment of second 0.
            load: how hard each of `jobs` works, and then each of `queue`; those of the queue that
                it says nothing of work fully.
            queue: work that arrives later, takes free nodes and ends.
            recovers: whether somebody moves gangs from lost nodes to spares. Otherwise they stand
                until what they lost comes back, and then go on where they were.

        Raises:
            InvalidRequestError: `start` is naive, the jobs do not fit the site, or the load is of
                other jobs.
        """
        if start.utcoffset() is None:
            raise InvalidRequestError("start must be an aware moment")
        check_jobs(site, jobs)
        if load.at(0).shape not in ((len(jobs),), (len(jobs) + len(queue),)):
            raise InvalidRequestError(f"the load must give one u for each of {len(jobs)} jobs")
        self.site = site
        self.seed = seed
        self.start = start.astimezone(UTC)
        self._load = load
        self._node_load = load if isinstance(load, NodeLoad) else None
        self._recovers = recovers
        self._life = LifeModel(site, jobs, queue, seed=seed)
        self._idle_u = np.append(np.ones(len(self._life.roster) - len(load.at(0))), 0.0)
        self._lives = bool(queue) or recovers
        self._power = PowerModel(site, seed=seed)
        self._cooling = CoolingModel(site)
        self._electrical = ElectricalModel(site, seed=seed)
        self._faults = FaultModel(site, seed=seed)
        self._scoring = ScoreModel(site)
        self._settle()

    @property
    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return self.start + timedelta(seconds=self._state.second * STEP_S)

    @property
    def second(self) -> int:
        """Seconds since the start."""
        return self._state.second

    @property
    def score(self) -> Score:
        """What was done and what was broken since the last mark."""
        return Score(self._scoring, self._state.score)

    def step(self) -> None:
        """Advance one second."""
        self._advance(STEP_S)

    def step_minute(self) -> None:
        """Advance one planning step of 60 s: mean load, no transients, faults at its beginning.

        Energy agrees with sixty steps; peaks, overshoot and the second of a trip do not.
        """
        self._advance(PLANNING_STEP_S)

    def _advance(self, duration_s: float) -> None:
        state, power, cooling = self._state, self._state.power, self._state.cooling
        faults, electrical = state.faults, state.electrical
        self._let_faults_come_and_go()
        if state.grid.events:
            self._follow_grid()

        state.load_u = self._load_over(state.second, round(duration_s))
        power.natural_w = self._power.natural_w(
            state.load_u, cooling.core_c, self._running(), self._ripple(state.second)
        )
        reach_w = self._cooling.throttle(cooling, power.natural_w, self._power.idle_w)
        reach_w = self._power.slowed_w(power, reach_w)
        self._power.step(power, reach_w, self.gpu_is_lit, faults.obeys, duration_s)

        self._electrical.add_up(electrical, power.power_w, cooling.pump_w)
        self._electrical.step_storage(electrical, duration_s)
        state.job_work = self._scoring.job_work(self._gpu_work(), state.life.running)
        load_u = state.load_u[:-1]
        state.backlog_s = self._scoring.step_backlog(
            state.backlog_s, state.job_work, load_u, duration_s
        )
        self._scoring.count(
            state.score, state.job_work, load_u, electrical, state.site_limit_w, duration_s
        )
        pumps_lit = self._electrical.pumps_lit(electrical)
        gpus_shut_off = self._cooling.step(
            cooling,
            power.power_w,
            electrical.node_w,
            self._faults.pump_share(faults, pumps_lit),
            self._faults.valve_share(faults, state.second),
            faults.fouled_k,
            duration_s,
        )
        if self._electrical.step_protection(electrical, duration_s) or gpus_shut_off:
            self._relight()
        lives = self._lives or bool(state.life.left_s.any())  # who was moved or saved must get on
        if lives and self._life.step(
            state.life, state.second, state.job_work * load_u, duration_s, self._sick()
        ):
            self._bind()
        state.second += round(duration_s)

    # --- snapshots ---

    def snapshot(self) -> Snapshot:
        """The whole state now, apart from the load, which is a function of time."""
        return Snapshot(self.site, self._life.roster, self.seed, copy.deepcopy(self._state))

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot; the same commands then lead to the same seconds, bit by bit.

        Raises:
            InvalidRequestError: it was taken of another site, other jobs or another seed.
        """
        if (snapshot.site, snapshot.jobs, snapshot.seed) != (
            self.site,
            self._life.roster,
            self.seed,
        ):
            raise InvalidRequestError("the snapshot was taken of another plant")
        self._state = copy.deepcopy(snapshot.state)
        self._bind()

    # --- inside ---

    def _settle(self) -> None:
        """Take up the steady state at the load of second 0: draw and temperature agree."""
        life = self._life.fresh()
        self._take_placement(self._life.placed(life), life.job_of_gpu)
        load_u = self._load_over(0, 1)
        electrical = self._electrical.fresh()
        natural_w = self._power.natural_w(load_u, np.full(self.site.gpu_count, LEAKAGE_REFERENCE_C))
        for _ in range(5):  # the leakage feedback shrinks tenfold each time
            power = self._power.settled(natural_w)
            self._electrical.add_up(electrical, power.power_w)
            cooling = self._cooling.settled(power.power_w, electrical.rack_w)
            natural_w = self._power.natural_w(load_u, cooling.core_c)
        self._electrical.add_up(electrical, power.power_w, cooling.pump_w)
        self._state = PlantState(
            second=0,
            rng=np.random.default_rng([self.seed, 0]),
            load_u=load_u,
            job_work=self._scoring.job_work(power.work, life.running),
            backlog_s=np.zeros(len(self._life.roster)),
            site_limit_w=None,
            life=life,
            grid=GridState(),
            power=power,
            cooling=cooling,
            electrical=electrical,
            faults=self._faults.none(),
            score=self._scoring.zero(),
        )

    def _bind(self) -> None:
        """Tell every part what runs where now."""
        life = self._state.life
        self._take_placement(self._life.placed(life), life.job_of_gpu)

    def _take_placement(self, roster: tuple[Job, ...], of_gpu: Ints) -> None:
        self._power.bind(roster, of_gpu)
        self._cooling.bind(core_factor(roster, of_gpu))
        self._scoring.bind(roster, of_gpu)
        self._placed = [place for place, job in enumerate(roster) if job.gpu_indices]
        self._is_static = len(self._placed) == len(roster)
        self.jobs = tuple(roster[place] for place in self._placed)

    def _load_over(self, second: int, seconds: int) -> Floats:
        """Mean `u` per job of the roster, and of idle GPUs, over some seconds."""
        load_u = self._load.at(second)
        if seconds > 1:
            rows = [self._load.at(at) for at in range(second, second + seconds)]
            load_u = np.mean(rows, axis=0)
        return np.concatenate([load_u, self._idle_u])

    def _ripple(self, second: int) -> Floats | None:
        """What each GPU adds to its job's load."""
        if self._node_load is None:
            return None
        return self._node_load.nodes_at(second)[self.site.node_of_gpu]

    def _running(self) -> Bools | None:
        """Per GPU, or None while everything runs."""
        running, stalled = self._state.life.running, self._state.faults.gpu_stalled
        all_run, none_stalls = bool(running.all()), not stalled.any()
        if all_run and none_stalls:
            return None
        by_gpu = np.append(running, True)[self._power.job_of_gpu]
        return by_gpu if none_stalls else by_gpu & ~stalled

    def _let_faults_come_and_go(self) -> None:
        state = self._state
        faults = state.faults
        for kind, target_id in self._faults.ended(faults, state.second) if faults.ends_s else ():
            self.repair(kind, target_id)
        known = faults.active
        if faults.waiting and self._faults.begin_due(faults, self.now, state.second, self.meter_w):
            for fault in faults.active[len(known) :]:
                self._after_fault(fault.kind, fault.target_id, begins=True)
            self._relight()

    def _follow_grid(self) -> None:
        state = self._state
        says, limit = limit_w(state.grid, state.second, state.electrical.site_w)
        if says:
            state.site_limit_w = limit

    def _sick(self) -> Bools | None:
        """Per node, whether it cannot work; None where nobody looks after lost nodes.

        A crash is over as soon as its job begins again: somebody restarts it in place.
        """
        if not self._recovers:
            return None
        state = self._state
        for fault in [f for f in state.faults.active if f.kind is FaultKind.SOFTWARE]:
            self._life.crash(state.life, self.site.node_places[fault.target_id])
            self.repair(fault.kind, fault.target_id)
        bad = ~self.gpu_is_lit | state.faults.gpu_stalled
        return np.logical_or.reduceat(bad, self.site.first_gpu[:-1])

    def _relight(self) -> None:
        """Work out who has power; whoever has lost it forgets its caps."""
        state = self._state
        faults = state.faults
        self._electrical.light(
            state.electrical, faults.node_down, faults.feed_lost, faults.pdu_lost
        )
        self._power.forget(state.power, ~self.gpu_is_lit)
