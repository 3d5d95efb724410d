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
PLANNING_STEP_S: Final = 60.0  # for long spans, where transients do not matter


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
    hbm_over_core_k_per_w: float = 0.0114  # [A] 8 K over the core at 700 W; nothing is published


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
H200_SXM: Final = GpuParameters(
    model="H200-SXM-141GB",
    tdp_w=700.0,  # [V]
    cap_min_w=200.0,  # [V]
    cap_max_w=700.0,  # [V]
    idle_w=72.5,  # [A] that of the H100
    r_fast_k_per_w=0.0194,  # [A] as above
    r_slow_k_per_w=0.0076,
)
A100_SXM: Final = GpuParameters(
    model="A100-SXM4-80GB",
    tdp_w=400.0,  # [V]
    cap_min_w=100.0,  # [V]
    cap_max_w=400.0,  # [V]
    idle_w=62.0,  # [M] AcmeTrace: 5 % of the readings are below
    r_fast_k_per_w=0.0194,  # [A] as above
    r_slow_k_per_w=0.0076,
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
MEMORY_BOUND_CORE: Final = B300_HBM_R_K_PER_W / 0.0270  # [M] share of the core's usual rise
SILICON_SPREAD: Final = 0.03  # [A] 1 sd of draw; a 64-node H100 trace implies about .02 [M]
SILICON_LIMIT_SD: Final = 3.0  # [A] parts further out are not shipped
LEAKAGE_PER_K: Final = 0.004  # [A] from 995 W (12 s) -> 1038 W (30 min) on B300 [P]
LEAKAGE_REFERENCE_C: Final = 45.0  # [A] H100 at .90 TDP on 28 C coolant

# --- hosts --------------------------------------------------------------------------------------
H100_HOST: Final = HostParameters(base_w=1600.0, slope=1.22)  # [A] from 8.43 kW at 700 W [P]
H200_HOST: Final = HostParameters(base_w=1677.0, slope=1.115)  # [M] 20 audited runs, 350-500 W
# [M] 64 immersed nodes average 6.85 kW in GPT-3 training, with GPUs at .90 of TDP [A]. One number
# cannot give two: the slope is an assumption (no fans), the base follows from the measured mean.
H100_IMMERSION_HOST: Final = HostParameters(base_w=1457.0, slope=1.07)
A100_HOST: Final = HostParameters(base_w=1100.0, slope=1.22)  # [A] scaled from the H100 chassis
NODE_NAMEPLATE_W: Final = 10_200.0  # [V] eight-GPU H100 node
CHASSIS_SPREAD: Final = 0.019  # [M] 1 sd of the peaks of 7 of 8 air-cooled nodes (8.40 to 8.86 kW)

# --- training swing -----------------------------------------------------------------------------
# 512 H100, GPT-3, MLPerf training: period 10.9 s; the node mean falls 7.11 -> 6.45 kW for about
# 3 s of it [M]. In `u` that is .13. The rare falls of 25 % in 2 s are not modelled yet.
TRAIN_PERIOD_S: Final = 10.9
TRAIN_DIP_S: Final = 3.0
TRAIN_DIP_DEPTH: Final = 0.13
TRAIN_MEAN_LOAD: Final = 1.0 - TRAIN_DIP_DEPTH * TRAIN_DIP_S / TRAIN_PERIOD_S

# The same run second by second, mean of 64 nodes, share of the busy level: 264 regular dips (mean,
# aligned at their lowest second), one every 10.92 s; 24 long ones, every 142 s, that stay down for
# 12 s; and once in 57 minutes, in place of a long one, a fall by a third. Nodes wander by 149 W of
# their own (from the range over 64). [M]
SWING_PERIOD_S: Final = 10.9215
SWING_DIP: Final = (0.999, 0.979, 0.930, 0.896, 0.928, 0.973, 0.992)
SWING_LONG_DIP: Final = (
    *(0.997, 0.969, 0.914, 0.862, 0.852, 0.878, 0.895, 0.898, 0.900),
    *(0.901,) * 7,
    *(0.903, 0.920, 0.955, 0.984, 0.994, 0.998),
)
SWING_FALL: Final = (
    *(0.986, 0.925, 0.781, 0.672, 0.722, 0.827, 0.879, 0.893),
    *(0.899,) * 7,
    *(0.907, 0.939, 0.977, 0.995, 0.998),
)
SWING_CYCLES: Final = 13  # in 142 s; a long dip takes the first two of them
SWING_FALL_EVERY: Final = 24  # of these 142 s
SWING_NODE_W: Final = 149.0  # 1 sd
SWING_BUSY_W: Final = 7096.0
SQUARE_SWING_LOW: Final = (0.75, 0.50, 0.20)  # [P] POLCA: low level, share of TDP
SQUARE_SWING_PERIOD_S: Final = (0.3, 5.0)  # [P] POLCA

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
# A burst from idle goes on past the cap, towards the natural draw, before the loop catches it. Fit
# of this form to the five published bursts (500 W: 1.05, 1.42, 1.43 after 5, 50, 500 ms; 700 W:
# 1.22 after 20 ms; 1100 W: .99); B300, NVML only, one device. [M]
OVERSHOOT_SHARE: Final = 0.386  # of the way from the cap to the natural draw
OVERSHOOT_RISE_S: Final = 0.0049  # first order
OVERSHOOT_S: Final = 0.5  # [P] longest burst that showed it
OVERSHOOT_FROM: Final = 0.5  # [A] share of the cap below which a GPU counts as coming from idle
SUB_STEP_S: Final = 0.1  # for GPUs in a transient
IN_BAND_DELAY_S: Final = (0.1, 1.0)  # [A] uniform
REDFISH_DELAY_S: Final = (1.0, 5.0)  # [A] uniform; through the BMC
SMBPBI_DELAY_S: Final = (40.0, 40.0)  # [P] POLCA
BRAKE_DELAY_S: Final = 5.0  # [P] POLCA: to near halt
BRAKE_WORK: Final = 0.02  # [A] what "near halt" leaves of work, and of power above idle

# --- sensing ------------------------------------------------------------------------------------
SENSE_EVERY_S: Final = 0.1  # [P] A100 and H100: the power reading is of 25 ms of each 100 ms
SENSE_WINDOW_S: Final = 0.025  # [P]
COUNTER_WINDOW_S: Final = 1.0  # [P] the averaged counter; hides swings faster than 2 s

# --- cooling ------------------------------------------------------------------------------------
FLOW_LPM_PER_KW: Final = 1.5  # [S] at a 10 K rise
FLOW_RISE_K: Final = 10.0  # [S]
COOLANT_W_PER_LPM_K: Final = 1000.0 / (FLOW_LPM_PER_KW * FLOW_RISE_K)  # follows from the two
LOOP_J_PER_K_W: Final = 4.0  # [A] 4 kJ/K per kW of design load: .25 K/s with no rejection [S]
EXCHANGER_EFFECTIVENESS: Final = 0.7  # [A]
SUPPLY_CONTROL_S: Final = 60.0  # [A] in which a CDU's valve brings its supply near its target
FACILITY_SUPPLY_C: Final = 25.0  # [A] gives about 28 C to the racks; 25 to 45 C is usual [S]
PUMP_LOSS_FLOW: Final = 0.75  # [S] one of two pumps
LEAK_ISOLATION_S: Final = 2  # [A] valves of the rack are shut after this
THROTTLE_C: Final = 87.0  # [A] core
THROTTLE_HYSTERESIS_K: Final = 3.0  # [A]
THROTTLE_WORK: Final = 0.5  # [A] share of work, and of power above idle
SHUT_OFF_K: Final = 10.0  # [A] above a throttle limit
SHUT_OFF_C: Final = THROTTLE_C + SHUT_OFF_K
HBM_THROTTLE_C: Final = 95.0  # [S]
FOULED_K: Final = (5.0, 8.0)  # [S] a tray with a poor cold plate; uniform
PUMP_POWER_SHARE: Final = 0.01  # [A] of a CDU's rating, both pumps at design flow
PUMP_EXPONENT: Final = 3.0  # affinity law: power goes with the cube of the flow

# --- breakers -----------------------------------------------------------------------------------
# Extremely inverse: heat rises by ((I/1.08 In)^2 - 1)/40 a second and trips at 1. That gives 17.8
# minutes at 1.10 In (about 17 [S]) and 59 s at 1.40 (from memory, unverified).
BREAKER_PICKUP: Final = 1.08
BREAKER_HEAT_S: Final = 40.0
BREAKER_COOLING_TAU_S: Final = 300.0  # [A]

# --- UPS ----------------------------------------------------------------------------------------
UPS_RIDE_S: Final = 10.0  # [P] the window within which load must come down
# Longest time at a load, share of the rating: low ends of the published ranges (30 s to 10 min, 10
# to 60 s, 10 to 20 cycles of 50 Hz). Beyond the last row it fails at once. [P]
UPS_OVERLOAD: Final = ((1.25, 30.0), (1.50, 10.0), (2.00, 0.2))
UPS_RECHARGE_SHARE: Final = 0.1  # [A] of its rating
UPS_COOLING_S: Final = 600.0  # [A] from the brink back to fresh

# --- checkpoints and faults ---------------------------------------------------------------------
CHECKPOINT_S: Final = (77.0, 146.0)  # [P] arXiv 2502.16631, one GPU with about 55 GB; uniform
RESTORE_S: Final = (39.0, 145.0)  # [P] as above
CHECKPOINT_EVERY_S: Final = 1800.0  # [A] background checkpoints of work that can be saved
INTERRUPTIONS_PER_GPU_H: Final = 1.97e-5  # [S] 419 in 54 days on 16,384 H100 (Meta)
HBM_A100_RATIO: Final = 3.2  # [P] HBM faults per GPU on H100 against A100, arXiv 2503.11901
REPAIR_S: Final = 10_800.0  # [A] mean time to repair what broke by itself
SERVING_FULL_U: Final = 0.92  # [A] a replica busier than this share breaks its latency
