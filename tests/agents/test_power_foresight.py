"""What the power agent does before it has to: ramps, announced limits, promises a leak breaks."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest

from interlock_agents.hearing import LISTEN_AGAIN_S
from interlock_agents.power import NOTICE_S, OBSERVE_EVERY_S
from interlock_agents.power.wishes import ramp_begins_at
from interlock_tools.errors import ComponentError
from tests.agents.scripted import (
    LOOKS_EVERY_S,
    NOW,
    PARTIAL,
    Rig,
    change,
    coming,
    grid,
    planned,
)

FAR_S = 1800.0  # half an hour of notice


def at(in_s: float) -> str:
    """A moment, so many seconds from the start."""
    return (NOW + timedelta(seconds=in_s)).isoformat()


def step(kind: str, from_s: float, to_s: float | None) -> dict[str, Any]:
    """One step of the grid's schedule."""
    ends = {} if to_s is None else {"ends_at": at(to_s)}
    return {"kind": kind, "starts_at": at(from_s), **ends}


def ramped(begins_s: float, starts_s: float) -> dict[str, Any]:
    """A schedule whose ramp, in two pieces, ends where the limit starts."""
    middle_s = (begins_s + starts_s) / 2
    return {
        "steps": [
            step("hold", 0, begins_s),
            step("ramp_down", begins_s, middle_s),
            step("ramp_down", middle_s, starts_s),
            step("hold", starts_s, None),
        ]
    }


# ── ramps and announced limits ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("steps", "begins_s"),
    [
        (ramped(1000, FAR_S)["steps"], 1000),
        ([step("hold", 0, FAR_S), step("hold", FAR_S, None)], None),
        ([step("ramp_down", 100, 200), step("hold", 200, FAR_S), step("hold", FAR_S, None)], None),
        ([], None),
    ],
    ids=["a ramp in pieces", "one step", "a ramp to another limit", "nothing known"],
)
def test_a_ramp_begins_where_its_first_piece_does(
    steps: list[dict[str, Any]], begins_s: float | None
) -> None:
    """Only what leads to this limit without a break is its ramp."""
    found = ramp_begins_at(steps, NOW + timedelta(seconds=FAR_S))

    assert found == (None if begins_s is None else NOW + timedelta(seconds=begins_s))


async def test_caps_are_asked_for_before_the_ramp_begins_so_that_it_ends_in_time() -> None:
    """With a notice before the ramp and not before the limit, people are asked early enough."""
    begins_s = FAR_S - 600
    rig = Rig(grid_limit=grid(next=coming(350e3, FAR_S)), grid_schedule=ramped(begins_s, FAR_S))
    await rig.seconds(begins_s - NOTICE_S)
    assert rig.servers.asked("set_caps") == []

    await rig.steps(2)

    assert rig.servers.asked("set_caps")
    assert len(rig.servers.asked("grid_schedule")) == 1


async def test_where_the_schedule_is_not_to_be_had_the_limit_alone_counts() -> None:
    """A missing ramp must not cost the caps."""
    rig = Rig(grid_limit=grid(next=coming(350e3, NOTICE_S + 60)))
    del rig.servers.answers["grid_schedule"]
    await rig.seconds(60 + 2 * LOOKS_EVERY_S)

    assert rig.servers.asked("set_caps")
    assert "trouble" in rig.kinds()


async def test_people_hear_at_once_what_an_announced_limit_asks_of_them() -> None:
    """Half an hour before it, and once: a pause takes longer than a cap."""
    rig = Rig(grid_limit=grid(next=coming(350e3, FAR_S)), plan_caps=planned(PARTIAL))
    await rig.seconds(60)

    (told,) = [note for note in rig.notes if note.kind == "proposal"]
    assert told.at == NOW
    assert "from 06:30:00: pause label-images" in told.text
    assert len(rig.plans("down")) == 1
    assert rig.servers.asked("set_caps") == []


@pytest.mark.parametrize(("power_w", "asked"), [(340_000.0, 1), (360_000.0, 2)])
async def test_people_are_asked_for_more_only_while_the_meter_is_above_the_limit(
    power_w: float, asked: int
) -> None:
    """What they paused may not be seen by a plan, which then names other work."""
    limit = coming(350e3, NOTICE_S + 10)
    rig = Rig(grid_limit=grid(next=limit), plan_caps=planned(PARTIAL))
    await rig.steps(1)
    rig.servers.answers |= {
        "plan_caps": planned({**PARTIAL, "pause": ["pretrain"]}),
        "get_change": change("succeeded", ended=True),
        "site_power": {"site_id": "lab", "power_w": power_w, "below": []},
    }
    await rig.seconds(120)

    told = [note.text for note in rig.notes if note.kind == "proposal"]
    assert len(told) == asked
    assert "pause label-images" in told[0]
    assert all("pause pretrain" in text for text in told[1:])


# ── promises that a leak breaks ───────────────────────────────────────────────────────────────────

GROUPS = {
    "groups": [
        {"name": "chat", "slo_floor": 0.95, "node_ids": ["node-1", "node-2", "node-9"]},
        {"name": "batch", "node_ids": ["node-3"]},
        {"name": "other", "slo_floor": 0.9, "node_ids": ["node-9"]},
    ]
}
NODES = {
    "nodes": [
        {"node_id": "node-1", "rack_id": "rack-1", "group": "chat"},
        {"node_id": "node-2", "rack_id": "rack-1", "group": "chat"},
        {"node_id": "node-3", "rack_id": "rack-1", "group": "batch"},
        {"node_id": "node-7", "rack_id": "rack-2"},
        {"node_id": "node-9", "rack_id": "rack-2", "group": "chat"},
    ]
}
LEAK = {"racks": [{"id": "rack-1", "kind": "rack", "leak": True}]}


async def test_whose_promise_a_leak_breaks_is_said_with_what_to_move_and_where() -> None:
    """Once, at once, and of nobody else's; no cap keeps it."""
    rig = Rig(grid_limit=grid(), list_leaks=LEAK, list_groups=GROUPS, list_nodes=NODES)
    await rig.seconds(60)

    (told,) = [note for note in rig.notes if note.kind == "declared"]
    assert told.at == NOW
    assert "chat cannot keep its floor of 0.95 while rack-1 has no coolant" in told.text
    assert "2 of its 3 nodes" in told.text
    assert "nodes without work: node-7" in told.text
    assert rig.servers.asked("set_caps")


async def test_where_groups_are_not_to_be_had_caps_go_first_and_people_hear_later() -> None:
    """The declaration is asked for again; it costs the rack no time."""
    rig = Rig(grid_limit=grid(), list_leaks=LEAK, list_nodes=NODES)
    del rig.servers.answers["list_groups"]
    with pytest.raises(ComponentError):
        await rig.agent.step()
    assert rig.servers.asked("set_caps")

    rig.servers.answers |= {
        "list_groups": GROUPS,
        "get_change": change("succeeded", ended=True),
    }
    await rig.steps(2)
    assert "declared" in rig.kinds()


# ── listening ─────────────────────────────────────────────────────────────────────────────────────


class Heard(Rig):
    """A site whose grid limit can be listened to, until that is cut off."""

    def __init__(self, **answers: Any) -> None:
        super().__init__(**answers)
        self.cut = anyio.Event()
        self.moved: Callable[[], None] = anyio.Event().set
        self.tries = 0

        async def listen(component: str, uri: str, moved: Any) -> None:
            assert (component, uri) == ("flex", "flex://limit")
            self.tries += 1
            self.moved = moved
            await self.cut.wait()
            raise ComponentError(component, "listen", "the stream ended")

        self.servers.listen = listen  # type: ignore[method-assign]


async def resting(rig: Rig, sleepers: int) -> None:
    """Wait until so many sleep, which is when nothing more happens at this moment."""
    with anyio.fail_after(5):
        while rig.clock.sleepers < sleepers:
            await anyio.lowlevel.checkpoint()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()


async def test_a_limit_that_moves_is_looked_at_at_once_and_a_lost_stream_is_no_blindness() -> None:
    """The clock stands still while it is told; after a loss looks go on, and it listens again."""
    rig = Heard(grid_limit=grid())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.agent.run)
        await resting(rig, 1)
        looked = len(rig.servers.asked("grid_limit"))

        rig.servers.answers["grid_limit"] = grid(400_000.0)
        rig.moved()
        await resting(rig, 1)
        assert len(rig.servers.asked("grid_limit")) == looked + 1
        assert len(rig.servers.asked("set_caps")) == 1
        assert rig.clock.now() == NOW

        rig.cut.set()
        await resting(rig, 2)  # the next look, and the next try to listen
        assert "trouble" in rig.kinds()
        rig.clock.advance(OBSERVE_EVERY_S)
        await resting(rig, 2)
        assert len(rig.servers.asked("grid_limit")) == looked + 2
        assert rig.tries == 1

        rig.clock.advance(LISTEN_AGAIN_S)
        await resting(rig, 2)
        assert rig.tries == 2
        tasks.cancel_scope.cancel()
