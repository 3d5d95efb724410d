"""The plant's speed and memory: simulated seconds in a second for 512, 10,240 and 100,000 GPUs."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from interlock_evals.bench.measured import Measured, median, seconds
from interlock_evals.reports import Figure, Promise
from interlock_plant import (
    Job,
    MeasuredLoad,
    Plant,
    SiteSpec,
    SyntheticLoad,
    hall_jobs,
    hall_site,
    lab_jobs,
    lab_site,
    shipped_site,
)
from interlock_plant.load import Load

START = datetime(2026, 1, 1, tzinfo=UTC)
STEPS, RUNS = 1_000, 5
LARGE_STEPS, LARGE_RUNS = 100, 3
LEAST_SPEED = 200.0  # times real time: a day of a hall in seven minutes
MOST_MEMORY_GB = 4.0
CAP_W = 600.0


def measure() -> Measured:
    """Steps with caps in force and the load moving, as in a grid event.

    The shipped sites have two sides, UPS, chassis spread, measured swings and somebody who looks
    after lost nodes; the plain hall has none of it.
    """
    lab = _speeds(_plain(lab_site(), lab_jobs), STEPS, RUNS)
    hall = _speeds(_plain(hall_site(10_240 // 8), hall_jobs), STEPS, RUNS)
    full_hall = _speeds(_full("hall"), STEPS, RUNS)
    full_site = _speeds(_full("site100mw"), LARGE_STEPS, LARGE_RUNS)
    figures = {
        "plant_speed_512": median(lab, "steps/s"),
        "plant_speed_10240": median(hall, "steps/s"),
        "plant_speed_hall": median(full_hall, "steps/s"),
        "plant_speed_site100mw": median(full_site, "steps/s"),
        "plant_memory_site100mw": Figure(_memory_gb("site100mw"), "GB"),
    }
    speed = figures["plant_speed_10240"].value
    full = figures["plant_speed_hall"].value
    memory = figures["plant_memory_site100mw"].value
    return Measured(
        figures,
        {
            "plant_speed_10240": Promise.at_least(speed, LEAST_SPEED, "steps/s"),
            "plant_speed_hall": Promise.at_least(full, LEAST_SPEED, "steps/s"),
            "plant_memory_site100mw": Promise.at_most(memory, MOST_MEMORY_GB, "GB"),
        },
    )


def _plain(site: SiteSpec, jobs_of: Callable[[SiteSpec], tuple[Job, ...]]) -> Plant:
    jobs = jobs_of(site)
    load: Load = SyntheticLoad(jobs, seed=0)
    return Plant(site, jobs, seed=0, start=START, load=load)


def _full(name: str) -> Plant:
    site = shipped_site(name)
    jobs = hall_jobs(site)
    load = MeasuredLoad(site, jobs, seed=0)
    return Plant(site, jobs, seed=0, start=START, load=load, recovers=True)


def _speeds(plant: Plant, steps: int, runs: int) -> list[float]:
    """Steps in a second, once for each run."""
    plant.command_caps(np.arange(plant.site.gpu_count), CAP_W)

    def run() -> None:
        for _ in range(steps):
            plant.step()

    return [steps / took for took in seconds(run, runs)]


def _memory_gb(name: str) -> float:
    """Most memory that a process of its own took for building a site, 60 s and a snapshot."""
    ran = subprocess.run(  # noqa: S603 - our own interpreter and module, a fixed name
        [sys.executable, "-m", "interlock_evals.bench.plant", name],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(ran.stdout)


def _print_memory(name: str) -> None:
    import resource  # not on every system, and only here

    plant = _full(name)
    for _ in range(60):
        plant.step()
    kept = plant.snapshot()
    plant.restore(kept)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(f"{peak_kb / 1e6:.3f}\n")


if __name__ == "__main__":
    _print_memory(sys.argv[1])
