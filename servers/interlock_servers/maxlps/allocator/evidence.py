"""What was seen of one kind of work under caps, kept as a few sums, so that it can run for ever."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from interlock_servers.maxlps.allocator.tree import Floats
from interlock_tools.errors import InvalidRequestError

BIN_W = 5.0  # caps that differ by less are one: their error of form is one and does not average out


@dataclass(frozen=True)
class Evidence:
    """Sums over the samples of each bin of caps, bins ascending; build it with `of`.

    Attributes:
        bin_w: cap of each bin, in multiples of `BIN_W`.
        count: samples in it; fractions once older ones were forgotten.
        cap_w: their mean cap.
        power_w: their mean power.
        power_var: variance of the power in it, in W^2.
        log_rate: mean of the logarithm of throughput, in any one unit.
        log_rate_var: its variance in the bin.
    """

    bin_w: Floats
    count: Floats
    cap_w: Floats
    power_w: Floats
    power_var: Floats
    log_rate: Floats
    log_rate_var: Floats

    @classmethod
    def of(cls, cap_w: ArrayLike, power_w: ArrayLike, throughput: ArrayLike) -> Self:
        """From samples that belong together: cap in force, power drawn, throughput at full load.

        Samples below full load are not comparable: leave them out.

        Raises:
            InvalidRequestError: a value is not a number above zero, or counts differ.
        """
        columns = []
        for name, given in (("cap_w", cap_w), ("power_w", power_w), ("throughput", throughput)):
            column = np.atleast_1d(np.asarray(given, dtype=np.float64))
            bad = np.flatnonzero(~(np.isfinite(column) & (column > 0)))
            if column.ndim != 1 or len(bad):
                where = f", sample {bad[0]} is not" if len(bad) else ""
                raise InvalidRequestError(f"{name}: must be numbers above 0{where}")
            columns.append(column)
        caps, power, rate = columns
        if not len(caps) == len(power) == len(rate):
            raise InvalidRequestError("cap_w, power_w, throughput: need as many of each")
        bins, place = np.unique(np.round(caps / BIN_W) * BIN_W, return_inverse=True)
        count = np.bincount(place).astype(np.float64)

        def mean(values: Floats) -> Floats:
            return np.asarray(np.bincount(place, weights=values) / count, dtype=np.float64)

        log_rate = np.log(rate)
        power_mean, rate_mean = mean(power), mean(log_rate)
        return cls(
            bins,
            count,
            mean(caps),
            power_mean,
            mean((power - power_mean[place]) ** 2),
            rate_mean,
            mean((log_rate - rate_mean[place]) ** 2),
        )

    @property
    def samples(self) -> float:
        """How many samples it stands for."""
        return float(self.count.sum())

    def with_newer(self, newer: "Evidence", keep: float = 1.0) -> "Evidence":
        """Both together, the older samples counted `keep` times each.

        Args:
            newer: samples of the same kind of work, throughput in the same unit.
            keep: in [0, 1]; below 1 what is old is forgotten little by little.

        Raises:
            InvalidRequestError: `keep` is out of range.
        """
        if not 0 <= keep <= 1:
            raise InvalidRequestError(f"keep: must be in [0, 1], not {keep:g}")
        bins, place = np.unique(np.append(self.bin_w, newer.bin_w), return_inverse=True)
        weight = np.append(keep * self.count, newer.count)
        count = np.bincount(place, weights=weight)
        some = np.maximum(count, np.finfo(float).tiny)

        def mean(old: Floats, new: Floats) -> Floats:
            return np.bincount(place, weights=weight * np.append(old, new)) / some

        def spread(old: Floats, new: Floats, old_var: Floats, new_var: Floats) -> Floats:
            away = (np.append(old, new) - mean(old, new)[place]) ** 2
            inside = np.append(old_var, new_var)
            return np.bincount(place, weights=weight * (inside + away)) / some

        alive = count > 0
        merged = (
            bins,
            count,
            mean(self.cap_w, newer.cap_w),
            mean(self.power_w, newer.power_w),
            spread(self.power_w, newer.power_w, self.power_var, newer.power_var),
            mean(self.log_rate, newer.log_rate),
            spread(self.log_rate, newer.log_rate, self.log_rate_var, newer.log_rate_var),
        )
        return Evidence(*(column[alive].astype(np.float64) for column in merged))
