"""Every number of the plant's physics, with its unit and where it comes from.

Evidence tags: [M] measured or computed by us from public data; [P] published by the authors named;
[S] secondary summary of a paper; [V] vendor claim; [A] our assumption. A parameter is changed here,
with a new source, and nowhere else; it is never tuned to make a falsification test pass.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from interlock_tools.power_curve import DECODE, TRAINING, CurveParameters

STEP_S: Final = 1.0  # everything below is integrated exactly, or far slower than this


@dataclass(frozen=True)
class GpuParameters:
    """One GPU model. Resistances are of the die against the coolant that enters its rack."""

    model: str
    tdp_w: float
    cap_min_w: float
    cap_max_w: float
    idle_w: float
    r_fast_k_per_w: float
    r_slow_k_per_w: float
    tau_fast_s: float = 0.3  # [M] B300 soak: at most this
    tau_slow_s: float = 15.8  # [M] B300 soak


@dataclass(frozen=True)
class HostParameters:
    """Node power at the wall: `base_w + slope * sum(GPU power)`; fans and losses are in both."""

    base_w: float
    slope: float


@dataclass(frozen=True)
class WorkParameters:
    """How one class of work draws and slows down.

    Natural draw is `TDP * (draw_base + draw_slope * u)`; `u` in [0, 1] is throughput over the
    greatest throughput of that replica.
    """

    draw_base: float
    draw_slope: float
    curve: CurveParameters
    is_gang: bool  # a gang runs at its slowest GPU
    floor_work: float | None = None  # relative throughput that the service level needs


# --- GPUs ---------------------------------------------------------------------------------------
H100_SXM: Final = GpuParameters(
    model="H100-SXM5-80GB",
    tdp_w=700.0,  # [V]
    cap_min_w=200.0,  # [V] power limit range of the SXM module
    cap_max_w=700.0,  # [V]
    idle_w=72.5,  # [P]
    r_fast_k_per_w=0.0194,  # [A] the B300 value; no public H100 soak with a coolant reading
    r_slow_k_per_w=0.0076,  # [A] as above
)
B300: Final = GpuParameters(
    model="B300",
    tdp_w=1100.0,  # [P] default limit of the device measured
    cap_min_w=200.0,  # [A]
    cap_max_w=1100.0,  # [P]
    idle_w=183.0,  # [P]
    r_fast_k_per_w=0.0194,  # [M] fit of the first 300 s of a soak, RMSE .14 K
    r_slow_k_per_w=0.0076,  # [M] as above
)
B300_BASE_C: Final = 28.0  # [M] coolant side of that fit
B300_HBM_R_K_PER_W: Final = 0.0139  # [M] core resistance under memory-bound work
SILICON_SPREAD: Final = 0.03  # [A] 1 sd of draw; a 64-node H100 trace implies about .02 [M]
SILICON_LIMIT_SD: Final = 3.0  # [A] parts further out are not shipped
LEAKAGE_PER_K: Final = 0.004  # [A] from 995 W (12 s) -> 1038 W (30 min) on B300 [P]
LEAKAGE_REFERENCE_C: Final = 45.0  # [A] H100 at .90 TDP on 28 C coolant

# --- hosts --------------------------------------------------------------------------------------
H100_HOST: Final = HostParameters(base_w=1600.0, slope=1.22)  # [A] from 8.43 kW at 700 W [P]
H200_HOST: Final = HostParameters(base_w=1677.0, slope=1.115)  # [M] 20 audited runs, 350-500 W
NODE_NAMEPLATE_W: Final = 10_200.0  # [V] eight-GPU H100 node

# --- training swing -----------------------------------------------------------------------------
# 512 H100, GPT-3, MLPerf training: period 10.9 s; the node mean falls 7.11 -> 6.45 kW for about
# 3 s of it [M]. In `u` that is .13. The rare falls of 25 % in 2 s are not modelled yet.
TRAIN_PERIOD_S: Final = 10.9
TRAIN_DIP_S: Final = 3.0
TRAIN_DIP_DEPTH: Final = 0.13
TRAIN_MEAN_LOAD: Final = 1.0 - TRAIN_DIP_DEPTH * TRAIN_DIP_S / TRAIN_PERIOD_S

# --- classes of work ----------------------------------------------------------------------------
IDLE_SHARE: Final = H100_SXM.idle_w / H100_SXM.tdp_w
TRAIN_MEAN_SHARE: Final = 0.90  # [A] of TDP, from an average of 76 % of node nameplate [P]
BATCH_SHARE: Final = 0.90  # [M] p90 of 366 H100 serving runs: batch work keeps the replica full


class JobClass(Enum):
    """What a job is doing, as far as power is concerned."""

    TRAIN = "train"
    BATCH = "batch"
    SERVING = "serving"
    DEV = "dev"
    BURN = "burn"  # burn-in and diagnostics: draws the full rating


WORK: Final = {
    JobClass.TRAIN: WorkParameters(
        draw_base=IDLE_SHARE,
        draw_slope=(TRAIN_MEAN_SHARE - IDLE_SHARE) / TRAIN_MEAN_LOAD,
        curve=TRAINING,
        is_gang=True,
    ),
    JobClass.BATCH: WorkParameters(IDLE_SHARE, BATCH_SHARE - IDLE_SHARE, TRAINING, is_gang=False),
    JobClass.SERVING: WorkParameters(
        0.590, 0.284, DECODE, is_gang=False, floor_work=0.95
    ),  # [M] 28 configurations, ML.ENERGY v3; single configurations differ widely
    JobClass.DEV: WorkParameters(IDLE_SHARE, BATCH_SHARE - IDLE_SHARE, TRAINING, is_gang=False),
    JobClass.BURN: WorkParameters(IDLE_SHARE, 1.0 - IDLE_SHARE, TRAINING, is_gang=False),
}
B300_GEMM: Final = CurveParameters(p0=0.401, gamma=0.301)  # [M] five points, one device

# --- synthetic load -----------------------------------------------------------------------------
SERVING_MEAN_LOAD: Final = 0.72  # [A]
SERVING_SLOW_SWING: Final = 0.16  # [A] over 10 to 30 minutes
SERVING_FAST_SWING: Final = 0.06  # [A] over 90 to 180 s
SERVING_NOISE: Final = 0.03  # [A] 1 sd after 10 s of smoothing
DEV_BURST_S: Final = 45.0  # [A] mean length; with the pause below the fleet mean is .46 TDP,
DEV_PAUSE_S: Final = 55.0  # [A] AcmeTrace shows .42 to .48 for mixed research [M]
TRACE_SMOOTHING_S: Final = 10  # [A]

# --- cap loop -----------------------------------------------------------------------------------
CAP_TAU_S: Final = 0.3  # [P] B300
CAP_HOLDS_AT: Final = 0.99  # [P] B300: mean at the cap is .985 to .996 of it
OVERSHOOT_RATIO: Final = 1.43  # [P] B300, a burst from idle under 500 W; NVML only, one device
OVERSHOOT_S: Final = 0.5  # [P] longest burst that showed it
OVERSHOOT_FROM: Final = 0.5  # [A] share of the cap below which a GPU counts as coming from idle
IN_BAND_DELAY_S: Final = (0.1, 1.0)  # [A] uniform

# --- cooling ------------------------------------------------------------------------------------
FLOW_LPM_PER_KW: Final = 1.5  # [S] at a 10 K rise
FLOW_RISE_K: Final = 10.0  # [S]
COOLANT_W_PER_LPM_K: Final = 1000.0 / (FLOW_LPM_PER_KW * FLOW_RISE_K)  # follows from the two
LOOP_J_PER_K_W: Final = 4.0  # [A] 4 kJ/K per kW of design load: .25 K/s with no rejection [S]
EXCHANGER_EFFECTIVENESS: Final = 0.7  # [A]
FACILITY_SUPPLY_C: Final = 25.0  # [A] gives about 28 C to the racks; 25 to 45 C is usual [S]
PUMP_LOSS_FLOW: Final = 0.75  # [S] one of two pumps
LEAK_ISOLATION_S: Final = 2  # [A] valves of the rack are shut after this
THROTTLE_C: Final = 87.0  # [A] core
THROTTLE_HYSTERESIS_K: Final = 3.0  # [A]
THROTTLE_WORK: Final = 0.5  # [A] share of work, and of power above idle
SHUT_OFF_C: Final = THROTTLE_C + 10.0  # [A]

# --- breakers -----------------------------------------------------------------------------------
# Extremely inverse: heat rises by ((I/1.08 In)^2 - 1)/40 a second and trips at 1. That gives 17.8
# minutes at 1.10 In (about 17 [S]) and 59 s at 1.40 (from memory, unverified).
BREAKER_PICKUP: Final = 1.08
BREAKER_HEAT_S: Final = 40.0
BREAKER_COOLING_TAU_S: Final = 300.0  # [A]
