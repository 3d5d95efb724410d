"""The life of one change over the test valve, from an agent's round to its verified end.

As a program it sets telemetry up from the variables of its environment, and prints the ledger.
"""

import json
import sys
from pathlib import Path
from typing import Any

import anyio
from mcp import Client

from interlock_agents.connection import Servers
from interlock_agents.spans import invoking_agent
from interlock_console.telemetry import telemetry
from interlock_servers.identity import WhoCalls
from interlock_servers.offer import Face
from interlock_servers.page import Page
from interlock_tools.change import Change
from interlock_tools.errors import NotFoundError
from tests.guardrails.conftest import AGENT, House, house_in, person
from tests.guardrails.valve import MoveValve

SECRET = "hunter2"  # noqa: S105 (what no span may hold)


class Flow(Page):
    """What flows."""

    flow_pct: int


def valve_face(house: House, who: WhoCalls = lambda: AGENT) -> Face:
    """The valve as an MCP server."""
    face = Face("valve", guard=house.guard, who=who, instructions="A valve.")

    @face.read
    async def read_flow(line: int = 1, password: str = "") -> Flow:
        """What flows through the valve now, in percent."""
        del password
        if line != 1:
            raise NotFoundError(f"there is no line {line}; its password is {SECRET}")
        return Flow(observed_at=house.clock.now(), origin="meter", flow_pct=house.valve.flow_pct)

    face.propose(MoveValve(house.valve))
    return face


async def one_change(house: House) -> Change:
    """Propose as the agent over MCP, vote as a person, and let the worker carry it out."""
    async with Client(valve_face(house).server(), mode="legacy") as client:  # over streams
        servers = Servers({"valve": client})
        with invoking_agent("valve"):
            await servers.call("valve", "read_flow", password=SECRET)
            proposed = await servers.call(
                "valve", "move_valve", position_pct=50, reason=f"less is enough, {SECRET}"
            )
    change = await house.guard.get(proposed["change_id"])
    async with house.working():
        await house.approve(change, person("person:operator-1", "operator"))
        return await house.end_of(change)


def records_of(house: House, change: Change) -> dict[str, dict[str, Any]]:
    """The ledger's records of a change, by kind; the last of each."""
    records = house.ledger.read(0, 10_000)
    return {
        record["kind"]: record
        for record in records
        if record["body"].get("change_id") == change.change_id
    }


async def _main(folder: Path) -> None:
    with house_in(folder) as house:
        change = await one_change(house)
        told = {"state": change.state.value, "records": records_of(house, change)}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    with telemetry():
        anyio.run(_main, Path(sys.argv[1]))
