"""Jobs wait, start, run, are saved, move to spares and end, with the delays of real ones."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from interlock_plant import (
    Fault,
    FaultKind,
    Job,
    JobClass,
    JobRequest,
    Phase,
    Plant,
    SiteSpec,
    SteadyLoad,
    hall_site,
)
from interlock_tools.errors import InvalidRequestError

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
HALL = hall_site(10)
SITE = replace(HALL, nodes=tuple(replace(n, is_spare=i >= 8) for i, n in enumerate(HALL.nodes)))
TRAIN = Job("train", "aurora", JobClass.TRAIN, tuple(range(32)))
CHAT = Job("chat", "borealis", JobClass.SERVING, tuple(range(32, 48)), floor_work=0.95)


def hall(
    *requests: JobRequest,
    jobs: tuple[Job, ...] = (TRAIN, CHAT),
    site: SiteSpec = SITE,
    u: float = 1.0,
    recovers: bool = True,
) -> Plant:
    """Eight nodes and two spares; four train, two serve, two are free."""
    load = SteadyLoad(jobs, u)
    return Plant(site, jobs, seed=1, start=START, load=load, queue=requests, recovers=recovers)


def run(plant: Plant, seconds: int) -> None:
    """Advance."""
    for _ in range(seconds):
        plant.step()


def until(plant: Plant, job_id: str, phase: Phase, limit_s: int) -> int:
    """Seconds until a job is in a phase."""
    for second in range(limit_s):
        if plant.phases[job_id] is phase:
            return second
        plant.step()
    raise AssertionError(f"{job_id} is {plant.phases[job_id].name} after {limit_s} s")


def asks(job_id: str, nodes: int, at_s: int, lasts_s: float, priority: int = 0) -> JobRequest:
    """Batch work of this size."""
    return JobRequest(job_id, "cirrus", JobClass.BATCH, nodes, at_s, lasts_s, priority)


def test_a_job_of_the_queue_arrives_loads_runs_and_gives_its_gpus_back() -> None:
    """Power follows: idle, idle while it loads, full, idle again."""
    plant = hall(asks("embed", 2, 10, 100.0))
    free = np.arange(48, 64)
    assert until(plant, "embed", Phase.WAITING, 1) == 0
    run(plant, 10)
    assert [job.job_id for job in plant.jobs] == ["train", "chat"]
    run(plant, 2)
    assert plant.phases["embed"] is Phase.STARTING
    assert plant.jobs[2].gpu_indices == tuple(range(48, 64))
    assert plant.gpu_power_w[free].max() < 100.0
    loading_s = until(plant, "embed", Phase.RUNNING, 200)
    assert 36 <= loading_s <= 146
    run(plant, 10)
    assert plant.gpu_power_w[free].mean() > 600.0
    assert plant.job_work.tolist() == [1.0, 1.0, 1.0]
    running_s = until(plant, "embed", Phase.ENDED, 200) + 10
    assert running_s == pytest.approx(100, abs=2)
    run(plant, 3)
    assert plant.gpu_power_w[free].max() < 100.0
    assert len(plant.jobs) == 2


def test_a_higher_priority_goes_first_and_a_small_job_may_pass_a_large_one() -> None:
    """What does not fit waits; what fits behind it does not."""
    plant = hall(
        asks("large", 3, 0, 50.0, priority=1),
        asks("late-but-important", 1, 0, 50.0, priority=2),
        asks("small", 1, 0, 50.0),
    )
    run(plant, 1)
    phases = plant.phases
    assert phases["large"] is Phase.WAITING
    assert {phases["late-but-important"], phases["small"]} == {Phase.STARTING}
    run(plant, 20)
    assert plant.waited_s["large"] == pytest.approx(21)


def test_spares_are_not_given_to_the_queue() -> None:
    """A spare that is busy is no spare."""
    plant = hall(asks("greedy", 3, 0, 50.0))
    run(plant, 30)
    assert plant.phases["greedy"] is Phase.WAITING


def test_a_checkpoint_takes_its_published_time_and_a_restore_too() -> None:
    """77 to 146 s and 39 to 145 s: a notice of a minute is too short for it."""
    plant = hall()
    run(plant, 5)
    plant.save("train")
    saving_s = until(plant, "train", Phase.SAVED, 200)
    assert 77 <= saving_s <= 147
    gpus = list(TRAIN.gpu_indices)
    assert plant.gpu_power_w[gpus].max() < 100.0
    plant.resume("train")
    assert plant.phases["train"] is Phase.STARTING
    loading_s = until(plant, "train", Phase.RUNNING, 200)
    assert 39 <= loading_s <= 146
    assert plant.done_s("train") == pytest.approx(5, abs=1)  # nothing was lost


def test_a_pause_is_at_once_and_so_is_its_end() -> None:
    """Stopped where it stands: the state stays in the GPUs, which therefore stay taken."""
    plant = hall()
    plant.pause("train")
    run(plant, 3)
    assert plant.phases["train"] is Phase.PAUSED
    plant.resume("train")
    run(plant, 1)
    assert plant.job_work[0] == 1.0


def test_a_pause_while_it_loads_is_not_forgotten() -> None:
    """A cut that comes in the middle of a restore must not find the job running a minute later."""
    plant = hall()
    run(plant, 1)
    plant.save("train")
    until(plant, "train", Phase.SAVED, 200)
    plant.resume("train")
    run(plant, 10)
    plant.pause("train")
    run(plant, 200)
    assert plant.phases["train"] is Phase.SAVED
    plant.resume("train")
    until(plant, "train", Phase.RUNNING, 200)


def test_a_saved_job_of_the_queue_can_give_its_gpus_away_and_comes_back() -> None:
    """Preemption: the state is on disk, so the nodes may go to somebody else."""
    plant = hall(asks("first", 2, 0, 400.0), asks("second", 2, 50, 60.0, priority=5))
    until(plant, "first", Phase.RUNNING, 200)
    run(plant, 30)
    with pytest.raises(InvalidRequestError, match="first is not saved"):
        plant.give_away("first")
    plant.save("first")
    until(plant, "first", Phase.SAVED, 200)
    plant.give_away("first")
    run(plant, 1)
    assert plant.phases["second"] is Phase.STARTING
    until(plant, "second", Phase.ENDED, 400)
    until(plant, "first", Phase.RUNNING, 200)
    assert plant.done_s("first") == pytest.approx(30, abs=3)


def test_a_gang_that_loses_a_node_goes_on_with_a_spare_from_its_last_checkpoint() -> None:
    """One node of four costs the whole gang a restore and the work since it was saved."""
    plant = hall()
    run(plant, 100)
    plant.inject(Fault(FaultKind.NODE_DOWN, "node-002"))
    run(plant, 1)
    assert plant.phases["train"] is Phase.STARTING
    moved = set(SITE.node_of_gpu[list(plant.jobs[0].gpu_indices)].tolist())
    assert moved == {0, 2, 3, 8}  # node-009 is the first spare
    assert plant.done_s("train") == 0.0  # it had not been saved yet
    assert plant.interruptions == {"train": 1}
    until(plant, "train", Phase.RUNNING, 200)
    run(plant, 2)
    assert plant.job_work[0] == 1.0
    assert not plant.node_is_lit[1]


def test_a_gang_without_a_spare_waits_for_the_repair() -> None:
    """Holding healthy nodes that do nothing is what it costs to have too few spares."""
    plant = hall(site=HALL)
    run(plant, 5)
    plant.inject(Fault(FaultKind.LINK_DOWN, "node-001", lasts_s=120))
    run(plant, 60)
    assert plant.phases["train"] is Phase.INTERRUPTED
    assert plant.gpu_power_w[list(TRAIN.gpu_indices)].max() < 100.0
    assert until(plant, "train", Phase.STARTING, 70) > 55


def test_a_background_checkpoint_limits_what_an_interruption_costs() -> None:
    """Half an hour of work at most is done again."""
    plant = hall()
    for _ in range(40):
        plant.step_minute()
    plant.inject(Fault(FaultKind.NODE_DOWN, "node-002"))
    plant.step()
    assert plant.done_s("train") == pytest.approx(1800, abs=60)


def test_serving_takes_a_spare_up_and_goes_on() -> None:
    """Replicas are independent: two GPU nodes less one is half of the work until the spare."""
    plant = hall()
    run(plant, 5)
    plant.inject(Fault(FaultKind.GPU_LOST, "node-005/gpu-3"))
    run(plant, 2)
    assert plant.phases["chat"] is Phase.RUNNING
    assert plant.job_work[1] == 1.0
    assert 8 in SITE.node_of_gpu[list(plant.jobs[1].gpu_indices)]


def test_a_crash_restarts_the_gang_where_it_is() -> None:
    """Software needs no spare."""
    plant = hall()
    run(plant, 5)
    plant.inject(Fault(FaultKind.SOFTWARE, "node-001", xid=31))
    run(plant, 1)
    assert plant.phases["train"] is Phase.STARTING
    assert plant.jobs[0].gpu_indices == TRAIN.gpu_indices
    assert plant.faults == ()


def test_a_job_can_be_moved_by_hand() -> None:
    """Draining a hot rack; what is not free or not there is refused by name."""
    plant = hall(recovers=False, jobs=(TRAIN, CHAT))
    plant.move("train", "node-003", "node-010")
    assert 9 in SITE.node_of_gpu[list(plant.jobs[0].gpu_indices)]
    for args, message in (
        (("train", "node-003", "node-009"), "train is not on node-003"),
        (("train", "node-001", "node-005"), "node-005 is not free"),
        (("nobody", "node-001", "node-009"), "no job 'nobody'"),
        (("train", "node-001", "node-099"), "no node 'node-099'"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            plant.move(*args)


def test_without_somebody_who_looks_after_it_a_gang_stands_until_the_node_is_back() -> None:
    """The plant alone decides nothing; that is the lab's way."""
    plant = hall(recovers=False)
    plant.inject(Fault(FaultKind.NODE_DOWN, "node-002"))
    run(plant, 50)
    assert plant.phases["train"] is Phase.RUNNING
    assert plant.job_work[0] == 0.0
    plant.repair(FaultKind.NODE_DOWN, "node-002")
    run(plant, 2)
    assert plant.job_work[0] == 1.0


def test_serving_keeps_its_level_until_caps_leave_no_headroom() -> None:
    """At .92 of what is left the queue grows: T >= floor is not enough when it is busy."""
    busy = hall(u=0.90)
    chat = list(CHAT.gpu_indices)
    natural_w = busy.natural_w[chat].mean()
    busy.command_caps(chat, float(0.95 * natural_w))  # T about .965, above the floor of .95
    run(busy, 5)
    assert busy.score.below_floor_s == {}
    assert busy.score.slo_broken_s["chat"] >= 3
    assert not busy.job_slo_held[1]
    calm = hall(u=0.80)
    calm.command_caps(chat, float(0.955 * calm.natural_w[chat].mean()))
    run(calm, 5)
    assert calm.score.slo_broken_s == {}


def test_serving_above_what_caps_leave_builds_a_backlog_and_works_it_off() -> None:
    """Users wait even after the cap is gone."""
    plant = hall(u=0.95)
    chat = list(CHAT.gpu_indices)
    plant.command_caps(chat, 400.0)
    run(plant, 60)
    grown_s = float(plant.job_backlog_s[1])
    assert grown_s > 5.0
    plant.clear_caps(chat)
    run(plant, 30)
    assert 0.0 < plant.job_backlog_s[1] < grown_s


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: asks("train", 1, 0, 5.0), "the id of another job"),
        (lambda: asks("huge", 11, 0, 5.0), "huge asks for 11 nodes"),
        (lambda: asks("none", 0, 0, 5.0), "none: nodes must be at least 1"),
        (lambda: asks("early", 1, -1, 5.0), "early: arrives_s"),
        (lambda: asks("never", 1, 0, 0.0), "never: arrives_s"),
    ],
)
def test_a_request_that_can_never_run_is_refused(
    build: Callable[[], JobRequest], message: str
) -> None:
    """It would wait for ever and look like a full site."""
    with pytest.raises(InvalidRequestError, match=message):
        hall(build())


def test_what_cannot_be_saved_is_refused() -> None:
    """Serving keeps no state that is worth a checkpoint."""
    jobs = (TRAIN, replace(CHAT, is_checkpointable=False))
    plant = hall(jobs=jobs)
    with pytest.raises(InvalidRequestError, match="chat cannot be saved"):
        plant.save("chat")
    plant.save("train")
    with pytest.raises(InvalidRequestError, match="train is saving"):
        plant.save("train")
