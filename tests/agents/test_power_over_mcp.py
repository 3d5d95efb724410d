"""The power agent on real servers: it hears the grid, and finds its own change after a restart."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from interlock_agents.connection import Servers
from interlock_agents.power import Note, PowerAgent
from interlock_agents.power.agent import GRID
from interlock_servers.flex.resources import LOOK_EVERY_S
from tests.servers.sites import PATIENCE_S, Lab, open_lab

LIMIT_W = 400_000.0


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The lab, nothing limited."""
    async with open_lab(tmp_path) as opened:
        yield opened


async def test_a_limit_is_heard_within_a_tenth_of_a_second(lab: Lab) -> None:
    """Half of what an agent that looks would need, and of a second there is not more to give."""
    heard = anyio.Event()
    count = 0

    def moved() -> None:
        nonlocal count
        count += 1
        heard.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Servers(lab.clients).listen, "flex", GRID, moved)
        with anyio.fail_after(PATIENCE_S):
            await heard.wait()
        heard = anyio.Event()
        await lab.limit(LIMIT_W)
        lab.clock.advance(LOOK_EVERY_S)
        with anyio.fail_after(PATIENCE_S):
            await heard.wait()
        tasks.cancel_scope.cancel()

    assert LOOK_EVERY_S <= 0.1
    assert count == 2  # once it is listened to, and once it moved


async def test_after_a_restart_the_store_knows_its_open_change(lab: Lab) -> None:
    """The list of changes is the site's; the reason's mark says which is its own, and for what."""
    await lab.limit(LIMIT_W)
    first = PowerAgent(Servers(lab.clients), lab.clock)
    await first.step()
    (asked,) = (await lab.call("maxlps", "list_changes"))["changes"]

    notes: list[Note] = []
    again = PowerAgent(Servers(lab.clients), lab.clock, notes.append)
    for _ in range(3):
        await again.step()
        await lab.second()

    assert [c["change_id"] for c in (await lab.call("maxlps", "list_changes"))["changes"]] == [
        asked["change_id"]
    ]
    assert notes[0].kind == "taken over"
    await lab.approve(asked, people=3)  # the target names no feeds and has no end
    await lab.end_of(asked)
    await again.step()
    assert again.held_limit_w == LIMIT_W
    made = (await lab.call("maxlps", "list_changes"))["changes"]
    assert [c["operation"] for c in made].count("maxlps.set_caps") == 1
