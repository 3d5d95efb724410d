"""How many more GPUs fit under a budget at given floors, and what that is worth against what.

"N % more GPUs" says little alone: more GPUs than at nameplate fit because nameplates are too high,
then because not all draw their most at once, and only last because of caps. A report keeps the
three apart and prints what it assumes. The inputs are measured; the day is modelled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

from interlock_servers.maxlps.allocator.limits import MARGIN, HostPower
from interlock_servers.maxlps.allocator.problem import Problem
from interlock_servers.maxlps.allocator.tree import Floats, PowerTree
from interlock_servers.maxlps.allocator.waterfill import waterfill
from interlock_tools.errors import InvalidRequestError
from interlock_tools.power_curve import (
    DECODE,
    FLOOR_RATIO,
    TRAINING,
    CurveParameters,
    cap_for,
    throughput,
)

MINUTES: Final = 1_440
QUANTILE: Final = 0.999  # of the minutes of the day: the floors fit in as many
SATURATED: Final = 0.92  # load of a replica above which its latency is lost
# Chosen so that serving meets the two counts of our table, uncapped and capped; not measured.
SMOOTH_PEAK: Final = 0.84  # of a replica's greatest throughput at the day's peak [A]
NOISE: Final = 0.03  # of load, minute by minute, common to all replicas [A]
TROUGH: Final = MappingProxyType({"regional": 0.4, "global": 0.85})  # of the peak [A]
PREFILL_SHARE: Final = 0.3  # of serving; 15 of 50 in the power model's mix
SERVING: Final = ("prefill", "decode")
EVERY: Final = 15  # minutes: the work of a day is summed over these

CurveSet = Literal["prior", "h200"]
FloorSet = Literal["strict", "relaxed"]
Load = Literal["full", "regional", "global"]


@dataclass(frozen=True)
class Node:
    """One server and what is known of its power, in watts at the meter.

    H100, air: nameplate and 8.4 to 8.48 kW measured are published; other chassis differ by more
    than any policy gains (7.4 to 9.9 kW at most), so measure yours.
    """

    nameplate_w: float = 10_200.0
    measured_max_w: float = 8_480.0
    host: HostPower = field(default_factory=HostPower)
    gpus: int = 8
    tdp_w: float = 700.0


H200_NODE: Final = Node(measured_max_w=7_921.0, host=HostPower(1_677.0, 1.115))  # extrapolated


@dataclass(frozen=True)
class Kind:
    """A kind of work: what it draws as a share of TDP, its curves and its floors.

    Attributes:
        base: share of TDP drawn at no load.
        slope: further share at full load.
        curves: its curve in each set.
        floors: relative work promised in each set of floors.
    """

    base: float
    slope: float
    curves: Mapping[CurveSet, CurveParameters]
    floors: Mapping[FloorSet, float]


_SLOW: Final[Mapping[CurveSet, CurveParameters]] = {
    "prior": CurveParameters(0.420, 0.290),
    "h200": TRAINING,
}
_FAST: Final[Mapping[CurveSet, CurveParameters]] = {
    "prior": CurveParameters(0.384, 0.471),
    "h200": DECODE,
}
KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "train": Kind(0.90, 0.0, _SLOW, {"strict": 0.93, "relaxed": 0.80}),
        "prefill": Kind(0.590, 0.284, _SLOW, {"strict": 0.95, "relaxed": 0.85}),
        "decode": Kind(0.590, 0.284, _FAST, {"strict": 0.95, "relaxed": 0.85}),
        "batch": Kind(0.590, 0.284, _SLOW, {"strict": 0.70, "relaxed": 0.45}),
        "dev": Kind(0.50, 0.0, _SLOW, {"strict": 0.80, "relaxed": 0.60}),
    }
)


@dataclass(frozen=True)
class Mix:
    """Shares of the GPUs by kind of work; `serving` is prefill and decode together."""

    name: str
    shares: Mapping[str, float]
    load: Load

    def by_kind(self) -> dict[str, float]:
        """Shares by kind, serving split.

        Raises:
            InvalidRequestError: a kind is not known, or the shares do not add up to 1.
        """
        out: dict[str, float] = {}
        for name, share in self.shares.items():
            if name == "serving":
                out["prefill"] = PREFILL_SHARE * share
                out["decode"] = (1 - PREFILL_SHARE) * share
            elif name in KINDS:
                out[name] = share
            else:
                raise InvalidRequestError(f"mix: {name!r} is no kind of work")
        values = np.array(list(out.values()))
        if not (np.isfinite(values).all() and (values >= 0).all() and abs(values.sum() - 1) < 1e-6):
            raise InvalidRequestError(f"mix: the shares of {self.name} must add up to 1")
        return {name: share for name, share in out.items() if share > 0}


MIXES: Final[Mapping[str, Mix]] = MappingProxyType(
    {
        "A": Mix("100 % training", {"train": 1.0}, "full"),
        "B": Mix("serving, regional day", {"serving": 1.0}, "regional"),
        "C": Mix("serving, global load", {"serving": 1.0}, "global"),
        "D": Mix("50 training, 50 serving", {"train": 0.5, "serving": 0.5}, "global"),
        "E": Mix(
            "40 training, 45 serving, 15 dev",
            {"train": 0.40, "serving": 0.45, "dev": 0.15},
            "global",
        ),
        "F": Mix("55 serving, 45 batch", {"serving": 0.55, "batch": 0.45}, "global"),
    }
)


@dataclass(frozen=True)
class Provision:
    """What fits under a budget of one nameplate for each node; shares over that many nodes.

    Attributes:
        mix: of the work.
        curves: the set used.
        floors: the set used.
        margin: share of the budget, host power aside, that is left free.
        node: the server.
        static: more GPUs when each node is counted at its measured maximum; no caps.
        statistical: more GPUs at p99.9 of the day's own draw, without caps: unsafe alone, since
            nothing acts in the other minutes.
        capped: more GPUs when caps may go down to the floors.
        work_vs_nameplate: more useful work under the same budget than at nameplate.
        work_vs_static: the same against nodes counted at their measured maximum.
        caps_add: the same against `statistical`: the only part that caps add.
    """

    mix: Mix
    curves: CurveSet
    floors: FloorSet
    margin: float
    node: Node
    static: float
    statistical: float
    capped: float
    work_vs_nameplate: float
    work_vs_static: float
    caps_add: float

    def nodes(self, budget_w: float) -> dict[str, int]:
        """Whole nodes under a budget in watts at the meter, by how they are counted.

        Raises:
            InvalidRequestError: the budget is no number above zero.
        """
        if not 0 < budget_w < np.inf:
            raise InvalidRequestError(f"budget_w: must be above 0 W, not {budget_w:g}")
        at_nameplate = budget_w / self.node.nameplate_w
        more = {
            "nameplate": 0.0,
            "static": self.static,
            "statistical": self.statistical,
            "capped": self.capped,
        }
        return {name: int(at_nameplate * (1 + extra) + 1e-9) for name, extra in more.items()}

    @property
    def text(self) -> str:
        """The report in words, with everything that it assumes."""
        node, host = self.node, self.node.host
        kinds = self.mix.by_kind()
        floors = ", ".join(f"{k} {KINDS[k].floors[self.floors]:.2f}" for k in kinds)
        told = {k: KINDS[k].curves[self.curves] for k in kinds}
        curves = ", ".join(f"{k} p0 {c.p0:g} gamma {c.gamma:g}" for k, c in told.items())
        doubt = ("  work at relaxed floors: above our older table, unexplained; do not quote it",)
        return "\n".join(
            (
                f"{self.mix.name}: under one budget, against {node.nameplate_w:.0f} W a node",
                f"  {self.static:+.0%} GPUs at the measured maximum, {node.measured_max_w:.0f} W",
                f"  {self.statistical:+.0%} at p99.9 of the day without caps (unsafe alone)",
                f"  {self.capped:+.0%} with caps, {self.floors} floors ({floors})",
                f"  work: {self.work_vs_nameplate:+.0%} against nameplate, "
                f"{self.work_vs_static:+.0%} against measured maximum, "
                f"{self.caps_add:+.1%} of it by caps",
                "Assumed:",
                f"  curves ({self.curves}): {curves}",
                f"  node: {float(np.asarray(host.fixed_w)):.0f} W + {host.slope:g} W for each GPU "
                f"watt, {node.gpus} GPUs of {node.tdp_w:.0f} W; margin {self.margin:.1%}",
                f"  day: modelled, not measured; load {self.mix.load}, peak {SMOOTH_PEAK:g} of "
                f"what a replica can do, noise {NOISE:g} a minute for all, latency lost above "
                f"{SATURATED:g}; training, batch and dev always at full load",
                "  more GPUs have work to do, and cooling, network and floor to stand on",
                *(doubt if self.floors == "relaxed" else ()),
            )
        )


def provision(
    mix: Mix,
    *,
    curves: CurveSet = "h200",
    floors: FloorSet = "strict",
    margin: float = MARGIN,
    node: Node | None = None,
    seed: int = 0,
) -> Provision:
    """How many more GPUs fit, three ways, and what work they do; see `Provision`.

    Serving is promised its floor and enough to carry its smoothed load below saturation; load above
    what a cap leaves is not served and counts as lost. The day is ours: against the table of our
    power model, GPUs come out within 6 points and work at strict floors within 4; at relaxed floors
    work comes out up to 15 points higher, unexplained: do not quote it.

    Raises:
        InvalidRequestError: an argument can never work; names it and why.
    """
    node = node or Node()
    share = mix.by_kind()
    if not 0 <= margin < 1:
        raise InvalidRequestError(f"margin: must be in [0, 1), not {margin:g}")
    fixed_w = float(np.asarray(node.host.fixed_w))
    if not fixed_w < node.measured_max_w <= node.nameplate_w:
        raise InvalidRequestError("node: host, measured maximum and nameplate must rise")
    smooth, load = day(mix.load, seed)
    per_node_w = node.gpus * node.tdp_w
    natural_w, held_w = {}, {}
    for name in share:
        kind, curve = KINDS[name], KINDS[name].curves[curves]
        serving = name in SERVING
        at = load if serving else np.ones(MINUTES)
        natural_w[name] = per_node_w * (kind.base + kind.slope * at)
        carried = smooth / SATURATED if serving else np.zeros(MINUTES)
        needed = np.minimum(np.maximum(kind.floors[floors], carried), 1.0)
        full_w = per_node_w * (kind.base + kind.slope)
        floor_w = np.maximum(cap_for(needed, full_w, *curve), FLOOR_RATIO * full_w)
        held_w[name] = np.minimum(natural_w[name], floor_w)

    def nodes(gpu_w: Mapping[str, Floats]) -> float:
        """How many nodes fit under one nameplate at p99.9 of the day."""
        need = sum(share[name] * gpu_w[name] for name in share)
        watts = fixed_w + node.host.slope * need / (1 - margin)
        return node.nameplate_w / float(np.quantile(watts, QUANTILE))

    statistical, capped = nodes(natural_w), nodes(held_w)
    gpu_budget_w = (node.nameplate_w / capped - fixed_w) * (1 - margin) / node.host.slope
    work = capped * _work(share, curves, gpu_budget_w, per_node_w, load, held_w)
    static = node.nameplate_w / node.measured_max_w
    return Provision(
        mix=mix,
        curves=curves,
        floors=floors,
        margin=margin,
        node=node,
        static=static - 1,
        statistical=statistical - 1,
        capped=capped - 1,
        work_vs_nameplate=work - 1,
        work_vs_static=work / static - 1,
        caps_add=work / statistical - 1,
    )


def day(load: Load, seed: int = 0) -> tuple[Floats, Floats]:
    """Smoothed and momentary load of serving, by minute, as a share of a replica's greatest."""
    if load == "full":
        return np.ones(MINUTES), np.ones(MINUTES)
    hours = np.arange(MINUTES) / 60
    shape = 0.5 * (1 - np.cos(2 * np.pi * (hours - 3) / 24))  # least at 3, most at 15 h
    smooth = SMOOTH_PEAK * (TROUGH[load] + (1 - TROUGH[load]) * shape)
    noise = np.random.default_rng(seed).normal(0, NOISE, MINUTES)
    return smooth, np.clip(smooth + noise, 0.0, 1.0)


def _work(
    share: Mapping[str, float],
    curves: CurveSet,
    gpu_budget_w: float,
    per_node_w: float,
    load: Floats,
    held_w: Mapping[str, Floats],
) -> float:
    """Useful work of a node over the day, relative to one without caps.

    Serving has what it draws or what its floor needs, whichever is less; more would buy nothing.
    The others share the rest by the best caps, minute by minute.
    """
    names = list(share)
    part = np.array([share[name] for name in names])
    full_w = part * per_node_w * np.array([KINDS[n].base + KINDS[n].slope for n in names])
    p0, gamma = np.array([KINDS[name].curves[curves] for name in names]).T
    serving = np.isin(names, SERVING)
    rest = np.flatnonzero(~serving)
    tree = PowerTree.from_arrays(["node"], [-1], [1.0], np.zeros(max(len(rest), 1), dtype=np.intp))
    done = []
    for minute in range(0, MINUTES, EVERY):
        cap_w = part * np.array([held_w[name][minute] for name in names])
        left_w = gpu_budget_w - float(cap_w[serving].sum())
        if cap_w.sum() >= gpu_budget_w * (1 - 1e-9):  # beyond p99.9: all give way alike
            cap_w *= min(1.0, gpu_budget_w / cap_w.sum())
        elif len(rest):
            columns = (full_w[rest], p0[rest], gamma[rest], part[rest], cap_w[rest], full_w[rest])
            cap_w[rest] = waterfill(tree, np.array([left_w]), Problem(*columns)).cap_w
        work = throughput(cap_w, full_w, p0, gamma)
        work[serving] = np.minimum(work[serving] / load[minute], 1.0)
        done.append(float(part @ work))
    return float(np.mean(done))


def table(
    curves: CurveSet = "h200", floors: FloorSet = "strict", *, node: Node | None = None
) -> dict[str, Provision]:
    """All mixes at one set of curves and floors."""
    return {
        key: provision(mix, curves=curves, floors=floors, node=node) for key, mix in MIXES.items()
    }
