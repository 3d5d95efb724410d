"""What every operation of the house keeps to, for those of NVSentinel on a real API server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from interlock_guardrails.action import parse
from interlock_guardrails.plans import PLANS
from interlock_servers.transports.kube.connection import Json
from interlock_tools.change import ChangeState
from interlock_tools.decision import Answer
from interlock_tools.errors import InvalidRequestError, UnavailableError
from interlock_tools.operation import Effect
from tests.servers.nvsentinel.rig import Rig, rig_on
from tests.servers.nvsentinel.scenes import EXAMPLES, drained, ended, play, set_up
from tests.servers.nvsentinel.world import PATHS, World
from tests.test_house_operations import Without

LONG = timedelta(hours=3)


class Line:
    """What is between us and the API server: it counts, and may lose a write or its answer."""

    def __init__(self, rig: Rig) -> None:
        connection = rig.part.client.kube.connection
        self._write = connection.write
        self.loses_writes = False
        self.loses_answers = 0
        self.writes: list[str] = []
        connection.write = self.write  # type: ignore[method-assign]

    async def write(
        self, method: str, path: str, query: Any = None, body: Any = None, **more: Any
    ) -> Json:
        """As the connection does; rehearsals and questions do not count."""
        asks = "dryRun" in str(query) or "dryRun" in str(body) or "subjectaccess" in path
        if asks:
            return await self._write(method, path, query or {}, body, **more)
        self.writes.append(f"{method} {path}")
        if self.loses_writes:
            return {}
        answer = await self._write(method, path, query or {}, body, **more)
        if self.loses_answers:
            self.loses_answers -= 1
            raise UnavailableError("no answer; whether it was done is unknown")
        return answer


@asynccontextmanager
async def scene(world: World, folder: Path, tool: str) -> AsyncIterator[tuple[Rig, Line]]:
    """A site over the scene of one operation."""
    await set_up(world, tool)
    async with rig_on(world, folder) as rig:
        yield rig, Line(rig)


async def test_every_operation_is_held_to_this_page(world: World, tmp_path: Path) -> None:
    """An operation without an example is one that nobody has held to anything."""
    async with scene(world, tmp_path, "opt_out") as (rig, _):
        plans = {plan.name for plan in PLANS}
        own = {name for name in rig.site.guard.operations if name not in plans}
        assert own == {f"nvsentinel.{tool}" for tool in EXAMPLES}
        for name in own:
            operation = rig.site.guard.operation(name)
            assert operation.effect is not Effect.READ
            assert operation.__doc__
            assert operation.rehearses, name  # a real dry run, for each


@pytest.mark.parametrize("tool", EXAMPLES)
async def test_each_fact_taken_away_is_a_refusal_that_names_it(
    world: World, tmp_path: Path, tool: str
) -> None:
    """Unknown is never read as harmless; and with every fact it goes its way."""
    async with scene(world, tmp_path, tool) as (rig, line):
        change = await rig.propose(tool, dry_run=True, **EXAMPLES[tool])
        assert change.decision is not None
        assert change.decision.answer is Answer.REQUIRE_APPROVAL, change.decision.sentence()
        assert change.rehearsal is not None
        assert change.rehearsal.would_succeed
        guard = rig.site.guard
        operation = guard.operation(f"nvsentinel.{tool}")
        whole = guard.facts
        for need in operation.facts(parse(operation, EXAMPLES[tool])):
            guard.facts = Without(whole, need.kind)
            refused = await rig.propose(tool, **EXAMPLES[tool])
            assert refused.state is ChangeState.REFUSED, need.kind
            assert f"{need} is unknown: it was taken away" in refused.history[-1].why
        assert line.writes == []


@pytest.mark.parametrize("tool", EXAMPLES)
async def test_an_effect_that_silently_does_not_happen_is_failed(
    world: World, tmp_path: Path, tool: str
) -> None:
    """The API server says yes and nothing follows: failed and seen to, never succeeded."""
    async with scene(world, tmp_path, tool) as (rig, line):
        line.loses_writes = True
        change = await rig.begun(tool, **EXAMPLES[tool])
        rig.clock.ahead += LONG
        row = await rig.ended(change)
        states = [step.state for step in row.history]
        assert ChangeState.FAILED in states, row.sentence()
        assert ChangeState.SUCCEEDED not in states


@pytest.mark.parametrize("tool", EXAMPLES)
async def test_an_act_whose_answer_is_lost_is_found_again_and_not_repeated(
    world: World, tmp_path: Path, tool: str
) -> None:
    """A request by its name, a patch by what it left."""
    async with scene(world, tmp_path, tool) as (rig, line):
        line.loses_answers = 1
        change = await rig.begun(tool, **EXAMPLES[tool])
        await rig.until(change, lambda row: row.ended or row.state is ChangeState.VERIFYING)
        await play(world, tool, f"interlock-{change.change_id}")
        row = await rig.ended(change)
        assert ChangeState.UNKNOWN in [step.state for step in row.history]
        if tool == "reset_breaker":  # the first of two steps: a part, and told as such
            assert row.state is ChangeState.FAILED
            assert "in part" in row.sentence() or "in part" in str(row.history)
        else:
            assert row.state is ChangeState.SUCCEEDED, row.sentence()
        assert len(line.writes) == 1


@pytest.mark.trap("NS-06")
@pytest.mark.trap("NS-20")
@pytest.mark.trap("NS-28")
async def test_without_maintenance_a_reboot_is_direct_and_needs_an_empty_node(
    world: World, tmp_path: Path
) -> None:
    """Older releases have no MaintenanceRequest; the janitor asks nobody, and ignores `force`."""
    await world.installation()
    await world.node("n-1")
    definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    own = await world.get(f"{definition}/maintenancerequests.nvsentinel.dgxc.nvidia.com")
    await world.delete(f"{definition}/maintenancerequests.nvsentinel.dgxc.nvidia.com")
    try:
        await world.until_served("MaintenanceRequest", served=False)
        async with rig_on(world, tmp_path) as rig:
            with pytest.raises(InvalidRequestError, match=r"maintenancerequests.* is not served"):
                await rig.propose("request_maintenance", node_id="n-1")
            with pytest.raises(InvalidRequestError, match="not cordoned"):
                await rig.propose("reboot_node", node_id="n-1")
            await drained(world)
            await world.pod("n-1", "train-0")
            with pytest.raises(InvalidRequestError, match="pods of users: team-a/train-0"):
                await rig.propose("reboot_node", node_id="n-1")
            await world.end_pod("train-0")
            change = await rig.begun("reboot_node", node_id="n-1")
            name = f"interlock-{change.change_id}"
            made = await world.get(f"{PATHS['RebootNode']}/{name}")
            assert made["spec"] == {"nodeName": "n-1", "force": False}
            await world.status("n-1", boot_id="boot-2")
            assert await rig.still_verifying(change)  # the janitor has not ended it
            await world.says("RebootNode", name, ended("NodeReady"))
            assert (await rig.ended(change)).state is ChangeState.SUCCEEDED
    finally:
        about = {"name": own["metadata"]["name"]}
        await world.post(definition, {**own, "metadata": about, "status": None})
        await world.until_served("MaintenanceRequest")


async def test_a_lost_answer_of_a_request_that_never_arrived_is_no(
    world: World, tmp_path: Path
) -> None:
    """It is looked for by name, and it is not there."""
    async with scene(world, tmp_path, "request_maintenance") as (rig, line):
        line.loses_writes = True
        mine = rig.site.guard.operation("nvsentinel.request_maintenance").of("chg-00000000000a")
        seen = await mine.read_back(parse(mine, EXAMPLES["request_maintenance"]))
        assert seen.happened == "no"


async def test_a_request_of_the_same_name_that_is_not_ours_is_a_conflict(
    world: World, tmp_path: Path
) -> None:
    """A name can be taken by anybody; the note of the change cannot be guessed by accident."""
    async with scene(world, tmp_path, "request_maintenance") as (rig, line):
        change = await rig.propose("request_maintenance", node_id="n-1")
        spec = {"healthEvent": {"nodeName": "n-2", "version": 1}}
        await world.request("MaintenanceRequest", f"interlock-{change.change_id}", spec)
        await rig.approve(change)
        row = await rig.ended(change)
        assert ChangeState.SUCCEEDED not in [step.state for step in row.history]
        assert len(line.writes) <= 1


async def test_another_who_changes_the_node_in_that_moment_is_not_overwritten(
    world: World, tmp_path: Path
) -> None:
    """The patch carries what was seen: a conflict, and nothing is done."""
    async with scene(world, tmp_path, "cancel_quarantine") as (rig, _):
        client = rig.part.client
        look = client.node

        async def meanwhile(name: str) -> Any:
            seen = await look(name)
            await world.merge("/api/v1/nodes/n-1", {"metadata": {"labels": {"touched": "yes"}}})
            return seen

        change = await rig.propose("cancel_quarantine", **EXAMPLES["cancel_quarantine"])
        operation = rig.site.guard.operation("nvsentinel.cancel_quarantine").of(change.change_id)
        client.node = meanwhile  # type: ignore[method-assign]
        with pytest.raises(Exception, match="nothing was done"):
            await operation.execute(
                parse(operation, EXAMPLES["cancel_quarantine"]), change.change_id
            )
        assert (await world.get("/api/v1/nodes/n-1"))["spec"]["unschedulable"] is True


async def test_an_agent_that_may_not_write_is_told_by_the_dry_run(
    world: World, tmp_path: Path
) -> None:
    """RBAC refuses the rehearsal, and so the change: no approval is asked for in vain."""
    await set_up(world, "request_maintenance")
    async with rig_on(world, tmp_path, persona="reader") as rig:
        change = await rig.propose("request_maintenance", node_id="n-1")
        assert change.state is ChangeState.REFUSED
        assert "FORBIDDEN" in change.sentence() or "FORBIDDEN" in change.history[-1].why


async def test_a_node_that_does_not_exist_is_refused_by_every_operation(
    world: World, tmp_path: Path
) -> None:
    """Nothing is known of it, and so nothing is done to it."""
    await set_up(world, "opt_out")
    async with rig_on(world, tmp_path) as rig:
        for tool, arguments in EXAMPLES.items():
            if "node_id" in arguments:
                change = await rig.propose(tool, **{**arguments, "node_id": "no-such-node"})
                assert change.state is ChangeState.REFUSED, tool
