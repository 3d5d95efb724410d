"""The plant against public numbers. A failure is a bug or a wrong parameter: say so, do not tune.

Numbers in the names are those of the falsification list in the documentation of the power model.
Public data are found through `INTERLOCK_DATA`; without them the tests that need them skip.
"""

import csv
import os
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from interlock_plant import Job, JobClass, Plant, SteadyLoad, SyntheticLoad, hall_site
from interlock_plant.arrays import Floats
from interlock_plant.parameters import (
    B300,
    B300_BASE_C,
    B300_GEMM,
    B300_HBM_R_K_PER_W,
    CAP_HOLDS_AT,
    H200_HOST,
    WORK,
)
from interlock_plant.power import relative_work, relax
from interlock_plant.thermal import core_rise

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of one public data file, or a skip that says what is missing."""
    folder = os.environ.get("INTERLOCK_DATA")
    if not folder:
        pytest.skip("INTERLOCK_DATA does not name the folder of public data")
    path = Path(folder) / "power" / name
    if not path.exists():
        pytest.skip(f"INTERLOCK_DATA has no power/{name}")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def eight_nodes(kind: JobClass, seconds: int) -> float:
    """Mean node power in W of eight nodes with one job of `kind`, over `seconds`."""
    site = hall_site(8)
    jobs = (Job("all", "aurora", kind, tuple(range(64))),)
    plant = Plant(site, jobs, seed=1, start=START, load=SyntheticLoad(jobs, seed=1))
    total_w = 0.0
    for _ in range(seconds):
        plant.step()
        total_w += float(plant.node_power_w.mean())
    return total_w / seconds


def serving_errors(default: bool) -> list[float]:
    """Per H100 configuration: RMSE in TDP of power against load, fitted or by the default row."""
    runs = defaultdict(list)
    for row in rows_of("mlenergy_v3_llm_runs.csv"):
        if row["gpu_model"] == "H100":
            key = (row["task"], row["model_id"], row["num_gpus"], row["weight_precision"])
            runs[key].append(
                (float(row["output_throughput_tokens_per_sec"]), float(row["w_per_gpu"]) / 700.0)
            )
    errors = []
    for points in runs.values():
        if len(points) < 4:  # a line through fewer says nothing
            continue
        rate, share = np.array(points).T
        u = rate / rate.max()
        serving = WORK[JobClass.SERVING]
        slope, base = (
            (serving.draw_slope, serving.draw_base) if default else np.polyfit(u, share, 1)
        )
        errors.append(float(np.sqrt(np.mean((base + slope * u - share) ** 2))))
    assert len(errors) >= 28
    return errors


def test_01_serving_power_is_a_straight_line_in_load() -> None:
    """The form `a + b u`, fitted to each H100 configuration: median RMSE at most .025 of TDP."""
    assert np.median(serving_errors(default=False)) <= 0.025


@pytest.mark.xfail(
    strict=True,
    reason="median RMSE .094 of TDP: configurations differ far more in level (idle share .52 to"
    " .69) than the line bends; one default row is a prior, and the plant has one row per class",
)
def test_01_the_default_row_fits_every_configuration() -> None:
    """The default row, not fitted again: what the plant really draws for serving."""
    assert np.median(serving_errors(default=True)) <= 0.025


def test_02_eight_gpus_at_their_rating_draw_8400_to_8900_w() -> None:
    """The node model, with 700 W at every GPU."""
    host = hall_site(1).host
    assert 8400.0 <= host.base_w + host.slope * 8 * 700.0 <= 8900.0


@pytest.mark.xfail(
    strict=True,
    reason="8.34 kW: the host fit assumes 700 W at every GPU, while the cap loop holds a GPU at .99"
    " of its limit, 693 W (8.36 kW a node), and silicon that draws less never gets there",
)
def test_02_a_full_burn_draws_8400_to_8900_w() -> None:
    """Burn-in on every GPU, through the plant."""
    assert 8400.0 <= eight_nodes(JobClass.BURN, 60) <= 8900.0


def test_02_training_averages_7750_w_a_node() -> None:
    """Compute-heavy average of an air-cooled eight-GPU H100 node, within 3 %."""
    assert eight_nodes(JobClass.TRAIN, 600) == pytest.approx(7750.0, rel=0.03)


def test_02_every_audited_h200_node_is_within_7_percent() -> None:
    """Node power against cap in audited inference runs; mean error at most 2.5 %."""
    errors = [
        (H200_HOST.base_w + H200_HOST.slope * 8 * float(row["cap"])) / float(row["W_sys"]) - 1.0
        for row in rows_of("mlperf_maxq_vs_maxp.csv")
        if row["sys"].startswith("H200") and float(row["cap"]) < 700.0
    ]
    assert len(errors) >= 20
    assert np.abs(errors).max() <= 0.07
    assert np.abs(errors).mean() <= 0.025


def test_03_the_core_follows_a_measured_soak_within_1_k() -> None:
    """A B300 from idle to 1,050 W: both time constants and both resistances, at base 28 C."""
    rows = rows_of("b300_soak_onset.csv")
    time_s, core_c, power_w = np.array(
        [[float(row[name]) for name in ("t_s", "core_c", "power_w")] for row in rows]
    ).T
    fast_k, slow_k = B300.r_fast_k_per_w * power_w[:1], B300.r_slow_k_per_w * power_w[:1]
    modelled = [B300_BASE_C + float((fast_k + slow_k)[0])]
    for place in range(1, len(rows)):
        # A reading is the mean of the 3 s before it.
        fast_k, slow_k = core_rise(
            fast_k, slow_k, power_w[place : place + 1], B300, time_s[place] - time_s[place - 1]
        )
        modelled.append(B300_BASE_C + float((fast_k + slow_k)[0]))
    assert np.sqrt(np.mean((np.array(modelled) - core_c) ** 2)) <= 1.0


@pytest.mark.xfail(
    strict=True,
    reason="38.6 C against 44: the published .0139 K/W gives 44 C only above about 33 C, the idle"
    " core, and not above the base of 28 C of the soak's fit; from there it would be .0209",
)
def test_03_memory_bound_work_warms_the_core_less() -> None:
    """The same device streaming memory at 765 W: 44 C, within 2 K."""
    row = next(
        row for row in rows_of("b300_workload_power.csv") if row["workload"].startswith("HBM")
    )
    core_c = B300_BASE_C + B300_HBM_R_K_PER_W * float(row["mean_w"])
    assert core_c == pytest.approx(float(row["core_c"]), abs=2.0)


def gemm_sweep() -> tuple[Floats, Floats, Floats]:
    """Cap, mean power and relative throughput of the measured sweep."""
    cap_w, mean_w, work = np.array(
        [
            [float(row[name]) for name in ("cap_w", "mean_w", "rel_throughput")]
            for row in rows_of("b300_gemm_cap_sweep.csv")
        ]
    ).T
    return cap_w, mean_w, work


@pytest.mark.parametrize(
    "place",
    [
        0,  # .42 of natural draw: below the curve, so this one tests the straight line
        1,
        2,
        pytest.param(
            3,
            marks=pytest.mark.xfail(
                strict=True,
                reason=".916 against .950 at 900 W: the fitted curve (p0 .401, gamma .301) is"
                " rounder near full power than the device; the sweep's own five points, RMSE .015",
            ),
        ),
        4,
    ],
)
def test_04_work_under_a_cap_matches_a_measured_sweep(place: int) -> None:
    """B300 GEMM at each of five caps: work within .02."""
    cap_w, mean_w, measured = gemm_sweep()
    natural_w = np.full(len(cap_w), mean_w[-1])
    p0, gamma = (np.full(len(cap_w), part) for part in B300_GEMM)
    modelled = relative_work(cap_w, natural_w, p0, gamma)
    assert modelled[place] == pytest.approx(measured[place], abs=0.02)


def test_04_power_under_a_cap_matches_a_measured_sweep() -> None:
    """Mean power is 98 to 100 % of every cap that binds, and within 1 % of what was measured."""
    cap_w, mean_w, _ = gemm_sweep()
    natural_w = np.full(len(cap_w), mean_w[-1])
    settled_w, _ = relax(natural_w, np.minimum(natural_w, CAP_HOLDS_AT * cap_w), 10.0)
    held = settled_w[:-1] / cap_w[:-1]  # the last cap does not bind
    assert ((held >= 0.98) & (held <= 1.0)).all()
    assert settled_w == pytest.approx(mean_w, rel=0.01)


@pytest.mark.parametrize(("ratio", "low_s", "high_s"), [(1.10, 900, 1140), (1.40, 1, 120)])
def test_10_breakers_trip_on_time(ratio: float, low_s: int, high_s: int) -> None:
    """17 minutes, within two, at 1.10 of the rating; inside two minutes at 1.40 (weak source)."""
    site = hall_site(8)
    jobs = (Job("all", "aurora", JobClass.BATCH, tuple(range(64))),)
    steady_w = float(Plant(site, jobs, seed=1, start=START, load=SteadyLoad(jobs)).pdu_power_w[0])
    weak = replace(site, pdus=(replace(site.pdus[0], rating_w=steady_w / ratio),))
    plant = Plant(weak, jobs, seed=1, start=START, load=SteadyLoad(jobs))
    seconds = 0
    while plant.pdu_breaker_is_closed[0]:
        plant.step()
        seconds += 1
    assert low_s <= seconds <= high_s
