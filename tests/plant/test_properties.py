"""Whatever is done to a plant, it stays one: power adds up, nothing is negative, all replays."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlock_plant import (
    Cdu,
    Channel,
    Fault,
    FaultKind,
    Feed,
    GridEvent,
    Job,
    JobClass,
    JobRequest,
    MeasuredLoad,
    Node,
    Pdu,
    Plant,
    Rack,
    SiteSpec,
    Storage,
    Ups,
)
from interlock_plant.faults import GPU_KINDS
from interlock_plant.jobs import hall_jobs
from interlock_tools.errors import InvalidRequestError

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
SITE = SiteSpec(
    name="pair",
    feeds=(Feed("feed-a", 90_000.0), Feed("feed-b", 90_000.0)),
    pdus=(
        Pdu("pdu-a", "feed-a", 60_000.0),
        Pdu("pdu-b", "feed-b", 60_000.0),
        Pdu("busway", "feed-a", 30_000.0, under="pdu-a"),
    ),
    cdus=(Cdu("cdu-1", 60_000.0, pdu_id="pdu-a"), Cdu("cdu-2", 30_000.0, pumps=1)),
    racks=(
        Rack("rack-1", "pdu-a", "cdu-1", 40_000.0, "pdu-b"),
        Rack("rack-2", "busway", "cdu-2", 30_000.0),
        Rack("rack-3", "pdu-b", "cdu-2", 2_000.0),
    ),
    nodes=(
        *(Node(f"node-{n}", "rack-1") for n in range(4)),
        *(Node(f"node-{n}", "rack-2", 4) for n in range(4, 7)),
        Node("node-7", "rack-2", 4, is_spare=True),
        Node("node-8", "rack-3", 1),
    ),
    ups=(Ups("ups-a", "feed-a", 40_000.0), Ups("ups-b", "feed-b", 25_000.0)),
    chassis_spread=0.02,
    storage=Storage("battery", 200_000.0, 9_000.0),
)
JOBS = (
    Job("train", "a", JobClass.TRAIN, tuple(range(32))),
    Job("chat", "b", JobClass.SERVING, tuple(range(32, 36)), floor_work=0.95),
)
QUEUE = (
    JobRequest("embed", "c", JobClass.BATCH, 1, 5, 60.0),
    JobRequest("probe", "c", JobClass.DEV, 1, 20, 30.0, priority=1),
)
TARGETS = {
    FaultKind.CAP_IGNORED: SITE.node_ids,
    FaultKind.METER_FROZEN: (*SITE.pdu_ids, "site"),
    FaultKind.LEAK: (*SITE.rack_ids, *SITE.node_ids),
    FaultKind.PUMP_LOSS: SITE.cdu_ids,
    FaultKind.CDU_LOSS: SITE.cdu_ids,
    FaultKind.COLD_PLATE: SITE.node_ids,
    FaultKind.FEED_LOSS: SITE.feed_ids,
    FaultKind.PDU_LOSS: SITE.pdu_ids,
    FaultKind.UPS_LOSS: SITE.ups_ids,
    FaultKind.NODE_DOWN: SITE.node_ids,
    FaultKind.LINK_DOWN: SITE.node_ids,
    FaultKind.SOFTWARE: SITE.node_ids,
    **dict.fromkeys(GPU_KINDS, tuple(SITE.gpu_id(gpu) for gpu in range(SITE.gpu_count))),
}
JOB_IDS = ("train", "chat", "embed", "probe")

faults = st.sampled_from(list(FaultKind)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.sampled_from(TARGETS[kind]))
)
acts = st.one_of(
    st.tuples(st.just("fault"), faults),
    st.tuples(st.just("repair"), st.none()),
    st.tuples(st.just("caps"), st.tuples(st.sampled_from(Channel), st.floats(200.0, 700.0))),
    st.tuples(st.just("brake"), st.booleans()),
    st.tuples(st.just("lock"), st.floats(0.3, 1.0)),
    st.tuples(st.just("storage"), st.floats(-9_000.0, 9_000.0)),
    st.tuples(
        st.just("job"),
        st.tuples(
            st.sampled_from(("pause", "resume", "save", "give_away")), st.sampled_from(JOB_IDS)
        ),
    ),
    st.tuples(st.just("close"), st.sampled_from((*SITE.pdu_ids, *SITE.feed_ids))),
    st.tuples(st.just("grid"), st.floats(10_000.0, 60_000.0)),
    st.tuples(st.just("wait"), st.integers(1, 40)),
    st.tuples(st.just("minute"), st.none()),
)


def built() -> Plant:
    """A small site with everything on it, a queue, and somebody who looks after it."""
    return Plant(
        SITE, JOBS, seed=1, start=START, load=MeasuredLoad(SITE, JOBS, seed=1), queue=QUEUE,
        recovers=True,
    )  # fmt: skip


def act(plant: Plant, what: str, how: object) -> None:
    """Do one thing; what the plant refuses is not done."""
    try:
        match what, how:
            case "fault", (FaultKind() as kind, str(target)):
                plant.inject(Fault(kind, target, lasts_s=25 if len(target) % 2 else None))
            case "repair", _:
                for fault in plant.faults[:1]:
                    plant.repair(fault.kind, fault.target_id)
            case "caps", (Channel() as channel, float(cap_w)):
                plant.command_caps_by(channel, np.arange(0, SITE.gpu_count, 2), cap_w)
            case "brake", bool(on):
                plant.brake(np.arange(16), on=on)
            case "lock", float(share):
                plant.lock_clocks(np.arange(20, 40), share)
            case "storage", float(power_w):
                plant.set_storage_w(power_w)
            case "job", (str(verb), str(job_id)):
                getattr(plant, verb)(job_id)
            case "close", str(breaker):
                plant.close_breaker(breaker)
            case "grid", float(target_w):
                at = plant.score.seconds
                plant.announce(GridEvent(at + 5, at + 30, target_w, ramp_w_per_s=5_000.0))
            case "wait", int(seconds):
                for _ in range(seconds):
                    plant.step()
            case _:
                plant.step_minute()
    except InvalidRequestError:
        pass


def readings(plant: Plant) -> bytes:
    """Everything that can be seen, bit by bit."""
    arrays = (
        plant.gpu_power_w, plant.gpu_peak_w, plant.gpu_sampled_w, plant.gpu_energy_j,
        plant.gpu_core_c, plant.gpu_hbm_c, plant.gpu_cap_effective_w, plant.gpu_work,
        plant.node_power_w, plant.pdu_power_w, plant.feed_power_w, plant.pdu_breaker_heat,
        plant.ups_stored_j, plant.rack_liquid_return_c, plant.cdu_flow_lpm, plant.cdu_pump_w,
        plant.job_work, plant.job_backlog_s,
    )  # fmt: skip
    told = (
        plant.storage_j,
        plant.phases,
        plant.interruptions,
        plant.site_limit_w,
        plant.faults,
        plant.jobs,
    )
    return b"".join(part.tobytes() for part in arrays) + repr(told).encode()


def sound(plant: Plant) -> None:
    """What must hold of any plant at any moment."""
    gpu_w = plant.gpu_power_w
    for values in (gpu_w, plant.gpu_core_c, plant.gpu_hbm_c, plant.node_power_w):
        assert np.isfinite(values).all()
        assert (values >= 0.0).all()
    assert (gpu_w <= SITE.gpu.cap_max_w + 1e-9).all()
    assert ((plant.gpu_work >= 0.0) & (plant.gpu_work <= 1.0)).all()
    dark = ~plant.gpu_is_lit
    assert plant.gpu_sampled_w[dark].max(initial=0.0) == 0.0
    racks_w = float(plant.rack_power_w.sum())
    pumps_w = float(plant.cdu_pump_w[0])
    top_w = float(plant.pdu_power_w[:2].sum())
    assert racks_w - 1e-6 <= top_w <= racks_w + 600.0 + 1e-6 or pumps_w == 0.0
    assert (plant.ups_stored_j >= 0.0).all()
    assert -1e-6 <= plant.storage_j <= 200_000.0 + 1e-6
    assert plant.site_power_w >= -1e-6
    held = [gpu for job in plant.jobs for gpu in job.gpu_indices]
    assert len(held) == len(set(held))
    assert 0.0 <= plant.score.work_kept <= 1.0 + 1e-12


@QUICK
@given(st.lists(acts, max_size=25))
def test_a_plant_stays_sound_whatever_is_done_to_it(steps: list[tuple[str, object]]) -> None:
    """Faults on faults, caps under caps, pauses in the middle of a restore."""
    plant = built()
    for what, how in steps:
        act(plant, what, how)
        plant.step()
        sound(plant)


@QUICK
@given(st.lists(acts, max_size=10), st.lists(acts, max_size=15))
def test_any_history_replays_from_any_snapshot_bit_by_bit(
    before: list[tuple[str, object]], after: list[tuple[str, object]]
) -> None:
    """In the same plant and in another of the same make: everything that changes is in it."""

    def play(plant: Plant) -> list[bytes]:
        seen = []
        for what, how in after:
            act(plant, what, how)
            plant.step()
            seen.append(readings(plant))
        return seen

    plant, other = built(), built()
    for what, how in before:
        act(plant, what, how)
    snapshot = plant.snapshot()
    first = play(plant)
    plant.restore(snapshot)
    assert play(plant) == first
    other.restore(snapshot)
    assert play(other) == first


@QUICK
@given(
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 8),
    st.floats(0.05, 0.95),
    st.booleans(),
)
def test_sites_of_any_shape_run(
    racks: int, nodes: int, gpus: int, a_share: float, is_dual: bool
) -> None:
    """Racks of one GPU, one rack, odd counts: sums and means over parents must all be there."""
    site = SiteSpec(
        name="any",
        feeds=(Feed("fa", 1e6), Feed("fb", 1e6)),
        pdus=(Pdu("pa", "fa", 1e6), Pdu("pb", "fb", 1e6)),
        cdus=(Cdu("c", 1e6),),
        racks=tuple(
            Rack(f"r{r}", "pa", "c", 1e5, "pb" if is_dual else None, a_share) for r in range(racks)
        ),
        nodes=tuple(Node(f"n{r}-{n}", f"r{r}", gpus) for r in range(racks) for n in range(nodes)),
    )
    jobs = hall_jobs(site)
    plant = Plant(site, jobs, seed=2, start=START, load=MeasuredLoad(site, jobs, seed=2))
    for _ in range(3):
        plant.step()
    host_w = racks * nodes * site.host.base_w
    assert plant.site_power_w == pytest.approx(host_w + 1.22 * plant.gpu_power_w.sum())
    share = plant.pdu_power_w[0] / plant.site_power_w
    assert share == pytest.approx(a_share if is_dual else 1.0)
    assert plant.score.over_budget_s == {}


def test_a_snapshot_of_a_site_with_another_rating_is_refused() -> None:
    """A site that differs in one number is another site."""
    other = Plant(
        replace(SITE, chassis_spread=0.01), JOBS, seed=1, start=START,
        load=MeasuredLoad(SITE, JOBS, seed=1), queue=QUEUE,
    )  # fmt: skip
    with pytest.raises(InvalidRequestError, match="another plant"):
        other.restore(built().snapshot())
