"""Seeded sites with synchronous jobs, cooling loops and tenants, on the instances' own shape.

All training runs in jobs of 32 to 512 GPUs. A job takes the next training servers in order, so it
reaches over racks whose budgets differ. Draws of its members differ by silicon alone.
"""

from dataclasses import dataclass, replace

import numpy as np

from interlock_evals.instances import (
    CLASSES,
    FAN_OUT,
    SPREAD,
    TDP_W,
    CurveSet,
    Instance,
    instance,
)
from interlock_servers.maxlps.allocator.gang import ALONE, Gangs
from interlock_servers.maxlps.allocator.group_prices import Groups

JOB_SERVERS = (4, 8, 16, 32, 64)  # 32 to 512 GPUs
TRAIN = next(i for i, kind in enumerate(CLASSES) if kind.name == "train")


@dataclass(frozen=True)
class GangInstance:
    """A site and the jobs on it; utility counts a job at its slowest GPU."""

    case: Instance
    gangs: Gangs


def gang_instance(
    gpus: int,
    *,
    seed: int = 0,
    budget_ratio: float = 0.82,
    curves: CurveSet = "h200",
    spread: float = SPREAD,
) -> GangInstance:
    """A site of this many GPUs whose training runs in synchronous jobs.

    Args:
        gpus: how many; need not fill the last rack, PDU or feed.
        seed: of the generator.
        budget_ratio: budget of the site over the natural draw of all its GPUs.
        curves: `prior` (public cap sweeps) or `h200` (audited MLPerf pairs).
        spread: of natural draw between the GPUs of one job, standard deviation.
    """
    case = instance(gpus, seed=seed, budget_ratio=budget_ratio, curves=curves)
    rng = np.random.default_rng([seed, gpus])
    of_gpu = np.flatnonzero(case.work_class == TRAIN)
    server = of_gpu // FAN_OUT[0]
    rank = np.unique(server, return_inverse=True)[1]  # of each GPU's server among the training ones
    sizes: list[int] = []
    while sum(sizes) <= rank.max(initial=-1):
        sizes.append(int(rng.choice(JOB_SERVERS)))
    number = np.repeat(np.arange(len(sizes)), sizes)[rank]
    job = np.full(gpus, ALONE)
    job[of_gpu] = number
    low, high = CLASSES[TRAIN].draw_of_tdp
    share = rng.uniform(low, high, len(sizes))[number]
    value = CLASSES[TRAIN].weight * rng.uniform(0.75, 1.25, len(sizes))[number]
    natural_w, weight = case.leaves.natural_w.copy(), case.leaves.weight.copy()
    silicon = 1 + spread * rng.standard_normal(len(of_gpu))
    natural_w[of_gpu] = np.minimum(TDP_W * share * silicon, TDP_W)
    weight[of_gpu] = value
    leaves = replace(case.leaves, natural_w=natural_w, weight=weight)
    return GangInstance(replace(case, leaves=leaves), Gangs.of(job, gpus))


def cooling_loops(
    case: Instance,
    *,
    seed: int = 0,
    racks: int = 8,
    weak_share: float = 0.05,
    flow: float = 0.75,
) -> Groups:
    """One cooling loop for some racks each; a share of them has lost part of its flow.

    A sound loop carries the natural draw of its GPUs, a weak one `flow` of it. Loops take racks as
    they stand, so they cross from one PDU to the next.
    """
    gpus = len(case.leaves)
    loop = np.arange(gpus) // (FAN_OUT[0] * FAN_OUT[1] * racks)
    count = int(loop[-1]) + 1
    natural_w = np.bincount(loop, weights=case.leaves.natural_w)
    weak = np.random.default_rng([seed, count]).permutation(count)[
        : max(1, round(weak_share * count))
    ]
    most_w = natural_w.astype(np.float64)
    most_w[weak] *= flow
    return Groups.of([f"loop-{i}" for i in range(count)], loop, most_w=most_w)


def tenants(case: Instance, *, seed: int = 0, count: int = 8, promised: float = 0.84) -> Groups:
    """Servers dealt to tenants at random; every other one was promised a share of natural draw."""
    gpus = len(case.leaves)
    rng = np.random.default_rng([seed, gpus, count])
    of_server = rng.integers(0, count, -(-gpus // FAN_OUT[0]))
    of_server[:count] = np.arange(count)
    tenant = of_server[np.arange(gpus) // FAN_OUT[0]]
    natural_w = np.bincount(tenant, weights=case.leaves.natural_w, minlength=count)
    least_w = np.where(np.arange(count) % 2 == 0, promised * natural_w, 0.0)
    return Groups.of([f"tenant-{i}" for i in range(count)], tenant, least_w=least_w)
