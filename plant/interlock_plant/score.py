"""What the plant got done and which limits it broke, counted from the last mark."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interlock_plant.arrays import Bools, Floats, Ints
from interlock_plant.electrical import ElectricalState
from interlock_plant.jobs import Job
from interlock_plant.parameters import SERVING_FULL_U, STEP_S, JobClass
from interlock_plant.site import SITE_METER, SiteSpec

FLOOR_TOLERANCE = 1e-9  # of relative throughput: rounding, not lenience


@dataclass
class ScoreState:
    """Running totals since the last mark."""

    seconds: int
    energy_j: float
    work_done: Floats  # per job, weighted GPU-seconds
    work_uncapped: Floats
    below_floor_s: Ints  # per job
    slo_broken_s: Ints  # per job
    over_site_s: int
    over_site_j: float
    over_feed_s: Ints
    over_pdu_s: Ints
    over_rack_s: Ints


class ScoreModel:
    """Who works, for how much, and what limits there are. `bind` says who works where."""

    def __init__(self, site: SiteSpec) -> None:
        self.site = site
        self._feed_w = np.array([feed.rating_w for feed in site.feeds])
        self._pdu_w = np.array([pdu.rating_w for pdu in site.pdus])
        self._rack_w = np.array([rack.rating_w for rack in site.racks])

    def bind(self, jobs: Sequence[Job], job_of_gpu: Ints) -> None:
        """Take note of what runs where; `len(jobs)` marks a GPU without a job."""
        self.jobs = tuple(jobs)
        busy = np.flatnonzero(job_of_gpu < len(jobs))
        self._by_job: Ints = busy[np.argsort(job_of_gpu[busy], kind="stable")]
        count = np.array([len(job.gpu_indices) for job in jobs], dtype=np.float64)
        self._placed = np.flatnonzero(count > 0)
        self._count = count[self._placed]
        self._first = np.cumsum(np.append(0.0, self._count))[:-1].astype(np.int64)
        self._is_gang = np.array([job.is_gang for job in jobs if job.gpu_indices], dtype=np.bool_)
        self._weight = np.array([job.weight * len(job.gpu_indices) for job in jobs])
        self._floor = np.array([job.floor_work or 0.0 for job in jobs]) - FLOOR_TOLERANCE
        self._serves = np.array([job.job_class is JobClass.SERVING for job in jobs], dtype=np.bool_)
        self._holds = count > 0

    def zero(self) -> ScoreState:
        """Nothing counted yet."""
        jobs, site = len(self.jobs), self.site
        return ScoreState(
            seconds=0,
            energy_j=0.0,
            work_done=np.zeros(jobs),
            work_uncapped=np.zeros(jobs),
            below_floor_s=np.zeros(jobs, dtype=np.int64),
            slo_broken_s=np.zeros(jobs, dtype=np.int64),
            over_site_s=0,
            over_site_j=0.0,
            over_feed_s=np.zeros(len(site.feeds), dtype=np.int64),
            over_pdu_s=np.zeros(len(site.pdus), dtype=np.int64),
            over_rack_s=np.zeros(len(site.racks), dtype=np.int64),
        )

    def job_work(self, gpu_work: Floats, running: Bools) -> Floats:
        """Relative throughput of each job: its slowest GPU's if a gang, else the mean of them."""
        work = np.zeros(len(self.jobs))
        if not len(self._placed):
            return work
        ordered = gpu_work[self._by_job]
        slowest = np.minimum.reduceat(ordered, self._first)
        mean = np.add.reduceat(ordered, self._first) / self._count
        work[self._placed] = np.where(self._is_gang, slowest, mean)
        return np.where(running, work, 0.0)

    def slo_held(self, job_work: Floats, load_u: Floats) -> Bools:
        """Per job: whether its service level holds; true for work without one.

        Serving holds its level while it keeps its floor and no replica is busier than .92 of what
        caps leave it; a load that is beyond that without any cap is not the plant's doing.
        """
        crowded = (load_u > SERVING_FULL_U * job_work) & (job_work < 1.0 - FLOOR_TOLERANCE)
        broken = self._serves & self._holds & (crowded | (job_work < self._floor))
        return ~broken

    def step_backlog(
        self, backlog_s: Floats, job_work: Floats, load_u: Floats, duration_s: float
    ) -> Floats:
        """Work that users of serving jobs wait for, in seconds of full throughput."""
        grown = backlog_s + (load_u - job_work) * duration_s
        return np.where(self._serves & self._holds, np.maximum(grown, 0.0), 0.0)

    def count(
        self,
        state: ScoreState,
        job_work: Floats,
        load_u: Floats,
        power: ElectricalState,
        site_limit_w: float | None,
        duration_s: float = STEP_S,
    ) -> None:
        """Add the step just past."""
        whole = round(duration_s)
        offered = self._weight * load_u * duration_s
        state.seconds += whole
        state.energy_j += power.site_w * duration_s
        state.work_uncapped = state.work_uncapped + offered
        state.work_done = state.work_done + offered * job_work
        below = (job_work < self._floor) & self._holds
        state.below_floor_s = state.below_floor_s + whole * below
        state.slo_broken_s = state.slo_broken_s + whole * ~self.slo_held(job_work, load_u)
        state.over_feed_s = state.over_feed_s + whole * (power.feed_w > self._feed_w)
        state.over_pdu_s = state.over_pdu_s + whole * (power.pdu_w > self._pdu_w)
        state.over_rack_s = state.over_rack_s + whole * (power.rack_w > self._rack_w)
        if site_limit_w is not None and power.site_w > site_limit_w:
            state.over_site_s += whole
            state.over_site_j += (power.site_w - site_limit_w) * duration_s


class Score:
    """The totals since the last mark, or since the start.

    "Uncapped" is what the same jobs would have done at the same load with no cap, pause or fault.
    """

    def __init__(self, model: ScoreModel, state: ScoreState) -> None:
        self._model = model
        self._state = state

    def mark(self) -> None:
        """Start counting afresh."""
        self._state.__dict__.update(self._model.zero().__dict__)

    @property
    def seconds(self) -> int:
        """Seconds counted."""
        return self._state.seconds

    @property
    def energy_j(self) -> float:
        """Energy through the site's meter."""
        return self._state.energy_j

    @property
    def work_done(self) -> float:
        """Useful work in weighted GPU-seconds at full throughput."""
        return float(self._state.work_done.sum())

    @property
    def work_uncapped(self) -> float:
        """Useful work that was there to be done, in the same unit."""
        return float(self._state.work_uncapped.sum())

    @property
    def work_kept(self) -> float:
        """`work_done / work_uncapped`, in [0, 1]; 1 when there was nothing to do."""
        offered = self.work_uncapped
        return self.work_done / offered if offered > 0 else 1.0

    @property
    def work_kept_by_job(self) -> dict[str, float]:
        """The same ratio for each job id."""
        offered, done = self._state.work_uncapped, self._state.work_done
        kept = np.divide(done, offered, out=np.ones_like(done), where=offered > 0)
        return dict(zip((job.job_id for job in self._model.jobs), kept.tolist(), strict=True))

    @property
    def below_floor_s(self) -> dict[str, int]:
        """Seconds below its floor of each job id that was ever below."""
        ids = [job.job_id for job in self._model.jobs]
        return _nonzero(ids, self._state.below_floor_s)

    @property
    def slo_broken_s(self) -> dict[str, int]:
        """Seconds in which each job's service level did not hold; ids that were ever without."""
        return _nonzero([job.job_id for job in self._model.jobs], self._state.slo_broken_s)

    @property
    def below_floor_job_s(self) -> int:
        """Seconds below a floor, summed over jobs."""
        return int(self._state.below_floor_s.sum())

    @property
    def over_budget_s(self) -> dict[str, int]:
        """Seconds over its budget of each id (`site`, feeds, PDUs, racks) that was ever over."""
        state, site = self._state, self._model.site
        return {
            **({SITE_METER: state.over_site_s} if state.over_site_s else {}),
            **_nonzero(site.feed_ids, state.over_feed_s),
            **_nonzero(site.pdu_ids, state.over_pdu_s),
            **_nonzero(site.rack_ids, state.over_rack_s),
        }

    @property
    def over_site_limit_j(self) -> float:
        """Energy above the site's limit: watts over, summed over seconds."""
        return self._state.over_site_j


def _nonzero(ids: Sequence[str], seconds: Ints) -> dict[str, int]:
    return {name: int(count) for name, count in zip(ids, seconds, strict=True) if count}
