"""Caps for a whole site from its picture: the best ones, or the closest to what cannot be had.

Where floors do not fit, nothing is silently broken: the plan has the lowest caps that keep every
floor, says how many watts are still missing and where, and which work could be paused or moved.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from interlock_servers.maxlps.allocator import limits
from interlock_servers.maxlps.allocator.gang import ALONE, Gangs
from interlock_servers.maxlps.allocator.group_prices import NO_GROUP, Groups
from interlock_servers.maxlps.allocator.infeasible import NoRelief, Relief
from interlock_servers.maxlps.allocator.plan import MARGIN, CapPlan, Infeasible, plan
from interlock_servers.maxlps.allocator.problem import Leaves
from interlock_servers.maxlps.allocator.tree import Floats, Ints, PowerTree, TreeNode
from interlock_servers.maxlps.models import Level
from interlock_servers.maxlps.node_view import HOST, NodeView
from interlock_servers.maxlps.picture import Caps, Picture
from interlock_servers.maxlps.relief import relief_of
from interlock_servers.maxlps.steps import first_step
from interlock_tools.errors import InvalidRequestError
from interlock_tools.measures import ALLOCATOR, FEASIBLE

Moves = Literal["any", "down", "up"]
NOTHING: Mapping[str, float] = {}
DEADBAND_W = 15.0  # of a GPU's limit, 2 % of 700 W, as well as draw is known: less is no step up
FITS = 1 + 1e-9  # a floor that is exactly its budget fits


@dataclass(frozen=True)
class SitePlan:
    """What to set, and what could not be had.

    Attributes:
        caps: watts per GPU by node; of `moves` "down" or "up" only those nodes that move so.
        whole: the same for every node that can be capped, had all of it been asked for.
        feasible: whether every floor fits every limit, with the margin.
        missing_w: by domain or loop, watts at the meter by which its limit would have to rise.
        relief: the cheapest work to pause or move so that the floors of the rest fit; its cost is
            GPU-hours of work for an hour of pause.
        work_kept: mean relative work under the whole plan, in [0, 1]; of GPUs that are not paused.
        gap: distance to the optimum at most, relative; None where the limits were not kept.
        dark: nodes that count with their worst case and are given no cap.
        steps_left: how many more such plans a restore takes after this one.
        releases: whether every cap is its device's default.
    """

    caps: dict[str, int]
    whole: dict[str, int]
    feasible: bool
    work_kept: float
    gap: float | None
    missing_w: dict[str, float] = field(default_factory=dict)
    relief: Relief | NoRelief | None = None
    dark: tuple[str, ...] = ()
    steps_left: int = 0
    releases: bool = False


def plan_site(
    picture: Picture,
    site_limit_w: float | None = None,
    margin: float = MARGIN,
    *,
    domain_limits_w: Mapping[str, float] = NOTHING,
    moves: Moves = "any",
    at_most_w: Mapping[str, float] = NOTHING,
    any_feed_may_fail: bool = False,
) -> SitePlan:
    """The best caps within every budget, loop and limit, keeping every floor; or the closest ones.

    Args:
        picture: the site.
        site_limit_w: at the main meter; None: the budgets alone.
        margin: share of each budget that is left free.
        domain_limits_w: further limits, in watts at the meter, by name of the domain.
        moves: `down`: only what falls; where there are further limits and none of the site, only
            under them. `up`: only what rises while nothing falls, as far as the first step that a
            breaker allows; what does not fit then are domains that stand above their limit.
        at_most_w: the most that GPUs of a node may be given, as long as that keeps their promise;
            nodes that the site does not have limit nothing.
        any_feed_may_fail: keep the site within what the others carry once the largest feed is lost.

    Raises:
        InvalidRequestError: an argument is out of range or names no domain, or no feed would be
            left.
    """
    unknown = sorted(set(domain_limits_w) - set(picture.levels))
    if unknown:
        raise InvalidRequestError(f"domain_limits_w: {unknown[0]!r} is no domain of power_tree")
    stands = moves == "up"  # whoever would have to fall for it stays, and so do the others there
    if any_feed_may_fail:
        site_limit_w = min(_surviving_w(picture), site_limit_w or math.inf)
    sheet = Sheet.of(
        picture, site_limit_w, domain_limits_w, margin, stands=stands, at_most_w=at_most_w
    )
    began_s = time.perf_counter()
    found = sheet.plan(margin)
    ALLOCATOR.record(time.perf_counter() - began_s, {FEASIBLE: isinstance(found, CapPlan)})
    missing_w: dict[str, float] = {}
    relief = None
    if isinstance(found, Infeasible):
        closest, missing_w = sheet.closest(margin, found)
        if not stands:
            work = dict(zip(sheet.gpu_node, closest.work.tolist(), strict=True))
            relief = relief_of(sheet.tree, sheet.gpu_budget_w(margin), sheet.lo_w, picture, work)
        solved, gap = closest, None
    else:
        solved, gap = found, found.gap
    # What is paused is given the least that its device takes: it goes on below that, not above.
    idle = {view.node_id: math.ceil(view.limits[0]) for view in picture.lit if view.is_paused}
    whole = _unheld(picture, sheet.by_node(solved.cap_w), at_most_w) | idle
    caps, left = whole, 0
    if moves == "down":
        under = frozenset(domain_limits_w) if site_limit_w is None else frozenset[str]()
        caps = _falls(picture, whole, under)
    elif moves == "up":
        caps, left = first_step(picture, _lifted(picture, whole, at_most_w))
    return SitePlan(
        caps=caps,
        whole=whole,
        feasible=gap is not None,
        work_kept=_mean_work(picture, whole),
        gap=gap,
        missing_w=missing_w,
        relief=relief,
        dark=picture.dark,
        steps_left=left,
        releases=bool(caps) and all(w == int(picture.nodes[n].limits[1]) for n, w in caps.items()),
    )


@dataclass(frozen=True)
class Sheet:
    """What the allocator is given for a picture: tree, GPUs, jobs, loops and tenants.

    Attributes:
        nodes: the domains that feed a GPU which can be capped, dark nodes' worst case taken off.
        gpu_node: name of the node of each GPU.
        leaves: what is known of each GPU.
        job: synchronous job of each GPU, or ALONE.
        job_names: by number of the job.
        parts: loops and tenants with their limits in GPU watts.
    """

    nodes: tuple[TreeNode, ...]
    gpu_node: tuple[str, ...]
    leaves: Leaves
    job: Ints
    job_names: tuple[str, ...]
    parts: tuple[Groups, ...]

    @classmethod
    def of(
        cls,
        picture: Picture,
        site_limit_w: float | None = None,
        domain_limits_w: Mapping[str, float] = NOTHING,
        margin: float = MARGIN,
        *,
        stands: bool = False,
        at_most_w: Mapping[str, float] = NOTHING,
    ) -> "Sheet":
        """The sheet of a picture under these further limits; `stands`: no cap may fall."""
        views = picture.lit
        spread = np.repeat(np.arange(len(views)), [view.gpu_count for view in views])
        rows = [_column(view, at_most_w.get(view.node_id), stands=stands) for view in views]
        columns = np.array(rows)[spread].T
        natural_w, p0, gamma, lo_w, hi_w, floor = columns
        leaves = Leaves.of(
            natural_w=natural_w, p0=p0, gamma=gamma, lo_w=lo_w, hi_w=hi_w, floor_work=floor
        )
        names = [_job(view) for view in views]
        jobs = sorted(set(names) - {""})
        number = {name: place for place, name in enumerate(jobs)} | {"": ALONE}
        return cls(
            nodes=_fed(picture, picture.budgets(site_limit_w, domain_limits_w)),
            gpu_node=tuple(views[place].node_id for place in spread),
            leaves=leaves,
            job=np.array([number[name] for name in names], dtype=np.intp)[spread],
            job_names=tuple(jobs),
            parts=_parts(picture, views, spread, margin),
        )

    @property
    def tree(self) -> PowerTree:
        """The checked tree."""
        return PowerTree.from_nodes(self.nodes, self.gpu_node)

    @property
    def gangs(self) -> Gangs:
        """Who runs in step with whom."""
        return Gangs.of(self.job, len(self.gpu_node))

    @property
    def lo_w(self) -> Floats:
        """Least cap of each GPU that keeps the promise to its job."""
        return self.gangs.promised(self.leaves).problem().lo_w

    def gpu_budget_w(self, margin: float) -> Floats:
        """GPU watts that each node of the tree has left."""
        tree = self.tree
        return limits.gpu_budget_w(tree, tree.budget_w, HOST, margin)

    def plan(self, margin: float) -> CapPlan | Infeasible:
        """The best caps, or what does not fit."""
        return plan(
            self.tree, self.leaves, host=HOST, margin=margin, gangs=self.gangs, parts=self.parts
        )

    def closest(self, margin: float, unfit: Infeasible) -> tuple[CapPlan, dict[str, float]]:
        """The best caps where each limit is at least what the floors under it need; what lacked.

        Raises:
            InvalidRequestError: not even these fit, because loops and tenants were promised more.
        """
        tree, lo_w = self.tree, self.lo_w
        need_w = tree.sums(lo_w) * FITS
        lack_w = (need_w - self.gpu_budget_w(margin)) * HOST.slope / (1 - margin)
        rating_w = tree.budget_w + np.maximum(lack_w, 0.0)
        nodes = tuple(
            node._replace(budget_w=float(watts))
            for node, watts in zip(self.nodes, rating_w, strict=True)
        )
        missing = {
            name: math.ceil(watts)
            for name, watts in zip(tree.names, lack_w.tolist(), strict=True)
            if watts > 1e-6 * abs(watts) + 1e-3
        }
        parts: list[Groups] = []
        for part in self.parts:
            floors_w = part.sums(lo_w) * FITS
            for name, short in zip(part.names, (floors_w - part.most_w).tolist(), strict=True):
                if short > 0:
                    missing[name] = math.ceil(short * HOST.slope / (1 - margin))
            parts.append(
                Groups.of(part.names, part.group, most_w=np.maximum(part.most_w, floors_w))
            )
        relaxed = Sheet(nodes, self.gpu_node, self.leaves, self.job, self.job_names, tuple(parts))
        found = relaxed.plan(margin)
        if isinstance(found, Infeasible):
            raise InvalidRequestError(
                f"the floors under {found.node} lack {found.shortfall_w:.0f} GPU watts even at "
                "limits made for them: look at what loops and tenants were promised"
            )
        if unfit.limit == "promise":
            missing.setdefault(unfit.node, math.ceil(unfit.shortfall_w * HOST.slope))
        return found, missing

    def by_node(self, cap_w: Floats) -> dict[str, int]:
        """Whole watts for each node, the same for its GPUs; not below what a floor needs."""
        whole_w = np.maximum(np.floor(cap_w + 1e-9), np.ceil(self.lo_w - 1e-9)).astype(int)
        return dict(zip(self.gpu_node, whole_w.tolist(), strict=True))


def _job(view: NodeView) -> str:
    in_step = view.group is not None and view.group.is_synchronous and not view.is_paused
    return view.group.name if view.group is not None and in_step else ""


def _column(view: NodeView, most_w: float | None, *, stands: bool) -> tuple[float, ...]:
    min_w, max_w, set_w = view.limits
    natural_w, curve = view.natural_w, view.curve
    if view.is_paused:
        return natural_w, curve.p0, curve.gamma, natural_w, natural_w, 0.0
    # No more is counted than its GPUs draw together; the curve is that of the hottest.
    hi_w = min(max_w, max(view.mean_w, view.promised_w))
    if stands:
        min_w = max(min_w, min(set_w, hi_w))
    if most_w is not None:
        hi_w = min(hi_w, max(most_w, min_w, view.promised_w))
    max_w = max(hi_w, min_w)
    return natural_w, curve.p0, curve.gamma, min_w, max_w, view.planned_floor


def _surviving_w(picture: Picture) -> float:
    """What the feeds carry once the largest of them is lost, in watts at the meter."""
    feeds = {d.name: d.budget_w for d in picture.domains if picture.levels[d.name] is Level.FEED}
    if len(feeds) < 2 or not all(map(math.isfinite, feeds.values())):
        raise InvalidRequestError(
            f"any_feed_may_fail: power_tree has to state two or more feeds; it has {len(feeds)}"
        )
    return limits.Supply(picture.root, feeds).checked().surviving_w


def _unheld(picture: Picture, caps: Caps, at_most_w: Mapping[str, float]) -> dict[str, int]:
    """The same, where a node may draw all it does: then none of its GPUs is held back."""
    out: dict[str, int] = {}
    for node_id, cap_w in caps.items():
        view = picture.nodes[node_id]
        is_free = cap_w >= int(view.mean_w)
        out[node_id] = cap_w
        if is_free:
            most_w = max(cap_w, at_most_w.get(node_id, math.inf))
            out[node_id] = max(cap_w, int(min(view.natural_w, most_w)))
    return out


def _mean_work(picture: Picture, caps: Caps) -> float:
    runs = [picture.nodes[node_id] for node_id in caps if not picture.nodes[node_id].is_paused]
    work = sum(view.gpu_count * view.work_at(caps[view.node_id]) for view in runs)
    return work / sum(view.gpu_count for view in runs) if runs else 1.0


def _fed(picture: Picture, domains: Sequence[TreeNode]) -> tuple[TreeNode, ...]:
    """The domains above GPUs that can be capped, less what dark nodes under them may draw."""
    dark_w: dict[str, float] = {}
    fed: set[str] = set()
    for view in picture.nodes.values():
        names = (view.node_id, *view.path)
        if view.is_dark:
            for name in names:
                dark_w[name] = dark_w.get(name, 0.0) + view.dark_w
        else:
            fed.update(names)
    return tuple(
        # A budget that dark nodes may use up stands as next to nothing: no floor fits in it.
        domain._replace(budget_w=max(domain.budget_w - dark_w.get(domain.name, 0.0), 1.0))
        for domain in domains
        if domain.name in fed
    )


def _parts(
    picture: Picture, views: Sequence[NodeView], spread: Ints, margin: float
) -> tuple[Groups, ...]:
    """Loops with the GPU watts that they can still cool, and tenants with what they were promised.

    The heat of hosts and of dark nodes is taken off first, and what whole watts may add.
    """
    out: list[Groups] = []
    of_loop = [picture.loop_of.get(view.node_id, "") for view in views]
    loops = [name for name in picture.loops_w if name in of_loop]
    if loops:
        most_w = []
        for loop in loops:
            on_it = [picture.nodes[n] for n, name in picture.loop_of.items() if name == loop]
            fixed_w = sum(v.dark_w if v.is_dark else float(np.asarray(HOST.fixed_w)) for v in on_it)
            rounding_w = sum(v.gpu_count for v in on_it)
            room_w = (picture.loops_w[loop] - fixed_w) * (1 - margin) / HOST.slope - rounding_w
            most_w.append(max(room_w, 0.0))
        out.append(Groups.of(loops, _numbers(of_loop, loops)[spread], most_w=most_w))
    of_tenant = [(view.group.tenant if view.group else None) or "" for view in views]
    tenants = [name for name in picture.tenants_least_w if name in of_tenant]
    if tenants:
        least_w = [picture.tenants_least_w[name] for name in tenants]
        out.append(Groups.of(tenants, _numbers(of_tenant, tenants)[spread], least_w=least_w))
    return tuple(out)


def _numbers(names: Sequence[str], known: Sequence[str]) -> Ints:
    number = {name: place for place, name in enumerate(known)}
    return np.array([number.get(name, NO_GROUP) for name in names], dtype=np.intp)


def _falls(picture: Picture, caps: Caps, under: frozenset[str]) -> dict[str, int]:
    """Those that lower some GPU, under these domains where there are any."""
    return {
        node_id: cap_w
        for node_id, cap_w in caps.items()
        if picture.nodes[node_id].moves_w(cap_w)[0] > 0
        and (not under or under & {node_id, *picture.nodes[node_id].path})
    }


def _lifted(picture: Picture, caps: Caps, at_most_w: Mapping[str, float]) -> dict[str, int]:
    """Those that raise some GPU and lower none; what draws no more goes to its device's default."""
    out: dict[str, int] = {}
    for node_id, cap_w in caps.items():
        view = picture.nodes[node_id]
        if view.is_paused:
            continue
        draws_less = cap_w >= int(view.natural_w) and node_id not in at_most_w
        lifted_w = int(view.limits[1]) if draws_less else cap_w
        fall_w, rise_w = view.moves_w(lifted_w)
        if rise_w >= DEADBAND_W * view.gpu_count and (fall_w == 0 or None in view.each_set_w):
            out[node_id] = lifted_w
    return out
