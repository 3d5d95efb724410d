"""What runs where: jobs, their classes, and the placements that the house uses.

A job holds whole GPUs. These hold theirs from start to end, unless `lifecycle` moves them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from interlock_plant.arrays import Floats, Ints
from interlock_plant.parameters import MEMORY_BOUND_CORE, WORK, JobClass
from interlock_plant.site import SiteSpec
from interlock_tools.errors import InvalidRequestError


@dataclass(frozen=True)
class Job:
    """One job on its GPUs.

    Attributes:
        gpu_indices: indices into the site's GPUs.
        weight: value of one GPU-second of its work.
        floor_work: relative throughput in (0, 1] that it must keep, or None.
        is_checkpointable: whether its state can be saved, so that a pause loses nothing.
        is_memory_bound: it streams memory, which warms the core less for the same power.
    """

    job_id: str
    tenant_id: str
    job_class: JobClass
    gpu_indices: tuple[int, ...]
    weight: float = 1.0
    floor_work: float | None = None
    is_checkpointable: bool = True
    is_memory_bound: bool = False

    @property
    def is_gang(self) -> bool:
        """Whether it runs at its slowest GPU."""
        return WORK[self.job_class].is_gang


def check_jobs(site: SiteSpec, jobs: Sequence[Job]) -> None:
    """Check that `jobs` can run together on `site`.

    Raises:
        InvalidRequestError: a job id is used twice, a job has no GPU, a GPU does not exist or is
            held twice, or a weight or floor is out of range.
    """
    for job_id, times in Counter(job.job_id for job in jobs).items():
        if times > 1:
            raise InvalidRequestError(f"job id {job_id!r} is used {times} times")
    holder: dict[int, str] = {}
    for job in jobs:
        if not job.gpu_indices:
            raise InvalidRequestError(f"{job.job_id} has no GPU")
        if not job.weight > 0:
            raise InvalidRequestError(f"{job.job_id}: weight must be positive, not {job.weight}")
        if job.floor_work is not None and not 0 < job.floor_work <= 1:
            raise InvalidRequestError(f"{job.job_id}: floor_work must be in (0, 1]")
        for gpu in job.gpu_indices:
            if not 0 <= gpu < site.gpu_count:
                raise InvalidRequestError(f"{job.job_id}: {site.name} has no GPU {gpu}")
            if gpu in holder:
                raise InvalidRequestError(f"GPU {gpu} is held by {holder[gpu]} and {job.job_id}")
            holder[gpu] = job.job_id


def job_of_gpu(site: SiteSpec, jobs: Sequence[Job]) -> Ints:
    """Index of the job on each GPU; `len(jobs)` where there is none."""
    index = np.full(site.gpu_count, len(jobs), dtype=np.int64)
    for number, job in enumerate(jobs):
        index[list(job.gpu_indices)] = number
    return index


def core_factor(jobs: Sequence[Job], job_of: Ints) -> Floats | None:
    """Per GPU, how much its core warms for its power; None where every job is as usual."""
    if not any(job.is_memory_bound for job in jobs):
        return None
    factors = [MEMORY_BOUND_CORE if job.is_memory_bound else 1.0 for job in jobs]
    return np.array([*factors, 1.0])[job_of]


# (name, tenant, class, nodes, weight), in the order of the nodes: the lab's 64. By GPUs that is
# 45 % training, 25 % batch, 25 % serving, 5 % development. Racks differ, as in life.
_LAB: Final = (
    ("pretrain-atlas", "aurora", JobClass.TRAIN, 16, 1.0),
    ("chat-large", "borealis", JobClass.SERVING, 6, 1.5),
    ("embed-corpus", "cirrus", JobClass.BATCH, 8, 1.0),
    ("finetune-lyra", "borealis", JobClass.TRAIN, 8, 1.0),
    ("chat-small", "cirrus", JobClass.SERVING, 4, 1.5),
    ("notebooks", "delta", JobClass.DEV, 2, 0.3),
    ("label-images", "aurora", JobClass.BATCH, 4, 1.0),
    ("code-assist", "delta", JobClass.SERVING, 3, 1.5),
    ("finetune-vega", "cirrus", JobClass.TRAIN, 4, 1.0),
    ("speech", "aurora", JobClass.SERVING, 2, 1.5),
    ("evaluate-nightly", "borealis", JobClass.BATCH, 4, 1.0),
    ("search-rank", "cirrus", JobClass.SERVING, 1, 1.5),
    ("adapt-mini", "delta", JobClass.TRAIN, 1, 1.0),
    ("sandbox", "aurora", JobClass.DEV, 1, 0.3),
)


def lab_jobs(site: SiteSpec) -> tuple[Job, ...]:
    """Fourteen jobs of four tenants on the 64 nodes of the lab; the same every time."""
    return _place(site, _LAB, suffix="")


def hall_jobs(site: SiteSpec) -> tuple[Job, ...]:
    """The lab's mix, repeated along the nodes of a hall.

    Spares, and nodes left over at the end, stay idle. A site of fewer than 64 nodes gets the same
    mix in small: each job at least one node, in order, as long as there are any.
    """
    usable = int(np.flatnonzero(~site.is_spare).size)
    lab_nodes = sum(entry[3] for entry in _LAB)
    if usable < lab_nodes:
        return _small(site, usable / lab_nodes, usable)
    placed: list[Job] = []
    for number in range(usable // lab_nodes):
        placed += _place(site, _LAB, suffix=f"-{number + 1:02d}", first_node=number * lab_nodes)
    return tuple(placed)


def jobs_of(site: SiteSpec) -> tuple[Job, ...]:
    """The house's mix on any site: the lab's own jobs on 64 nodes, `hall_jobs` elsewhere."""
    is_lab = int(np.flatnonzero(~site.is_spare).size) == sum(entry[3] for entry in _LAB)
    return lab_jobs(site) if is_lab else hall_jobs(site)


def _small(site: SiteSpec, scale: float, usable: int) -> tuple[Job, ...]:
    plan = []
    for name, tenant_id, job_class, node_count, weight in _LAB:
        size = min(max(round(node_count * scale), 1), usable)
        if size:
            plan.append((name, tenant_id, job_class, size, weight))
            usable -= size
    return _place(site, plan, suffix="")


def _place(
    site: SiteSpec,
    plan: Sequence[tuple[str, str, JobClass, int, float]],
    *,
    suffix: str,
    first_node: int = 0,
) -> tuple[Job, ...]:
    nodes = np.flatnonzero(~site.is_spare)
    needed = first_node + sum(entry[3] for entry in plan)
    if needed > len(nodes):
        raise InvalidRequestError(f"{site.name} has {len(nodes)} nodes, {needed} are needed")
    placed: list[Job] = []
    for name, tenant_id, job_class, node_count, weight in plan:
        gpus = gpus_of(site, nodes[first_node : first_node + node_count])
        placed.append(
            Job(
                job_id=name + suffix,
                tenant_id=tenant_id,
                job_class=job_class,
                gpu_indices=tuple(gpus.tolist()),
                weight=weight,
                floor_work=WORK[job_class].floor_work,
                is_checkpointable=job_class in (JobClass.TRAIN, JobClass.BATCH),
            )
        )
        first_node += node_count
    return tuple(placed)


def gpus_of(site: SiteSpec, nodes: Ints) -> Ints:
    """The GPUs of these nodes, in order."""
    if not nodes.size:
        return np.zeros(0, dtype=np.int64)
    return np.concatenate([np.arange(site.first_gpu[n], site.first_gpu[n + 1]) for n in nodes])
