"""GPU power: what work draws, how caps bite, and how much work is left under them.

A second is one closed step for GPUs that are quiet, and ten sub-steps for those in a transient: a
cap that lands, or a burst from idle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from interlock_plant.arrays import Bools, Floats, Ints
from interlock_plant.jobs import Job
from interlock_plant.parameters import (
    BRAKE_DELAY_S,
    BRAKE_WORK,
    CAP_HOLDS_AT,
    CAP_TAU_S,
    IN_BAND_DELAY_S,
    LEAKAGE_PER_K,
    LEAKAGE_REFERENCE_C,
    OVERSHOOT_FROM,
    OVERSHOOT_RISE_S,
    OVERSHOOT_S,
    OVERSHOOT_SHARE,
    REDFISH_DELAY_S,
    SILICON_LIMIT_SD,
    SILICON_SPREAD,
    SMBPBI_DELAY_S,
    STEP_S,
    SUB_STEP_S,
    WORK,
)
from interlock_plant.site import SiteSpec
from interlock_tools.power_curve import FLOOR_RATIO, throughput


class Channel(Enum):
    """The way by which a cap reaches a GPU; each has its own delay, drawn per command."""

    IN_BAND = "in_band"
    REDFISH = "redfish"  # through the BMC
    SMBPBI = "smbpbi"  # out of band, to the GPU's own controller


DELAY_S = {
    Channel.IN_BAND: IN_BAND_DELAY_S,
    Channel.REDFISH: REDFISH_DELAY_S,
    Channel.SMBPBI: SMBPBI_DELAY_S,
}


def relax(
    start_w: Floats, target_w: Floats, duration_s: Floats | float, tau_s: float = CAP_TAU_S
) -> tuple[Floats, Floats]:
    """First-order approach to `target_w`: power in W at the end, and energy in J on the way."""
    decay = np.exp(-np.asarray(duration_s) / tau_s)
    gap = start_w - target_w
    return target_w + gap * decay, target_w * duration_s + gap * (tau_s * (1.0 - decay))


def burst_w(cap_w: Floats, natural_w: Floats) -> Floats:
    """Where power goes in a burst from idle under a cap, until the cap loop catches it."""
    past = np.maximum(natural_w - cap_w, 0.0)
    return np.minimum(natural_w, cap_w + OVERSHOOT_SHARE * past)


def burst_peak_w(cap_w: Floats, natural_w: Floats, idle_w: Floats, burst_s: float) -> Floats:
    """Greatest power within a burst of `burst_s` from idle."""
    length_s = min(burst_s, OVERSHOOT_S)
    return relax(idle_w, burst_w(cap_w, natural_w), length_s, OVERSHOOT_RISE_S)[0]


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
    clock_share: Floats | None  # of full clocks, per GPU; None while no clock is locked
    brake_left_s: Floats  # until the brake holds; infinite where none was pulled
    is_braking: bool
    energy_j: Floats
    work: Floats  # relative throughput under the caps, mean over the last second
    moving: Ints  # GPUs that were in a transient, and their power at the end of each sub-step
    moving_w: Floats


class PowerModel:
    """Silicon, which does not change, and what the jobs on it draw, until `bind` says otherwise."""

    def __init__(self, site: SiteSpec, *, seed: int) -> None:
        self.gpu = site.gpu
        rng = np.random.default_rng([seed, 1])
        spread = np.clip(rng.standard_normal(site.gpu_count), -SILICON_LIMIT_SD, SILICON_LIMIT_SD)
        self.silicon = 1.0 + SILICON_SPREAD * spread
        self.idle_w = self.gpu.idle_w * self.silicon
        self._high_w = np.full(site.gpu_count, self.gpu.cap_max_w)

    def bind(self, jobs: Sequence[Job], job_of_gpu: Ints) -> None:
        """Take note of what runs where; `len(jobs)` marks a GPU without a job."""
        self.job_of_gpu = job_of_gpu
        idle = (self.gpu.idle_w / self.gpu.tdp_w, 0.0, 0.0, 0.5)  # an idle GPU has no work to lose
        rows = [
            (work.draw_base, work.draw_slope, work.curve.p0, work.curve.gamma)
            for work in (WORK[job.job_class] for job in jobs)
        ]
        base, slope, p0, gamma = np.array([*rows, idle])[job_of_gpu].T
        self._base_w = self.gpu.tdp_w * base * self.silicon
        self._slope_w = self.gpu.tdp_w * slope * self.silicon
        self._p0 = np.ascontiguousarray(p0)
        self._gamma = np.ascontiguousarray(gamma)

    def natural_w(
        self,
        load_u: Floats,
        core_c: Floats,
        running: Bools | None = None,
        ripple_u: Floats | None = None,
    ) -> Floats:
        """Uncapped draw in W; `load_u` per job, with one more entry for idle GPUs.

        It includes the GPU's own greatest limit, under which it was measured: a GPU at that limit
        counts as uncapped. GPUs that are not `running` (their job is paused) draw idle power.
        `ripple_u` is what each GPU adds to its job's `u`.
        """
        gpu_u = load_u[self.job_of_gpu]
        if ripple_u is not None:
            gpu_u = np.maximum(gpu_u + ripple_u, 0.0)
        draw_w = self._base_w + self._slope_w * gpu_u
        if running is not None:
            draw_w = np.where(running, draw_w, self.idle_w)
        leakage = 1.0 + LEAKAGE_PER_K * (core_c - LEAKAGE_REFERENCE_C)
        natural_w: Floats = np.minimum(draw_w * leakage, self._high_w)
        return natural_w

    def settled(self, natural_w: Floats) -> PowerState:
        """Every GPU uncapped and steady at `natural_w`."""
        power_w = np.minimum(natural_w, CAP_HOLDS_AT * self._high_w)
        zeros = np.zeros(len(natural_w))
        return PowerState(
            power_w=power_w,
            end_w=power_w,
            peak_w=power_w,
            natural_w=natural_w,
            cap_set_w=self._high_w,
            cap_effective_w=self._high_w,
            delay_left_s=zeros,
            is_pending=False,
            clock_share=None,
            brake_left_s=np.full(len(natural_w), np.inf),
            is_braking=False,
            energy_j=zeros,
            work=relative_work(self._high_w, natural_w, self._p0, self._gamma),
            moving=np.zeros(0, dtype=np.int64),
            moving_w=np.zeros((0, 0)),
        )

    def command(
        self,
        state: PowerState,
        gpu_indices: Ints,
        cap_w: Floats,
        rng: np.random.Generator,
        channel: Channel = Channel.IN_BAND,
    ) -> None:
        """Set caps; each becomes effective after a delay of its own. A later command replaces."""
        state.cap_set_w = state.cap_set_w.copy()
        state.cap_set_w[gpu_indices] = cap_w
        state.delay_left_s = state.delay_left_s.copy()
        state.delay_left_s[gpu_indices] = rng.uniform(*DELAY_S[channel], size=len(gpu_indices))
        state.is_pending = True

    def lock_clocks(self, state: PowerState, gpu_indices: Ints, share: float) -> None:
        """Lock clocks at a share of full ones; 1 unlocks."""
        shares = np.ones(len(self.silicon)) if state.clock_share is None else state.clock_share
        shares = shares.copy()
        shares[gpu_indices] = share
        state.clock_share = shares if (shares < 1.0).any() else None

    def brake(self, state: PowerState, gpu_indices: Ints, *, on: bool) -> None:
        """Pull or release the power brake; one that is pulled already goes on counting."""
        left_s = state.brake_left_s.copy()
        left_s[gpu_indices] = np.minimum(left_s[gpu_indices], BRAKE_DELAY_S) if on else np.inf
        state.brake_left_s = left_s
        state.is_braking = bool(np.isfinite(left_s).any())

    def braked(self, state: PowerState) -> Bools | None:
        """GPUs that the brake holds; None while it holds none."""
        return state.brake_left_s <= 0.0 if state.is_braking else None

    def slowed_w(self, state: PowerState, reach_w: Floats) -> Floats:
        """The draw that locked clocks and the brake leave of `reach_w`.

        Work goes with the clock, and power as the curve says of that work: an assumption that is
        on the safe side. Unlike a cap it saves at any load.
        """
        if state.clock_share is not None:
            ratio = self._p0 + (1.0 - self._p0) * state.clock_share ** (1.0 / self._gamma)
            locked_w = np.maximum(state.natural_w * ratio, self.idle_w)
            reach_w = np.where(state.clock_share < 1.0, np.minimum(reach_w, locked_w), reach_w)
        held = self.braked(state)
        if held is None or not held.any():
            return reach_w
        return np.where(held, self.idle_w + BRAKE_WORK * (reach_w - self.idle_w), reach_w)

    def forget(self, state: PowerState, gone: Bools) -> None:
        """GPUs that lost power come back with no cap and no command under way."""
        state.cap_set_w = np.where(gone, self.gpu.cap_max_w, state.cap_set_w)
        state.cap_effective_w = np.where(gone, self.gpu.cap_max_w, state.cap_effective_w)
        state.delay_left_s = np.where(gone, 0.0, state.delay_left_s)
        state.brake_left_s = np.where(gone, np.inf, state.brake_left_s)
        if state.clock_share is not None:
            state.clock_share = np.where(gone, 1.0, state.clock_share)
        state.is_braking = bool(np.isfinite(state.brake_left_s).any())

    def step(
        self,
        state: PowerState,
        reach_w: Floats,
        lit: Bools,
        obeys: Bools,
        duration_s: float = STEP_S,
    ) -> None:
        """Advance one second, or one planning step without transients.

        Args:
            state: changed in place; `natural_w` must be of this step.
            reach_w: draw without a cap, throttling and brake included.
            lit: GPUs that have power; the others drop to zero at once.
            obeys: GPUs that follow their caps.
            duration_s: 1, or longer in a planning step.
        """
        cap_w = state.cap_effective_w
        end_w, energy_j = relax(state.end_w, np.minimum(reach_w, CAP_HOLDS_AT * cap_w), duration_s)
        peak_w = np.maximum(state.end_w, end_w)
        work = relative_work(cap_w, state.natural_w, self._p0, self._gamma)
        bursts = (state.end_w < OVERSHOOT_FROM * cap_w) & (reach_w > cap_w)
        unsettled = bursts
        if state.is_pending:
            lands = (state.delay_left_s > 0.0) & (state.delay_left_s <= duration_s)
            unsettled = bursts | lands
        moving = np.flatnonzero(unsettled)
        state.moving = moving
        if moving.size:
            part = self._sub_steps(
                state, moving, reach_w[moving], obeys[moving], bursts[moving], duration_s
            )
            end_w[moving], energy_j[moving], peak_w[moving], work[moving] = part
        if state.is_pending:
            state.delay_left_s = np.maximum(state.delay_left_s - duration_s, 0.0)
            state.is_pending = bool(state.delay_left_s.any())
        if state.clock_share is not None:
            work = np.minimum(work, state.clock_share)
        if state.is_braking:
            state.brake_left_s = state.brake_left_s - duration_s
            held = state.brake_left_s + duration_s <= 0.0  # since the beginning of this step
            work = np.where(held, work * BRAKE_WORK, work)
        if not lit.all():
            end_w, energy_j, peak_w, work = (
                np.where(lit, x, 0.0) for x in (end_w, energy_j, peak_w, work)
            )
        state.end_w, state.peak_w, state.work = end_w, peak_w, work
        state.power_w = energy_j / duration_s
        state.energy_j = state.energy_j + energy_j

    def _sub_steps(
        self,
        state: PowerState,
        moving: Ints,
        reach_w: Floats,
        obeys: Bools,
        bursts: Bools,
        duration_s: float,
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """End, energy, peak and work of the GPUs in a transient, all of them by sub-steps."""
        count = round(duration_s / SUB_STEP_S) if duration_s <= STEP_S else 1
        sub_s = duration_s / count
        left_s = state.delay_left_s[moving]
        old_w, has_command = state.cap_effective_w[moving], left_s > 0.0
        new_w = np.where(
            has_command & (left_s <= duration_s) & obeys, state.cap_set_w[moving], old_w
        )
        wait_s = np.where(has_command, np.minimum(left_s, duration_s), 0.0)
        end_w, peak_w = state.end_w[moving], state.end_w[moving]
        energy_j = np.zeros(len(moving))
        seen_w = np.empty((count, len(moving)))
        bursts = bursts & (count > 1)
        for number in range(count):
            before_s = np.clip(wait_s - number * sub_s, 0.0, sub_s)
            mid_w, first_j = relax(end_w, np.minimum(reach_w, CAP_HOLDS_AT * old_w), before_s)
            calm_w, second_j = relax(
                mid_w, np.minimum(reach_w, CAP_HOLDS_AT * new_w), sub_s - before_s
            )
            step_j = first_j + second_j
            if bursts.any() and number * sub_s < OVERSHOOT_S - 1e-9:
                cap_w = np.where(before_s >= sub_s, old_w, new_w)
                up_w, up_j = relax(end_w, burst_w(cap_w, reach_w), sub_s, OVERSHOOT_RISE_S)
                calm_w, step_j = np.where(bursts, up_w, calm_w), np.where(bursts, up_j, step_j)
            end_w, energy_j = calm_w, energy_j + step_j
            peak_w = np.maximum(peak_w, end_w)
            seen_w[number] = end_w
        state.moving_w = seen_w
        caps_w = state.cap_effective_w.copy()
        caps_w[moving] = new_w
        state.cap_effective_w = caps_w
        natural_w, p0, gamma = (x[moving] for x in (state.natural_w, self._p0, self._gamma))
        work = wait_s * relative_work(old_w, natural_w, p0, gamma)
        work += (duration_s - wait_s) * relative_work(new_w, natural_w, p0, gamma)
        return end_w, energy_j, peak_w, work / duration_s
