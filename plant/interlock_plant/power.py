"""GPU power: what work draws, how caps bite, and how much work is left under them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interlock_plant.arrays import Bools, Floats, Ints
from interlock_plant.jobs import Job, job_of_gpu
from interlock_plant.parameters import (
    CAP_HOLDS_AT,
    CAP_TAU_S,
    IN_BAND_DELAY_S,
    LEAKAGE_PER_K,
    LEAKAGE_REFERENCE_C,
    OVERSHOOT_FROM,
    OVERSHOOT_RATIO,
    OVERSHOOT_S,
    SILICON_LIMIT_SD,
    SILICON_SPREAD,
    STEP_S,
    WORK,
)
from interlock_plant.site import SiteSpec
from interlock_tools.power_curve import FLOOR_RATIO, throughput


def relax(start_w: Floats, target_w: Floats, duration_s: Floats | float) -> tuple[Floats, Floats]:
    """First-order approach to `target_w`: power in W at the end, and energy in J on the way."""
    decay = np.exp(-np.asarray(duration_s) / CAP_TAU_S)
    gap = start_w - target_w
    return target_w + gap * decay, target_w * duration_s + gap * (CAP_TAU_S * (1.0 - decay))


def relative_work(cap_w: Floats, natural_w: Floats, p0: Floats, gamma: Floats) -> Floats:
    """Relative throughput in [0, 1] of each GPU under its cap.

    The measured curve ends at half of the natural draw. Below, the plant takes a straight line to
    zero: an assumption, which one point supports (B300 GEMM at .42 of natural draw: .499, measured
    .498). Nobody should plan there.
    """
    work = np.ones_like(natural_w)
    bound = np.flatnonzero(cap_w < natural_w)
    if bound.size:
        natural = natural_w[bound]
        floor_w = FLOOR_RATIO * natural
        cap = cap_w[bound]
        inside = throughput(np.maximum(cap, floor_w), natural, p0[bound], gamma[bound])
        work[bound] = inside * np.minimum(cap / floor_w, 1.0)
    return work


@dataclass
class PowerState:
    """What changes: power, caps and commands under way. Arrays are replaced, never written into."""

    power_w: Floats  # mean over the last second, as an averaging counter would show it
    end_w: Floats  # at its end
    peak_w: Floats  # the most within it
    natural_w: Floats  # uncapped draw at the present load and temperature
    cap_set_w: Floats
    cap_effective_w: Floats
    delay_left_s: Floats  # until the cap set becomes effective; 0 where nothing is under way
    is_pending: bool
    energy_j: Floats
    work: Floats  # relative throughput under the caps, mean over the last second


class PowerModel:
    """What does not change: silicon, work classes, limits."""

    def __init__(self, site: SiteSpec, jobs: Sequence[Job], *, seed: int) -> None:
        self.gpu = site.gpu
        rng = np.random.default_rng([seed, 1])
        spread = np.clip(rng.standard_normal(site.gpu_count), -SILICON_LIMIT_SD, SILICON_LIMIT_SD)
        self.silicon = 1.0 + SILICON_SPREAD * spread
        self.job_of_gpu: Ints = job_of_gpu(site, jobs)
        idle = (self.gpu.idle_w / self.gpu.tdp_w, 0.0, 0.0, 0.5)  # an idle GPU has no work to lose
        rows = [
            (work.draw_base, work.draw_slope, work.curve.p0, work.curve.gamma)
            for work in (WORK[job.job_class] for job in jobs)
        ]
        base, slope, p0, gamma = np.array([*rows, idle])[self.job_of_gpu].T
        self.idle_w = self.gpu.idle_w * self.silicon
        self._base_w = self.gpu.tdp_w * base * self.silicon
        self._slope_w = self.gpu.tdp_w * slope * self.silicon
        self._p0 = np.ascontiguousarray(p0)
        self._gamma = np.ascontiguousarray(gamma)

    def natural_w(self, load_u: Floats, core_c: Floats, running: Bools | None = None) -> Floats:
        """Uncapped draw in W; `load_u` per job, with one more entry for idle GPUs.

        It includes the GPU's own greatest limit, under which it was measured: a GPU at that limit
        counts as uncapped. GPUs that are not `running` (their job is paused) draw idle power.
        """
        draw_w = self._base_w + self._slope_w * load_u[self.job_of_gpu]
        if running is not None:
            draw_w = np.where(running, draw_w, self.idle_w)
        leakage = 1.0 + LEAKAGE_PER_K * (core_c - LEAKAGE_REFERENCE_C)
        natural_w: Floats = np.minimum(draw_w * leakage, self.gpu.cap_max_w)
        return natural_w

    def settled(self, natural_w: Floats) -> PowerState:
        """Every GPU uncapped and steady at `natural_w`."""
        cap_w = np.full(len(natural_w), self.gpu.cap_max_w)
        power_w = np.minimum(natural_w, CAP_HOLDS_AT * cap_w)
        zeros = np.zeros(len(natural_w))
        work = relative_work(cap_w, natural_w, self._p0, self._gamma)
        return PowerState(
            power_w, power_w, power_w, natural_w, cap_w, cap_w, zeros, False, zeros, work
        )

    def command(
        self, state: PowerState, gpu_indices: Ints, cap_w: Floats, rng: np.random.Generator
    ) -> None:
        """Set caps; each becomes effective after a delay of its own. A later command replaces."""
        state.cap_set_w = state.cap_set_w.copy()
        state.cap_set_w[gpu_indices] = cap_w
        state.delay_left_s = state.delay_left_s.copy()
        state.delay_left_s[gpu_indices] = rng.uniform(*IN_BAND_DELAY_S, size=len(gpu_indices))
        state.is_pending = True

    def forget(self, state: PowerState, gone: Bools) -> None:
        """GPUs that lost power come back with no cap and no command under way."""
        state.cap_set_w = np.where(gone, self.gpu.cap_max_w, state.cap_set_w)
        state.cap_effective_w = np.where(gone, self.gpu.cap_max_w, state.cap_effective_w)
        state.delay_left_s = np.where(gone, 0.0, state.delay_left_s)

    def step(self, state: PowerState, reach_w: Floats, lit: Bools, obeys: Bools) -> None:
        """Advance one second.

        Args:
            state: changed in place; `natural_w` must be of this second.
            reach_w: draw without a cap, throttling included.
            lit: GPUs that have power; the others drop to zero at once.
            obeys: GPUs that follow their caps.
        """
        old_cap_w = state.cap_effective_w
        if state.is_pending:
            wait_s = np.minimum(state.delay_left_s, STEP_S)
            lands = (state.delay_left_s > 0.0) & (state.delay_left_s <= STEP_S)
            cap_w = np.where(lands & obeys, state.cap_set_w, old_cap_w)
            end_w, before_j = relax(
                state.end_w, np.minimum(reach_w, CAP_HOLDS_AT * old_cap_w), wait_s
            )
            end_w, after_j = relax(
                end_w, np.minimum(reach_w, CAP_HOLDS_AT * cap_w), STEP_S - wait_s
            )
            energy_j = before_j + after_j
            work = wait_s * self._work(old_cap_w, state) + (STEP_S - wait_s) * self._work(
                cap_w, state
            )
            state.delay_left_s = state.delay_left_s - wait_s
            state.is_pending = bool(state.delay_left_s.any())
            state.cap_effective_w = cap_w
        else:
            cap_w = old_cap_w
            end_w, energy_j = relax(state.end_w, np.minimum(reach_w, CAP_HOLDS_AT * cap_w), STEP_S)
            work = self._work(cap_w, state)
        peak_w = np.maximum(state.end_w, end_w)
        bursts = (state.end_w < OVERSHOOT_FROM * cap_w) & (reach_w > cap_w)
        if bursts.any():
            burst_w = np.where(bursts, np.minimum(reach_w, OVERSHOOT_RATIO * cap_w), 0.0)
            peak_w = np.maximum(peak_w, burst_w)
            energy_j = energy_j + OVERSHOOT_S * np.maximum(burst_w - CAP_HOLDS_AT * cap_w, 0.0)
        if not lit.all():
            end_w, energy_j, peak_w, work = (
                np.where(lit, x, 0.0) for x in (end_w, energy_j, peak_w, work)
            )
        state.end_w, state.peak_w, state.work = end_w, peak_w, work
        state.power_w = energy_j / STEP_S
        state.energy_j = state.energy_j + energy_j

    def _work(self, cap_w: Floats, state: PowerState) -> Floats:
        return relative_work(cap_w, state.natural_w, self._p0, self._gamma)
