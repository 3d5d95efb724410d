"""What the allocator is told about each GPU, checked, and the bounds that follow from it."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interlock_servers.maxlps.allocator.tree import Floats
from interlock_tools import power_curve
from interlock_tools.errors import InvalidRequestError


@dataclass(frozen=True)
class Problem:
    """Curves and resolved bounds of the leaves: what every solver here takes.

    Attributes:
        natural_w: draw without a cap, in watts.
        p0: share of natural draw that buys no work, in [0, 0.5).
        gamma: concavity of the curve, in (0, 1).
        weight: value of one unit of relative work, above zero.
        lo_w: least cap, in watts.
        hi_w: most cap, in watts; at least `lo_w`.
    """

    natural_w: Floats
    p0: Floats
    gamma: Floats
    weight: Floats
    lo_w: Floats
    hi_w: Floats

    def work(self, cap_w: Floats) -> Floats:
        """Relative work of each GPU under these caps, in [0, 1]."""
        return power_curve.throughput(cap_w, self.natural_w, self.p0, self.gamma)

    def utility(self, cap_w: Floats) -> float:
        """Weighted relative work of all GPUs under these caps."""
        # Not a dot product: BLAS would wake a thread a core, and they spin long after it.
        return float((self.weight * self.work(cap_w)).sum())

    def with_weight(self, weight: Floats) -> "Problem":
        """The same problem at other weights."""
        return replace(self, weight=weight)


@dataclass(frozen=True)
class Leaves:
    """What the caller knows of each GPU; build it with `of`, which checks.

    Attributes:
        natural_w: draw on its present work without a cap, in watts.
        p0: share of natural draw that buys no work, in [0, 0.5).
        gamma: concavity of the curve, in (0, 1).
        weight: value of one unit of relative work, above zero.
        lo_w: least cap that the device accepts, in watts.
        hi_w: most cap that the device accepts, in watts.
        floor_work: relative work that is promised, in [0, 1].
    """

    natural_w: Floats
    p0: Floats
    gamma: Floats
    weight: Floats
    lo_w: Floats
    hi_w: Floats
    floor_work: Floats

    @classmethod
    def of(
        cls,
        *,
        natural_w: ArrayLike,
        p0: ArrayLike,
        gamma: ArrayLike,
        lo_w: ArrayLike,
        hi_w: ArrayLike,
        weight: ArrayLike = 1.0,
        floor_work: ArrayLike = 0.0,
    ) -> Self:
        """One value for each GPU, or one for all of them; `natural_w` says how many there are.

        Raises:
            InvalidRequestError: a value is missing, NaN or out of range; names argument and GPU.
        """
        natural = np.atleast_1d(np.asarray(natural_w, dtype=np.float64))
        given = {"natural_w": natural, "p0": p0, "gamma": gamma, "weight": weight}
        given |= {"lo_w": lo_w, "hi_w": hi_w, "floor_work": floor_work}
        columns = {name: _column(name, value, len(natural)) for name, value in given.items()}
        leaves = cls(**columns)
        # The curve holds from half of natural draw up; there it must already buy work.
        half = power_curve.FLOOR_RATIO
        _require("natural_w", "be above 0 W", leaves.natural_w > 0, leaves.natural_w)
        _require("p0", f"be in [0, {half:g})", (leaves.p0 >= 0) & (leaves.p0 < half), leaves.p0)
        _require("gamma", "be in (0, 1)", (leaves.gamma > 0) & (leaves.gamma < 1), leaves.gamma)
        _require("weight", "be above 0", leaves.weight > 0, leaves.weight)
        _require("lo_w", "be at least 0 W", leaves.lo_w >= 0, leaves.lo_w)
        _require("hi_w", "be at least lo_w", leaves.hi_w >= leaves.lo_w, leaves.hi_w)
        kept = (leaves.floor_work >= 0) & (leaves.floor_work <= 1)
        _require("floor_work", "be in [0, 1]", kept, leaves.floor_work)
        return leaves

    def __len__(self) -> int:
        return len(self.natural_w)

    def least_w(self) -> Floats:
        """The least cap that the device and the curve allow, promises aside, in watts."""
        return np.maximum(power_curve.FLOOR_RATIO * self.natural_w, self.lo_w)

    def problem(self) -> Problem:
        """The bounds that follow: floors kept, never below half of natural draw or the device.

        A cap above natural draw saves nothing, so natural draw bounds it from above, unless the
        device's least cap is higher still.

        Raises:
            InvalidRequestError: a floor needs more watts than its device can be given.
        """
        least_w, most_w = self.least_w(), np.minimum(self.natural_w, self.hi_w)
        most_w = np.maximum(most_w, self.lo_w)
        promised_w = power_curve.cap_for(self.floor_work, self.natural_w, self.p0, self.gamma)
        # A floor of 1 needs exactly the natural draw; rounding must not make it impossible.
        promised_w = np.where(
            promised_w <= most_w * (1 + 1e-12), np.minimum(promised_w, most_w), promised_w
        )
        lo_w = np.maximum(least_w, np.where(self.floor_work > 0, promised_w, 0.0))
        _require("natural_w", "be at most twice hi_w", least_w <= most_w, self.natural_w)
        _require("floor_work", "be reachable below hi_w", lo_w <= most_w, self.floor_work)
        return Problem(self.natural_w, self.p0, self.gamma, self.weight, lo_w, most_w)


def _column(name: str, value: ArrayLike, count: int) -> Floats:
    """One finite float for each GPU."""
    try:
        column = np.broadcast_to(np.asarray(value, dtype=np.float64), (count,))
    except ValueError:
        raise InvalidRequestError(f"{name}: need one value, or one for each GPU") from None
    _require(name, "be a finite number", np.isfinite(column), column)
    return column


def _require(name: str, what: str, holds: NDArray[np.bool_], value: Floats) -> None:
    """Refuse the request, naming the first GPU for which it does not hold."""
    bad = np.flatnonzero(~holds)
    if len(bad):
        first = f"GPU {bad[0]} ({value[bad[0]]:g})"
        raise InvalidRequestError(f"{name}: must {what}; {len(bad)} do not, first {first}")
