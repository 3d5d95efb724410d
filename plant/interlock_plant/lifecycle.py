"""The life of a job: it waits, starts, runs, is saved or paused, moves to a spare, and ends.

Delays are those of real checkpoints. Placement is first-fit in order of priority and arrival; a
small job may pass a large one that does not fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from interlock_plant.arrays import Bools, Floats, Ints
from interlock_plant.jobs import Job, gpus_of, job_of_gpu
from interlock_plant.parameters import (
    CHECKPOINT_EVERY_S,
    CHECKPOINT_S,
    RESTORE_S,
    WORK,
    JobClass,
)
from interlock_plant.site import SiteSpec
from interlock_tools.errors import InvalidRequestError


class Phase(IntEnum):
    """Where a job is in its life."""

    WAITING = 0  # in the queue, or not arrived yet
    STARTING = 1  # loads its state; holds its GPUs, which idle
    RUNNING = 2
    SAVING = 3  # writes a checkpoint; its GPUs idle
    SAVED = 4  # stands still, and can give its GPUs away
    PAUSED = 5  # stopped where it stands; its state is in the GPUs
    INTERRUPTED = 6  # a gang that lost a GPU and has no spare
    ENDED = 7


@dataclass(frozen=True)
class JobRequest:
    """Work that will be asked for: `nodes` whole nodes, from `arrives_s` after the start.

    `duration_s` is how long it runs at full throughput. A higher `priority` goes first.
    """

    job_id: str
    tenant_id: str
    job_class: JobClass
    nodes: int
    arrives_s: int
    duration_s: float
    priority: int = 0
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise InvalidRequestError(f"{self.job_id}: nodes must be at least 1, not {self.nodes}")
        if self.arrives_s < 0 or not self.duration_s > 0 or not self.weight > 0:
            raise InvalidRequestError(
                f"{self.job_id}: arrives_s must not be negative, duration_s and weight positive"
            )

    def job(self) -> Job:
        """The same as a job without GPUs."""
        work = WORK[self.job_class]
        return Job(
            job_id=self.job_id,
            tenant_id=self.tenant_id,
            job_class=self.job_class,
            gpu_indices=(),
            weight=self.weight,
            floor_work=work.floor_work,
            is_checkpointable=self.job_class in (JobClass.TRAIN, JobClass.BATCH),
        )


@dataclass
class LifeState:
    """What changes, per job of the roster. Arrays are replaced, never written into."""

    phase: NDArray[np.int8]
    left_s: Floats  # of starting or saving
    done_s: Floats  # at full throughput
    saved_s: Floats  # what the last checkpoint holds of it
    gpus: tuple[Ints, ...]  # what each holds
    job_of_gpu: Ints  # the same the other way round; the number of jobs where there is none
    moved: int  # how often the placement has changed
    waited_s: Floats
    interruptions: Ints
    rng: np.random.Generator  # of the delays

    @property
    def running(self) -> Bools:
        """Jobs that work."""
        running: Bools = self.phase == Phase.RUNNING
        return running


class LifeModel:
    """What does not change: who may come, and what each needs."""

    def __init__(
        self, site: SiteSpec, jobs: Sequence[Job], queue: Sequence[JobRequest], *, seed: int
    ) -> None:
        self._site = site
        self._seed = seed
        self._requests = tuple(queue)
        self._standing = len(jobs)
        self.roster = (*jobs, *(request.job() for request in queue))
        self._place = {job.job_id: place for place, job in enumerate(self.roster)}
        if len(self._place) != len(self.roster):
            raise InvalidRequestError("a job of the queue has the id of another job")
        for request in queue:
            if request.nodes > len(site.nodes):
                raise InvalidRequestError(
                    f"{request.job_id} asks for {request.nodes} nodes; {site.name} has"
                    f" {len(site.nodes)}"
                )
        endless = np.full(self._standing, np.inf)
        self._duration_s = np.append(endless, [request.duration_s for request in queue])
        self._arrives_s = np.append(np.zeros(len(jobs)), [float(r.arrives_s) for r in queue])
        self._order = sorted(
            range(len(queue)), key=lambda n: (-queue[n].priority, queue[n].arrives_s, n)
        )
        self._saves = np.array([job.is_checkpointable for job in self.roster], dtype=np.bool_)
        self._gang = np.array([job.is_gang for job in self.roster], dtype=np.bool_)

    def fresh(self) -> LifeState:
        """Standing jobs run, everyone else is still to come."""
        count = len(self.roster)
        phase = np.full(count, Phase.WAITING, dtype=np.int8)
        phase[: self._standing] = Phase.RUNNING
        zeros = np.zeros(count)
        return LifeState(
            phase=phase,
            left_s=zeros,
            done_s=zeros,
            saved_s=zeros,
            gpus=tuple(np.array(job.gpu_indices, dtype=np.int64) for job in self.roster),
            job_of_gpu=job_of_gpu(self._site, self.roster),
            moved=0,
            waited_s=zeros,
            interruptions=np.zeros(count, dtype=np.int64),
            rng=np.random.default_rng([self._seed, 5]),
        )

    def place(self, job_id: str) -> int:
        """Index of a job in the roster.

        Raises:
            InvalidRequestError: there is no such job.
        """
        if job_id not in self._place:
            raise InvalidRequestError(f"there is no job {job_id!r}")
        return self._place[job_id]

    def placed(self, state: LifeState) -> tuple[Job, ...]:
        """The roster with the GPUs that each job holds now."""
        return tuple(
            job
            if len(job.gpu_indices) == len(gpus) and np.array_equal(job.gpu_indices, gpus)
            else replace(job, gpu_indices=tuple(gpus.tolist()))
            for job, gpus in zip(self.roster, state.gpus, strict=True)
        )

    # --- commands ---

    def pause(self, state: LifeState, place: int) -> None:
        """Stop a job where it stands; one that is loading waits with its state on disk."""
        if state.phase[place] == Phase.RUNNING:
            self._go(state, place, Phase.PAUSED)
        elif state.phase[place] == Phase.STARTING:
            self._go(state, place, Phase.SAVED)

    def resume(self, state: LifeState, place: int) -> None:
        """Let a paused job go on at once, and a saved one after loading its state."""
        if state.phase[place] == Phase.PAUSED:
            self._go(state, place, Phase.RUNNING)
        elif state.phase[place] == Phase.SAVED and state.gpus[place].size:
            self._go(state, place, Phase.STARTING, state.rng.uniform(*RESTORE_S))

    def save(self, state: LifeState, place: int) -> None:
        """Begin a checkpoint, after which the job stands still.

        Raises:
            InvalidRequestError: the job cannot be saved, or does not run.
        """
        job_id = self.roster[place].job_id
        if not self._saves[place]:
            raise InvalidRequestError(f"{job_id} cannot be saved")
        if state.phase[place] not in (Phase.RUNNING, Phase.PAUSED):
            raise InvalidRequestError(f"{job_id} is {Phase(state.phase[place]).name.lower()}")
        self._go(state, place, Phase.SAVING, state.rng.uniform(*CHECKPOINT_S))

    def give_away(self, state: LifeState, place: int) -> None:
        """Take the GPUs of a saved job; it waits, and starts again from its checkpoint.

        Raises:
            InvalidRequestError: it is not saved, or came with the site and has no queue to go to.
        """
        job_id = self.roster[place].job_id
        if state.phase[place] != Phase.SAVED:
            raise InvalidRequestError(f"{job_id} is not saved: its state would be lost")
        if place < self._standing:
            raise InvalidRequestError(f"{job_id} did not come through the queue")
        self._hold(state, place, np.zeros(0, dtype=np.int64))
        self._go(state, place, Phase.WAITING)

    def move(self, state: LifeState, place: int, node: int, to_node: int) -> None:
        """Move a job's part on one node to another, free one; it starts from its last checkpoint.

        Raises:
            InvalidRequestError: it is not on that node, or the other is not free or not alike.
        """
        site, job_id = self._site, self.roster[place].job_id
        there = site.node_of_gpu[state.gpus[place]] == node
        first, to_first = site.first_gpu[node], site.first_gpu[to_node]
        if not there.any():
            raise InvalidRequestError(f"{job_id} is not on {site.node_ids[node]}")
        if site.nodes[node].gpu_count != site.nodes[to_node].gpu_count:
            raise InvalidRequestError(f"{site.node_ids[to_node]} has another number of GPUs")
        if not self._free(state)[to_node]:
            raise InvalidRequestError(f"{site.node_ids[to_node]} is not free")
        gpus = state.gpus[place].copy()
        gpus[there] += to_first - first
        self._hold(state, place, gpus)
        if self._gang[place] or state.phase[place] != Phase.RUNNING:
            self._lose(state, place)
            self._go(state, place, Phase.STARTING, state.rng.uniform(*RESTORE_S))

    def crash(self, state: LifeState, node: int) -> None:
        """A gang on this node has crashed; it starts again from its last checkpoint."""
        for place in np.flatnonzero(state.running & self._gang).tolist():
            if (self._site.node_of_gpu[state.gpus[place]] == node).any():
                self._lose(state, place)
                self._go(state, place, Phase.STARTING, state.rng.uniform(*RESTORE_S))

    # --- time ---

    def step(
        self,
        state: LifeState,
        second: int,
        job_work: Floats,
        duration_s: float,
        sick: Bools | None,
    ) -> bool:
        """Advance; returns whether a job took or gave back GPUs.

        Args:
            state: changed in place.
            second: since the plant's start.
            job_work: relative throughput of each job of the roster.
            duration_s: of the step.
            sick: per node, whether it cannot work; None where nobody looks after lost nodes.
        """
        moved = state.moved
        state.done_s = state.done_s + job_work * duration_s
        since_s = state.done_s - state.saved_s
        due = self._saves & (since_s >= CHECKPOINT_EVERY_S)
        if due.any():
            state.saved_s = np.where(due, state.done_s, state.saved_s)
        if (state.left_s > 0.0).any():
            state.left_s = np.maximum(state.left_s - duration_s, 0.0)
            for place in np.flatnonzero(state.left_s <= 0.0).tolist():
                if state.phase[place] == Phase.STARTING:
                    self._go(state, place, Phase.RUNNING)
                elif state.phase[place] == Phase.SAVING:
                    state.saved_s = state.saved_s.copy()
                    state.saved_s[place] = state.done_s[place]
                    self._go(state, place, Phase.SAVED)
        over = (state.done_s >= self._duration_s) & state.running
        for place in np.flatnonzero(over).tolist():
            self._hold(state, place, np.zeros(0, dtype=np.int64))
            self._go(state, place, Phase.ENDED)
        if sick is not None:
            self._look_after(state, sick)
        if self._requests:
            self._admit(state, second, duration_s, sick)
        return state.moved != moved

    def _look_after(self, state: LifeState, sick: Bools) -> None:
        """Bring gangs off nodes that cannot work, to spares while there are any."""
        node_of_gpu = self._site.node_of_gpu
        waits = np.flatnonzero(state.phase == Phase.INTERRUPTED)
        if not sick.any() and not waits.size:
            return
        hit = state.job_of_gpu[sick[node_of_gpu]]
        for place in np.union1d(hit[hit < len(self.roster)], waits).tolist():
            gpus = state.gpus[place]
            if state.phase[place] == Phase.SAVED:
                continue
            lost = np.unique(node_of_gpu[gpus])
            lost = lost[sick[lost]]
            for node in lost:
                spare = self._spare_for(state, int(node), sick)
                if spare is not None:
                    self.move(state, place, int(node), spare)
            left = np.unique(node_of_gpu[state.gpus[place]])
            still_lost = bool(sick[left].any())
            if still_lost and self._gang[place] and state.phase[place] != Phase.INTERRUPTED:
                self._lose(state, place)
                self._go(state, place, Phase.INTERRUPTED)
            elif not still_lost and state.phase[place] == Phase.INTERRUPTED:
                self._go(state, place, Phase.STARTING, state.rng.uniform(*RESTORE_S))

    def _spare_for(self, state: LifeState, node: int, sick: Bools) -> int | None:
        site = self._site
        ready = np.flatnonzero(site.is_spare & self._free(state) & ~sick)
        alike = (n for n in ready if site.nodes[n].gpu_count == site.nodes[node].gpu_count)
        return next((int(n) for n in alike), None)

    def _admit(self, state: LifeState, second: int, duration_s: float, sick: Bools | None) -> None:
        waits = (state.phase == Phase.WAITING) & (self._arrives_s <= second)
        if not waits.any():
            return
        state.waited_s = state.waited_s + np.where(waits, duration_s, 0.0)
        free = self._free(state) & ~self._site.is_spare
        if sick is not None:
            free &= ~sick
        for number in self._order:
            place = self._standing + number
            if not waits[place]:
                continue
            nodes = np.flatnonzero(free)[: self._requests[number].nodes]
            if len(nodes) < self._requests[number].nodes:
                continue
            free[nodes] = False
            self._hold(state, place, gpus_of(self._site, nodes))
            self._go(state, place, Phase.STARTING, state.rng.uniform(*RESTORE_S))

    def _free(self, state: LifeState) -> Bools:
        free = np.ones(len(self._site.nodes), dtype=np.bool_)
        free[self._site.node_of_gpu[state.job_of_gpu < len(self.roster)]] = False
        return free

    def _lose(self, state: LifeState, place: int) -> None:
        state.done_s = state.done_s.copy()
        state.done_s[place] = state.saved_s[place]
        state.interruptions = state.interruptions.copy()
        state.interruptions[place] += 1

    def _hold(self, state: LifeState, place: int, gpus: Ints) -> None:
        holder = state.job_of_gpu.copy()
        holder[state.gpus[place]] = len(self.roster)
        holder[gpus] = place
        state.job_of_gpu = holder
        state.gpus = (*state.gpus[:place], gpus, *state.gpus[place + 1 :])
        state.moved += 1

    def _go(self, state: LifeState, place: int, phase: Phase, left_s: float = 0.0) -> None:
        state.phase, state.left_s = state.phase.copy(), state.left_s.copy()
        state.phase[place], state.left_s[place] = phase, left_s
