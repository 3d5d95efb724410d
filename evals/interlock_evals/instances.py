"""Seeded power-allocation instances: a site of GPUs with mixed work under uneven budgets.

Shape and mix are those that our published comparisons use: 8 GPUs a server, 4 servers a rack, 10
racks a PDU, 20 PDUs a feed; 40 % training, 15 % prefill, 35 % decode, 10 % development.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from interlock_servers.maxlps.allocator.problem import Leaves, Problem
from interlock_servers.maxlps.allocator.tree import NO_NODE, PowerTree

FAN_OUT = (8, 4, 10, 20)  # GPUs a server, servers a rack, racks a PDU, PDUs a feed
LEVELS = ("server", "rack", "pdu", "feed", "site")
TDP_W = 700.0  # H100 SXM
LEAST_CAP_W = 200.0  # what its driver accepts
SPREAD = 0.03  # of natural draw between pieces of silicon, standard deviation (assumed)
DERATE = 0.12  # racks and PDUs lose up to this share of their rating
# Rating of a rack or PDU against its share of the site's budget. No source says it: of 1.2, 1.15
# and 1.1 it is the one whose uniform row comes nearest to the published comparison.
OVERSUBSCRIBED = 1.15
FEED_SLACK = 1.05  # rating of a feed against its share of the site's budget (assumed)

CurveSet = Literal["prior", "h200"]
Floats = NDArray[np.float64]


class WorkClass(NamedTuple):
    """A kind of work: its share of the servers, its value, its draw and its two curves."""

    name: str
    share: float
    weight: float
    draw_of_tdp: tuple[float, float]  # natural draw, uniform between these
    prior: tuple[float, float]  # p0 and gamma: median of public cap sweeps
    h200: tuple[float, float]  # p0 and gamma: audited MLPerf Inference v4.1 pairs
    priority: int  # 0 is served first, where classes are served in order


# Serving draws 0.590 + 0.284 u of TDP on H100 (ML.ENERGY v3, 28 configurations), u = load of the
# replica: prefill at high load. Decode differs by model more than by load: p10 to p90 of 366 runs
# of the same data. Training and development draws are assumed.
CLASSES = (
    WorkClass("train", 0.40, 1.0, (0.86, 0.94), (0.420, 0.290), (0.0, 0.61), 1),
    WorkClass("prefill", 0.15, 1.5, (0.79, 0.874), (0.420, 0.290), (0.0, 0.61), 0),
    WorkClass("decode", 0.35, 1.5, (0.56, 0.90), (0.384, 0.471), (0.0, 0.70), 0),
    WorkClass("dev", 0.10, 0.3, (0.40, 0.60), (0.420, 0.290), (0.0, 0.61), 2),
)


@dataclass(frozen=True)
class Instance:
    """One allocation problem: budgets are GPU watts, host power and margin already taken off."""

    name: str
    tree: PowerTree
    leaves: Leaves
    work_class: NDArray[np.intp]  # position in CLASSES, by GPU
    priority: NDArray[np.intp]

    @property
    def budget_w(self) -> Floats:
        """Watts that the GPUs under each node may take, by node."""
        return self.tree.budget_w

    @property
    def problem(self) -> Problem:
        """Curves and bounds of the GPUs."""
        return self.leaves.problem()


def instance(
    gpus: int,
    *,
    seed: int = 0,
    budget_ratio: float = 0.80,
    curves: CurveSet = "h200",
    serving_floor: float = 0.0,
) -> Instance:
    """A site of this many GPUs, the same for the same arguments.

    Args:
        gpus: how many; need not fill the last rack, PDU or feed.
        seed: of the generator.
        budget_ratio: budget of the site over the natural draw of all its GPUs.
        curves: `prior` (public cap sweeps) or `h200` (audited MLPerf pairs).
        serving_floor: relative work promised to prefill and decode; 0 promises nothing.
    """
    rng = np.random.default_rng(seed)
    node_of, parent, height = _skeleton(gpus)
    servers = int(node_of[-1]) + 1
    kind = rng.choice(len(CLASSES), size=servers, p=[c.share for c in CLASSES])
    low, high = np.array([c.draw_of_tdp for c in CLASSES])[kind].T
    drawn = rng.uniform(low, high)[node_of] * (1 + SPREAD * rng.standard_normal(gpus))
    natural_w = np.minimum(TDP_W * drawn, TDP_W)
    value = np.array([c.weight for c in CLASSES])[kind] * rng.uniform(0.75, 1.25, servers)
    of_gpu = kind[node_of]
    p0, gamma = np.array([getattr(c, curves) for c in CLASSES])[of_gpu].T
    serving = np.isin(of_gpu, [i for i, c in enumerate(CLASSES) if c.name in ("prefill", "decode")])

    gpus_under = np.bincount(node_of, minlength=len(parent))
    for level in range(len(LEVELS) - 1):
        here = np.flatnonzero(height == level)
        np.add.at(gpus_under, parent[here], gpus_under[here])
    budget_w = gpus_under * natural_w.mean() * budget_ratio  # racks are rated alike, work is not
    budget_w[height == 0] = TDP_W * FAN_OUT[0]
    uneven = (height == 1) | (height == 2)
    budget_w[uneven] *= OVERSUBSCRIBED * (1 - rng.uniform(0, DERATE, int(uneven.sum())))
    budget_w[height == 3] *= FEED_SLACK
    names = [f"{LEVELS[h]}-{i}" for i, h in enumerate(height)]
    return Instance(
        name=f"{gpus} GPUs, budget {budget_ratio:g}, {curves} curves, seed {seed}",
        tree=PowerTree.from_arrays(names, parent, budget_w, node_of),
        leaves=Leaves.of(
            natural_w=natural_w,
            p0=p0,
            gamma=gamma,
            weight=value[node_of],
            lo_w=LEAST_CAP_W,
            hi_w=TDP_W,
            floor_work=np.where(serving, serving_floor, 0.0),
        ),
        work_class=of_gpu,
        priority=np.array([c.priority for c in CLASSES])[of_gpu],
    )


def _skeleton(gpus: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Each GPU's server, each node's parent and height; servers first, then racks, and so on."""
    counts = [gpus]
    for fan in FAN_OUT:
        counts.append(-(-counts[-1] // fan))
    counts = [*counts[1:], 1]
    first = np.cumsum([0, *counts])
    parents = [
        first[level + 1] + np.arange(counts[level]) // FAN_OUT[level + 1]
        for level in range(len(FAN_OUT) - 1)
    ]
    parents += [np.full(counts[-2], first[-2]), np.array([NO_NODE])]
    height = np.repeat(np.arange(len(counts)), counts)
    return np.arange(gpus) // FAN_OUT[0], np.concatenate(parents), height
