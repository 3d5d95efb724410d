"""The plant's speed: simulated seconds in a second, for the lab and for a hall of 10,240 GPUs."""

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from interlock_evals.bench.measured import Measured, median, seconds
from interlock_evals.reports import Promise
from interlock_plant import (
    Job,
    Plant,
    SiteSpec,
    SyntheticLoad,
    hall_jobs,
    hall_site,
    lab_jobs,
    lab_site,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
STEPS, RUNS = 1_000, 5
LEAST_SPEED = 200.0  # times real time: a day of a hall in seven minutes
CAP_W = 600.0


def measure() -> Measured:
    """Steps with caps in force and the load moving, as in a grid event."""
    lab = _speeds(lab_site(), lab_jobs)
    hall = _speeds(hall_site(10_240 // 8), hall_jobs)
    figures = {
        "plant_speed_512": median(lab, "steps/s"),
        "plant_speed_10240": median(hall, "steps/s"),
    }
    speed = figures["plant_speed_10240"].value
    return Measured(figures, {"plant_speed_10240": Promise.at_least(speed, LEAST_SPEED, "steps/s")})


def _speeds(site: SiteSpec, jobs_of: Callable[[SiteSpec], tuple[Job, ...]]) -> list[float]:
    """Steps in a second, once for each run."""
    jobs = jobs_of(site)
    plant = Plant(site, jobs, seed=0, start=START, load=SyntheticLoad(jobs, seed=0))
    plant.command_caps(np.arange(site.gpu_count), CAP_W)

    def run() -> None:
        for _ in range(STEPS):
            plant.step()

    return [STEPS / took for took in seconds(run, RUNS)]
