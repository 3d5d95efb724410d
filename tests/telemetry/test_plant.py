"""A site at work: its calls of components, its allocator, its buses and its ledger."""

from pathlib import Path

from interlock_agents.spans import invoking_agent
from tests.servers.sites import open_lab
from tests.telemetry.conftest import Told

METHOD = "nvidia.dcpower.v1.ResourceGroupManagementService/UpdateGPUPolicies"


async def test_a_change_of_caps_shows_every_call_of_the_component(
    tmp_path: Path, told: Told
) -> None:
    """Below the act stands the one write, over gRPC; and the site tells what it holds."""
    async with open_lab(tmp_path) as lab:
        with invoking_agent("power"):
            plan = await lab.call("maxlps", "plan_caps", site_limit_w=400_000.0)
            change = await lab.propose("set_caps", gpu_cap_w_by_node=plan["gpu_cap_w_by_node"])
        told.forget()
        await lab.approve(change)
        ended = await lab.end_of(change)
        points = told.points()
        connected = told.count("interlock.bus.connected")
        held = told.count("interlock.ledger.size")
        records = lab.site.ledger.size_and_root()[0]  # looked at later: it only grows
    after = told.points()

    assert ended.state == "succeeded", ended.sentence()
    act, write = told.span("interlock.act"), told.span(METHOD)
    assert act.context is not None
    assert write.parent is not None
    assert write.parent.span_id == act.context.span_id
    attributes = dict(write.attributes or {})
    assert attributes["rpc.system.name"] == "grpc"
    assert attributes["rpc.method"] == METHOD
    assert attributes["rpc.response.status_code"] == "OK"
    assert attributes["server.address"] == "127.0.0.1"
    assert told.count("rpc.client.call.duration", rpc__method=METHOD) == 1
    assert told.count("interlock.allocator.solve.duration", interlock__feasible=True) >= 1
    assert connected == 2
    assert 0 < held <= records
    outcomes = {
        (point.attributes["interlock.bus"], point.attributes["interlock.outcome"])
        for point in points["interlock.bus.messages"]
    }
    assert {("exchange", "accepted"), ("flex", "accepted")} <= outcomes
    assert {"interlock.bus.points", "interlock.changes.open", "interlock.ledger.uncovered"} <= set(
        points
    )
    assert "interlock.ledger.size" not in after  # a site that is closed is not asked
