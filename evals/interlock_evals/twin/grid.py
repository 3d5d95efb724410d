"""Grid events on 256 GPUs (7): Phoenix, a quarter less for three hours; London, in 30 s."""

from typing import NamedTuple

import numpy as np

from interlock_evals.twin.check import START, Check, Data, Finding
from interlock_plant import Channel, GridEvent, Job, JobClass, Plant, SteadyLoad, hall_site
from interlock_plant.parameters import WORK
from interlock_tools.power_curve import FLOOR_RATIO, cap_for
from interlock_tools.svg import Picture

NODES = 32
FLOOR = 0.95
SERVING = WORK[JobClass.SERVING].curve
SETTLE_S = 60  # of notice used to come down


class Plan(NamedTuple):
    """What is done to the flexible part."""

    cap_w: float
    paused: int  # of the training jobs, one a node


def _plant(flexible_nodes: int) -> Plant:
    """One training job a node on the first nodes, serving with a floor on the rest."""
    site = hall_site(NODES)
    jobs = [
        Job(f"train-{n}", "aurora", JobClass.TRAIN, tuple(range(8 * n, 8 * n + 8)))
        for n in range(flexible_nodes)
    ]
    if flexible_nodes < NODES:
        serving = tuple(range(8 * flexible_nodes, 8 * NODES))
        jobs.append(Job("serve", "borealis", JobClass.SERVING, serving, floor_work=FLOOR))
    return Plant(site, jobs, seed=1, start=START, load=SteadyLoad(jobs))


def _plan(plant: Plant, flexible_nodes: int, target_w: float) -> Plan | None:
    """Serving at its floor; training capped, and below half of its draw paused. None: impossible.

    The plan is honest: it does not know the silicon, only the mean draw.
    """
    site, gpus = plant.site, 8 * flexible_nodes
    host_w = NODES * site.host.base_w
    serving_w = _floor_caps(plant, flexible_nodes).sum()
    room_w = (target_w - host_w) / site.host.slope - serving_w
    if not gpus:
        return Plan(0.0, 0) if room_w >= 0 else None
    natural_w = float(plant.natural_full_w[:gpus].max())
    least_w = max(FLOOR_RATIO * natural_w, site.gpu.cap_min_w)
    for paused in range(flexible_nodes + 1):
        left = 8 * (flexible_nodes - paused)
        idle_w = 8 * paused * site.gpu.idle_w * 1.05
        cap_w = (room_w - idle_w) / left if left else 0.0
        if left and cap_w >= least_w:
            return Plan(min(cap_w, site.gpu.cap_max_w), paused)
        if not left and room_w >= idle_w:
            return Plan(site.gpu.cap_min_w, paused)
    return None


def _floor_caps(
    plant: Plant, flexible_nodes: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    natural_w = plant.natural_full_w[8 * flexible_nodes :]
    return cap_for(FLOOR + 0.002, natural_w, SERVING.p0, SERVING.gamma)


def _act(plant: Plant, flexible_nodes: int, plan: Plan, channel: Channel) -> None:
    caps_w = np.full(plant.site.gpu_count, max(plan.cap_w, plant.site.gpu.cap_min_w))
    caps_w[8 * flexible_nodes :] = _floor_caps(plant, flexible_nodes)
    plant.command_caps_by(channel, np.arange(plant.site.gpu_count), caps_w)
    for number in range(plan.paused):
        plant.pause(f"train-{number}")


class Held(NamedTuple):
    """One event on one mix."""

    share: float  # of GPUs that are flexible
    holds: bool
    kept: float  # share of the flexible work that goes on


def hold(share: float, cut: float = 0.25, hours: float = 3.0) -> Held:
    """Whether a site with this flexible share holds a cut for some hours with every floor held."""
    flexible = round(share * NODES)
    plant = _plant(flexible)
    for _ in range(10):
        plant.step()
    target_w = (1.0 - cut) * plant.site_power_w
    plan = _plan(plant, flexible, target_w)
    if plan is None:
        return Held(share, holds=False, kept=0.0)
    begins_s = 10 + SETTLE_S
    plant.announce(GridEvent(begins_s, begins_s + round(3600 * hours), target_w))
    _act(plant, flexible, plan, Channel.IN_BAND)
    for _ in range(SETTLE_S):
        plant.step()
    plant.score.mark()
    for _ in range(round(60 * hours)):
        plant.step_minute()
    over_s = plant.score.over_budget_s.get("site", 0)
    below_s = plant.score.below_floor_s.get("serve", 0)
    kept = plant.score.work_kept_by_job
    trains = [kept[f"train-{n}"] for n in range(flexible)]
    return Held(share, over_s == 0 and below_s == 0, float(np.mean(trains)) if trains else 0.0)


def phoenix(_: Data) -> Finding:
    """The least flexible share with which it holds, and what goes on at 30 and 50 %."""
    shares = [n / NODES for n in (0, 3, 6, 8, 9, 10, 11, 13, 16, 19)]
    found = [hold(share) for share in shares]
    least = next((held.share for held in found if held.holds), 1.0)
    at_half = next(held.kept for held in found if held.share == 0.5)
    at_least = next(held.kept for held in found if held.share == least)
    x = 100.0 * np.array(shares)
    lines = {"flexible work that goes on": (x, np.array([held.kept for held in found]))}
    picture = Picture("A quarter less for three hours", "flexible share, %", "share", lines)
    held = 0.25 <= least <= 0.35 and all(h.holds for h in found if h.share >= least)
    got = f"from {least:.0%}; there {at_least:.0%} of it goes on, {at_half:.0%} at 50 %"
    figures = {"least_share": least, "kept_at_half": at_half, "kept_at_least": at_least}
    return Finding(got, held, figures, picture)


def phoenix_half(_: Data) -> Finding:
    """At half flexible, half of that goes on."""
    kept = hold(0.5).kept
    return Finding(f"{kept:.0%}", abs(kept - 0.5) <= 0.1, {"kept": kept})


def _reach_s(channel: Channel) -> int:
    """Seconds until the site is 30 % lower, half of it flexible."""
    flexible = NODES // 2
    plant = _plant(flexible)
    for _ in range(10):
        plant.step()
    target_w = 0.70 * plant.site_power_w
    plan = _plan(plant, flexible, target_w)
    if plan is None:
        return 999
    for number in range(plan.paused if channel is not Channel.IN_BAND else 0):
        plant.pause(f"train-{number}")  # a pause goes through the scheduler, not the BMC
    _act(plant, flexible, plan, channel)
    for second in range(1, 121):
        plant.step()
        if plant.site_power_w <= target_w:
            return second
    return 999


def london_in_band(_: Data) -> Finding:
    """In-band commands."""
    seconds = _reach_s(Channel.IN_BAND)
    return Finding(f"{seconds} s", seconds <= 30, {"s": seconds})


def london_out_of_band(_: Data) -> Finding:
    """Commands that take 40 s: must not make it."""
    seconds = _reach_s(Channel.SMBPBI)
    return Finding(f"{seconds} s", seconds > 30, {"s": seconds})


CHECKS = (
    Check(
        "07-phoenix",
        "256 GPUs, -25 % for 3 h, serving floor .95: least flexible share",
        "about 30 % (25-35)",
        phoenix,
        is_long=True,
        needs_data=False,
    ),
    Check(
        "07-phoenix-half",
        "the same at 50 % flexible: what goes on of it",
        "about half",
        phoenix_half,
        needs_data=False,
    ),
    Check(
        "07-london", "-30 % with in-band commands", "within 30 s", london_in_band, needs_data=False
    ),
    Check(
        "07-london-40s",
        "-30 % with commands that take 40 s",
        "not within 30 s",
        london_out_of_band,
        needs_data=False,
    ),
)
