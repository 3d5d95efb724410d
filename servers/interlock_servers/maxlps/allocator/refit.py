"""Natural draw and curve of one kind of work, fitted where it runs, with an honest uncertainty.

Kind of work: GPU type, model, engine and phase together. The posterior is computed on a grid, so
nothing has to converge. Where samples say nothing (caps above the draw, a single cap) the prior
stays, and the interval says so. Promises are planned with the pessimistic end.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from interlock_servers.maxlps.allocator.evidence import Evidence
from interlock_servers.maxlps.allocator.tree import Floats
from interlock_tools.errors import InvalidRequestError
from interlock_tools.power_curve import FLOOR_RATIO, TRAINING, CurveParameters, cap_for, throughput

# Of its cap, what a GPU draws on average that the cap holds back: B300 98.5 to 99.6 % [P]; less
# where the work swings below its cap, as in the older training sweeps [M]. Prior weights [A].
HELD = np.array([0.99, 0.95, 0.90, 0.85, 0.80])
HELD_WEIGHT = np.array([0.50, 0.20, 0.12, 0.10, 0.08])
# Errors that do not average out, one for each cap; the samples themselves may say that they are
# larger. Each counts as if it had been learned from a few caps.
POWER_ERROR = 0.01  # of power: sensor and model [A]
# Of throughput, the curve's form: .010 to .016 at the caps of a fit, but more at a cap left out; at
# .03 the intervals hold 89 to 93 % of those on V100, P100 and RTX 6000 sweeps, 75 % on A40 [M].
FORM_ERROR = 0.03
ERROR_CAPS = 3.0
FITTED = 3  # draw, p0 and gamma
NOISE = 0.02  # of one sample, before the samples say themselves [A]
NOISE_SAMPLES = 4.0  # as many samples does that assumption count
TAIL = 3.0  # degrees of freedom of the prior of the draw (Student)
DRAWS, P0S, GAMMAS = 41, 14, 26  # points of the grid
ZOOMS = 2  # passes, each on the draws that the last one left
COVERAGE = 0.90  # of every interval here
TAIL_ERRORS = 1.94  # errors at the ends of a 90 % interval: Student, 6 degrees of freedom
STRAY = np.array([-1.75, -0.85, 0.0, 0.85, 1.75])  # a normal error as five values
STRAY_WEIGHT = np.array([0.1, 0.24, 0.32, 0.24, 0.1])
PROMISE = 0.95  # chance that a promised work is reached, the fit being right


@dataclass(frozen=True)
class Prior:
    """What is known before measuring; the spreads are as wide as curves transfer badly.

    Attributes:
        natural_w: natural draw, in watts.
        natural_spread: its relative standard deviation (H100 serving, 28 models: about .11 [M]).
        curve: centre of `p0` and `gamma`.
        p0_spread: standard deviation of `p0`, cut to [0, 0.5).
        gamma_spread: standard deviation of the logit of `gamma`. With the two spreads work at .7
            of natural draw is known to +-.1: leave-one-GPU-type-out errors are .04 to .22 [M].
    """

    natural_w: float
    natural_spread: float = 0.12
    curve: CurveParameters = TRAINING
    p0_spread: float = 0.15
    gamma_spread: float = 0.7

    def checked(self) -> "Prior":
        """This prior.

        Raises:
            InvalidRequestError: a value is out of range.
        """
        spreads = (self.natural_w, self.natural_spread, self.p0_spread, self.gamma_spread)
        if not (np.isfinite(spreads).all() and min(spreads) > 0):
            raise InvalidRequestError("prior: natural_w and the spreads must be above 0")
        if not (0 <= self.curve.p0 < FLOOR_RATIO and 0 < self.curve.gamma < 1):
            raise InvalidRequestError("prior: p0 must be in [0, 0.5) and gamma in (0, 1)")
        return self


class Estimate(NamedTuple):
    """Mean, and the ends of the 90 % interval."""

    value: float
    low: float
    high: float


class Robust(NamedTuple):
    """Values for `Leaves.of`: a floor here is kept at the pessimistic end of the fit."""

    natural_w: float
    p0: float
    gamma: float
    floor_work: float


@dataclass(frozen=True)
class Fit:
    """The posterior; arrays are points of the grid and their weights.

    Attributes:
        natural_w: natural draw of each point, in watts.
        p0: share of natural draw that buys no work, of each point.
        gamma: concavity of each point.
        weight: posterior weight of each point; they add up to 1.
        samples: how many samples were used.
        bins: how many different caps.
        form_error: by how much work at any one cap strays from the curve, relative; at least what
            sweeps show, more where these samples do not follow the form.
        learned: share of the prior's variance that the samples removed, by what it is of: `draw`
            (natural draw) and `curve` (work at .7 of it). About 0: still the prior.
    """

    natural_w: Floats
    p0: Floats
    gamma: Floats
    weight: Floats
    samples: float
    bins: int
    form_error: float = FORM_ERROR
    learned: dict[str, float] = field(default_factory=lambda: {"draw": 0.0, "curve": 0.0})

    def of(self, values: Floats) -> Estimate:
        """Mean and interval of something that has a value at each point, the form being right."""
        order = np.argsort(values)
        ahead = np.cumsum(self.weight[order]) - 0.5 * self.weight[order]
        tail = (1 - COVERAGE) / 2
        low, high = np.interp([tail, 1 - tail], ahead, values[order])
        return Estimate(float(self.weight @ values), float(low), float(high))

    @property
    def draw_w(self) -> Estimate:
        """Natural draw, in watts."""
        return self.of(self.natural_w)

    def work(self, cap_w: float) -> Estimate:
        """Relative work to see under a cap, error of form and all.

        Nothing is told below half of the natural draw.
        """
        value, low, high = self.of(throughput(cap_w, self.natural_w, self.p0, self.gamma))
        stray = TAIL_ERRORS * self.form_error * value
        ends = (value - np.hypot(value - low, stray), value + np.hypot(high - value, stray))
        return Estimate(value, float(max(ends[0], 0.0)), float(min(ends[1], 1.0)))

    def work_at_share(self, share: float) -> Estimate:
        """Relative work at a share of natural draw: the curve alone."""
        return self.of(throughput(share, 1.0, self.p0, self.gamma))

    def cap_for(self, work: float) -> Estimate:
        """The least cap that keeps a relative work, in watts."""
        return self.of(cap_for(work, self.natural_w, self.p0, self.gamma))

    def promise_w(self, work: float) -> float:
        """The cap that keeps this work with a chance of 95 %, error of form and all, in watts.

        Where even the natural draw might not, the natural draw: no cap does more.
        """
        caps, weights = [], []
        for stray, weight in zip(STRAY, STRAY_WEIGHT, strict=True):
            needed = min(work * np.exp(self.form_error * stray), 1.0) if work < 1 else 1.0
            caps.append(cap_for(needed, self.natural_w, self.p0, self.gamma))
            weights.append(weight * self.weight)
        cap_w, weight = np.concatenate(caps), np.concatenate(weights)
        order = np.argsort(cap_w)
        reached = np.cumsum(weight[order])
        return float(cap_w[order][min(int(np.searchsorted(reached, PROMISE)), len(order) - 1)])

    @property
    def curve(self) -> CurveParameters:
        """The point whose curve is nearest to the mean of all curves."""
        shares = np.linspace(FLOOR_RATIO, 1.0, 6)[:, None]
        curves = throughput(shares, 1.0, self.p0, self.gamma)
        away = ((curves - (curves @ self.weight)[:, None]) ** 2).sum(axis=0)
        best = int(np.argmin(away))
        return CurveParameters(float(self.p0[best]), float(self.gamma[best]))

    def robust(self, floor_work: float = 0.0) -> Robust:
        """What to plan with: the mean, and for a promise the pessimistic end.

        Where something is promised, the natural draw is its high end, so that the cap which keeps
        the promise is not above what the plan may give.
        """
        if not 0 <= floor_work <= 1:
            raise InvalidRequestError(f"floor_work: must be in [0, 1], not {floor_work:g}")
        p0, gamma = self.curve
        if floor_work == 0:
            return Robust(self.draw_w.value, p0, gamma, 0.0)
        needed_w = self.promise_w(floor_work)
        natural_w = max(self.draw_w.high, needed_w)
        told = float(throughput(needed_w, natural_w, p0, gamma))
        return Robust(natural_w, p0, gamma, max(told, floor_work))


def refit(prior: Prior, seen: Evidence | None = None) -> Fit:
    """The posterior of draw and curve, given what was seen; the prior itself where nothing was.

    Throughput needs no reference: its scale is fitted along. Samples under caps below half of the
    greatest draw seen are left out: the curve says nothing there. Errors that do not average out
    (of the sensor, of the curve's form) are counted once for each cap, not for each sample.

    Args:
        prior: what is known of this kind of work before.
        seen: samples of this kind of work at full load.

    Raises:
        InvalidRequestError: the prior is out of range.
    """
    prior = prior.checked()
    reach = 3.5 * prior.natural_spread
    low, high = np.log(prior.natural_w) - reach, np.log(prior.natural_w) + reach
    before = _posterior(prior, np.linspace(low, high, DRAWS), None)
    if seen is None:
        return before
    within = seen.cap_w >= FLOOR_RATIO * seen.power_w.max()
    used = Evidence(*(column[within] for column in vars(seen).values()))
    powers = np.log(np.append(used.power_w, used.power_w.max() * 1.1))
    logs = np.linspace(min(low, powers.min()), max(high, powers.max()), DRAWS)
    after = before
    for _ in range(ZOOMS + 1):
        after = _posterior(prior, logs, used)
        ends = _span(after, logs)
        logs = np.linspace(ends[0], ends[1], DRAWS)
    learned = {
        "draw": _learned(before, after, "natural_w"),
        "curve": _learned(before, after, "curve"),
    }
    return Fit(
        after.natural_w,
        after.p0,
        after.gamma,
        after.weight,
        used.samples,
        len(used.count),
        after.form_error,
        learned,
    )


def _posterior(prior: Prior, log_draws: Floats, seen: Evidence | None) -> Fit:
    """Weights on the grid of these draws and of all curves."""
    p0s = (np.arange(P0S) + 0.5) / P0S * (FLOOR_RATIO - 0.02)
    gammas = (np.arange(GAMMAS) + 0.5) / GAMMAS
    grid = np.meshgrid(np.exp(log_draws), p0s, gammas, indexing="ij")
    draw, p0, gamma = (axis.ravel() for axis in grid)
    logit = np.log(gamma / (1 - gamma))
    centre = np.log(prior.curve.gamma / (1 - prior.curve.gamma))
    away = np.log(draw / prior.natural_w) / prior.natural_spread
    log_weight = -2.0 * np.log1p(away**2 / TAIL)  # heavy tails: a draw far off can be believed
    log_weight -= 0.5 * ((p0 - prior.curve.p0) / prior.p0_spread) ** 2
    log_weight -= 0.5 * ((logit - centre) / prior.gamma_spread) ** 2 + np.log(gamma * (1 - gamma))
    if seen is None:
        weight = np.exp(log_weight - log_weight.max())
        return Fit(draw, p0, gamma, weight / weight.sum(), 0.0, 0)
    of_rate, missed, count = _of_rate(draw, p0, gamma, seen)
    log_weight += _of_power(draw, seen) + of_rate
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    left = max(count - FITTED, 0)  # what is fitted makes the misses smaller than the errors are
    scale = (ERROR_CAPS + float(weight @ missed)) / (ERROR_CAPS + left)
    form_error = FORM_ERROR * np.sqrt(max(scale, 1.0))
    return Fit(draw, p0, gamma, weight, seen.samples, len(seen.count), float(form_error))


def _of_power(draw: Floats, seen: Evidence) -> Floats:
    """Log likelihood of the power seen: the draw itself, or what the cap left of it."""
    noise = _pooled(seen.power_var / seen.power_w**2, seen.count)
    variance = noise / seen.count + POWER_ERROR**2
    values, place = np.unique(draw, return_inverse=True)
    out = np.zeros(len(values))
    for held, weight in zip(HELD, HELD_WEIGHT, strict=True):
        expected = np.minimum(values[:, None], held * seen.cap_w)
        missed = (np.log(seen.power_w / expected) ** 2 / variance).sum(axis=1)
        out += weight * _student(missed, len(variance))
    log: Floats = np.log(out)[place]
    return log


def _of_rate(draw: Floats, p0: Floats, gamma: Floats, seen: Evidence) -> tuple[Floats, Floats, int]:
    """Squared misses of the throughput seen at each point, and their count.

    The scale of throughput is unknown: it is fitted along, at the cost of one.
    """
    noise = _pooled(seen.log_rate_var, seen.count)
    precision = 1.0 / (noise / seen.count + FORM_ERROR**2)
    total = precision.sum()
    mean, square = np.zeros(len(draw)), np.zeros(len(draw))
    for cap_w, log_rate, share in zip(seen.cap_w, seen.log_rate, precision / total, strict=True):
        work = throughput(cap_w, draw, p0, gamma)
        with np.errstate(divide="ignore"):
            away = log_rate - np.maximum(np.log(work), -50.0)
        mean += share * away
        square += share * away**2
    missed: Floats = total * np.maximum(square - mean**2, 0.0)
    return _student_log(missed, len(precision) - 1), missed, len(precision) - 1


def _student_log(missed: Floats, count: int) -> Floats:
    """Log likelihood of squared misses whose common scale is known only from a few caps."""
    log: Floats = -0.5 * (ERROR_CAPS + count) * np.log1p(missed / ERROR_CAPS)
    return log


def _student(missed: Floats, count: int) -> Floats:
    """The likelihood itself."""
    return np.maximum(np.exp(_student_log(missed, count)), np.finfo(float).tiny)


def _pooled(variance: Floats, count: Floats) -> float:
    """Variance of one sample, from all bins and a few samples' worth of assumption."""
    freedom = np.maximum(count - 1, 0.0).sum()
    inside = float((variance * count).sum())
    return (NOISE_SAMPLES * NOISE**2 + inside) / (NOISE_SAMPLES + float(freedom))


def _span(fit: Fit, logs: Floats) -> tuple[float, float]:
    """Ends of the draws that carry all but a millionth of the weight, a step wider."""
    by_draw = fit.weight.reshape(len(logs), -1).sum(axis=1)
    ahead = np.cumsum(by_draw)
    first = int(np.searchsorted(ahead, 1e-6))
    last = int(np.searchsorted(ahead, 1 - 1e-6))
    step = logs[1] - logs[0]
    return float(logs[first] - step), float(logs[min(last, len(logs) - 1)] + step)


def _learned(before: Fit, after: Fit, what: str) -> float:
    """Share of the prior's variance that is gone."""
    left = []
    for fit in (before, after):
        values: NDArray[np.float64] = (
            np.log(fit.natural_w) if what == "natural_w" else throughput(0.7, 1, fit.p0, fit.gamma)
        )
        mean = fit.weight @ values
        left.append(float(fit.weight @ (values - mean) ** 2))
    return float(np.clip(1 - left[1] / left[0], 0.0, 1.0))
