"""Caps for synchronous jobs: a job runs at the speed of its slowest GPU, so its members share one.

The value of a job is split over its members by prices, which turns it back into plain
water-filling; the split moves until the members run at one speed. Every round keeps every budget,
and the best round is the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from interlock_servers.maxlps.allocator import groups
from interlock_servers.maxlps.allocator.group_prices import Groups
from interlock_servers.maxlps.allocator.groups import GroupSolution
from interlock_servers.maxlps.allocator.problem import Leaves, Problem
from interlock_servers.maxlps.allocator.tree import Floats, Ints, PowerTree
from interlock_servers.maxlps.allocator.waterfill import Solution, waterfill
from interlock_tools.errors import InvalidRequestError
from interlock_tools.power_curve import cap_for

ALONE = -1  # the job of a GPU that waits for no other
ROUNDS = 25  # of prices from nothing
WARM_ROUNDS = 6  # from the split of an earlier, similar plan
MOST_ROUNDS = 150  # until the split has settled; not with groups, whose rounds cost ten times more
SETTLED = 2.5e-3  # of all work: what uneven members may still lose when the rounds end
GROUP_ROUNDS = 2  # of prices of groups in each round; they settle along with the split
BY_PRICE = (1.01, 1.01, 1.005, 1.0)  # surplus handed back at the split, then at the weights:
BY_WEIGHT = (1.01, 1.005, 1.0)  # a member may run this much faster than its job did
STEP = 1.4  # of a move of the split; 0.8 needs 25 rounds for the same gap, 2.2 does not settle
LEAST_SHARE = 1e-3  # of its weight, so that no member loses its say for good


@dataclass(frozen=True)
class Gangs:
    """Who belongs to which job; build it with `of`, which checks.

    Attributes:
        job: job of each GPU (caller's order), counted from 0; ALONE where it waits for none.
        members: positions of the GPUs that have a job, job by job.
        starts: where each job begins in `members`.
    """

    job: Ints
    members: Ints
    starts: Ints

    @classmethod
    def of(cls, job: ArrayLike, leaf_count: int) -> Self:
        """Jobs from one number for each GPU: 0 to the last job, or ALONE.

        Raises:
            InvalidRequestError: the count is wrong, a number is none, or a job has no GPU.
        """
        given = np.asarray(job)
        if given.shape != (leaf_count,) or not np.issubdtype(given.dtype, np.integer):
            raise InvalidRequestError(f"job: need one whole number for each of {leaf_count} GPUs")
        number = given.astype(np.intp)
        if (number < ALONE).any():
            first = int(np.flatnonzero(number < ALONE)[0])
            raise InvalidRequestError(f"job: {number[first]} of GPU {first} is no job")
        held = number[number != ALONE]
        sizes = np.bincount(held)
        if len(empty := np.flatnonzero(sizes == 0)):
            raise InvalidRequestError(f"job: {len(empty)} have no GPU, first job {empty[0]}")
        order = np.argsort(number, kind="stable")
        members = order[len(number) - len(held) :]
        return cls(number, members, np.cumsum(sizes) - sizes)

    @property
    def count(self) -> int:
        """How many jobs there are."""
        return len(self.starts)

    def spread(self, by_job: Floats) -> Floats:
        """One value of each job, to its members, in the order of `members`."""
        return by_job[self.job[self.members]]

    def slowest(self, by_leaf: Floats) -> Floats:
        """The least value among the members of each job."""
        if not self.count:
            return np.zeros(0)
        return np.minimum.reduceat(by_leaf[self.members], self.starts)

    def total(self, by_member: Floats) -> Floats:
        """Sum over the members of each job, of values in the order of `members`."""
        return np.add.reduceat(by_member, self.starts) if self.count else np.zeros(0)

    def work(self, problem: Problem, cap_w: Floats) -> Floats:
        """Relative work of each GPU, in [0, 1]: in a job, that of its slowest member."""
        work = problem.work(cap_w)
        work[self.members] = self.spread(self.slowest(work))
        return work

    def utility(self, problem: Problem, cap_w: Floats) -> float:
        """Weighted relative work; the weight of a job is the sum of its members' weights."""
        return float((problem.weight * self.work(problem, cap_w)).sum())

    def promised(self, leaves: Leaves) -> Leaves:
        """The same GPUs, each with the highest promise in its job: the slowest must keep it too."""
        floor = leaves.floor_work.copy()
        floor[self.members] = -self.spread(self.slowest(-floor))
        return replace(leaves, floor_work=floor)

    def bounded(self, problem: Problem, most_work: Floats) -> Problem:
        """The same problem; no member gets more than its job can use at `most_work` (by job)."""
        at = self.members
        useful_w = cap_for(
            self.spread(most_work), problem.natural_w[at], problem.p0[at], problem.gamma[at]
        )
        hi_w = problem.hi_w.copy()
        hi_w[at] = np.maximum(problem.lo_w[at], np.minimum(hi_w[at], useful_w))
        return replace(problem, hi_w=hi_w)


@dataclass(frozen=True)
class GangSolution:
    """Caps and what a later solve can start from.

    Attributes:
        cap_w: cap of each GPU, in watts (caller's order).
        priced: the last round of prices; with groups, theirs too.
        split: share of its job's weight that each GPU stood for then; its weight where alone.
        short_w: by how much each group misses its promise, for each way to part the GPUs; above 0
            anywhere: no answer was found and the caps must not be used.
    """

    cap_w: Floats
    priced: Solution | GroupSolution
    split: Floats
    short_w: tuple[Floats, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether every promise to a group is kept."""
        return not any(short.any() for short in self.short_w)


def solve(
    tree: PowerTree,
    budget_w: Floats,
    problem: Problem,
    gangs: Gangs,
    parts: Sequence[Groups] = (),
    *,
    start: GangSolution | None = None,
) -> GangSolution:
    """Caps that let the jobs and the GPUs alone do the most weighted work within every budget.

    Not proved exact: `gang_dual.upper_bound` says how far the answer can be from the best. Members
    run at one speed, save those whose least cap is faster and those of a group that was promised
    watts. Method: our power model, 2.3, with longer steps and, where needed, more rounds.

    Args:
        tree: the power tree.
        budget_w: watts that the GPUs under each node may take together, by node.
        problem: curves and bounds of the GPUs, in the caller's order.
        gangs: which GPUs run in step.
        parts: ways to part the GPUs into groups that have limits of their own.
        start: an earlier solution of a similar problem with the same jobs and groups.

    Raises:
        InvalidRequestError: the least caps exceed a node's budget or what a group may take.
    """
    search = _Search(tree, budget_w, problem, gangs, parts, start)
    least = ROUNDS if start is None else WARM_ROUNDS
    for done in range(1, 1 + (least if parts else MOST_ROUNDS)):
        search.look(search.top.with_weight(search.split))
        if not gangs.count or (done >= least and search.is_settled()):
            break
        search.move_split()
    priced, split = search.priced, search.split
    for factors, weight in ((BY_PRICE, split), (BY_WEIGHT, problem.weight)):
        for factor in factors if gangs.count else ():
            capped = gangs.bounded(search.top, np.minimum(factor * search.speed, 1.0))
            search.look(capped.with_weight(weight))
    return GangSolution(search.even(), priced, split, search.short_w)


class _Search:
    """The rounds' state: the split, the last answer and the best one."""

    def __init__(
        self,
        tree: PowerTree,
        budget_w: Floats,
        problem: Problem,
        gangs: Gangs,
        parts: Sequence[Groups],
        start: GangSolution | None,
    ) -> None:
        self._tree, self._budget_w, self._gangs, self._parts = tree, budget_w, gangs, parts
        at = gangs.members
        top = gangs.bounded(problem, gangs.slowest(problem.work(problem.hi_w)))
        for part in parts:  # what was promised is given, even where the job cannot use it
            promised = part.spread(part.least_w) > 0
            top = replace(top, hi_w=np.where(promised, problem.hi_w, top.hi_w))
        self.top = top
        self._weight = top.weight[at]
        self._job_weight = gangs.total(self._weight)
        self._exponent = (1.0 - top.gamma[at]) / top.gamma[at]
        sizes = gangs.total(np.ones(len(at)))
        self._job_exponent = gangs.total(self._exponent) / sizes
        self.split = top.weight.copy()
        self._last: Solution | GroupSolution | None = None
        if start is not None:
            self.split[at] = start.split[at]
            self._rescale()
            self._last = start.priced
        self.speed = np.zeros(gangs.count)
        self.short_w: tuple[Floats, ...] = ()
        self._best, self._best_w = -np.inf, top.lo_w
        self._utility = 0.0
        self._member_work = np.zeros(0)

    @property
    def priced(self) -> Solution | GroupSolution:
        """The last answer with its prices."""
        if self._last is None:
            raise RuntimeError("priced: nothing was solved yet")
        return self._last

    def look(self, problem: Problem) -> None:
        """One answer at this split and these bounds; the best so far is kept."""
        found: Solution | GroupSolution
        last, is_sound = self._last, True
        if self._parts:
            known = last if isinstance(last, GroupSolution) else None
            rounds = groups.ROUNDS if known is None else GROUP_ROUNDS
            found = groups.solve(self._tree, self._budget_w, problem, self._parts, known, rounds)
            is_sound = found.is_sound
            if not self.short_w or is_sound:
                self.short_w = found.short_w
        else:
            price = None if last is None else last.log_price
            found = waterfill(self._tree, self._budget_w, problem, price)
        self._last = found
        work = self.top.work(found.cap_w)
        self._member_work = work[self._gangs.members]
        self.speed = self._gangs.slowest(work)
        work[self._gangs.members] = self._gangs.spread(self.speed)
        self._utility = float((self.top.weight * work).sum())
        if self._utility > self._best and is_sound:
            self._best, self._best_w = self._utility, found.cap_w

    def even(self) -> Floats:
        """The best caps less what members have above their job's speed: that buys nothing."""
        speed = self._gangs.slowest(self.top.work(self._best_w))
        even_w = np.minimum(self._best_w, self._gangs.bounded(self.top, speed).hi_w)
        for part in self._parts:
            short = (part.sums(even_w) < part.least_w).astype(np.float64)
            even_w = np.where(part.spread(short) > 0, self._best_w, even_w)
        return even_w

    def is_settled(self) -> bool:
        """Whether the jobs run nearly as fast as they would with the same watts, shared evenly."""
        lost = float((self._job_weight * (self._even_speed() - self.speed)).sum())
        return lost <= SETTLED * self._utility

    def move_split(self) -> None:
        """A member that is slower than its job would be at these prices gains say in it."""
        work, at = self._member_work, self._gangs.members
        pull = np.clip(self._gangs.spread(self._even_speed()) / work, 0.5, 2.0)
        self.split[at] *= pull ** (STEP * self._exponent)
        self._rescale()

    def _even_speed(self) -> Floats:
        """The speed of each job were its members even, at the prices of the last answer."""
        needed = self._gangs.total(
            self.split[self._gangs.members] * self._member_work**-self._exponent
        )
        speed: Floats = (self._job_weight / needed) ** (1.0 / self._job_exponent)
        return speed

    def _rescale(self) -> None:
        """The shares of a job add up to its weight."""
        at = self._gangs.members
        share = np.maximum(self.split[at], LEAST_SHARE * self._weight)
        self.split[at] = share * self._gangs.spread(self._job_weight / self._gangs.total(share))
