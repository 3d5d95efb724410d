"""Requests to the BMS through the guard: who must agree, what is refused, and how it ends."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from interlock_plant.faults import Fault, FaultKind
from interlock_servers.exchange.requests import value_topic
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import ComponentError
from tests.servers.sites import AGENT, OPERATOR, Lab, open_lab

WET = "rack-03"  # one of its trays leaks
HOUR: dict[str, Any] = {"expires_in_s": 3600.0}


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The lab where the BMS lets itself be asked; a tray of rack-03 leaks."""
    async with open_lab(tmp_path, requests=True) as opened:
        opened.plant.inject(Fault(FaultKind.LEAK, "node-017"))
        await opened.second()
        await opened.second()
        yield opened


async def ask(lab: Lab, tool: str, **arguments: Any) -> dict[str, Any]:
    """Propose at the server that has the tool."""
    server = "isolation" if "isolation" in tool else "bms"
    return await lab.call(server, tool, reason="a test of requests", **arguments)


async def carried_out(lab: Lab, tool: str, within_s: int = 400, **arguments: Any) -> Change:
    """Propose, have everybody agree, and wait for the end."""
    change = await ask(lab, tool, **arguments)
    row = await lab.site.guard.get(change["change_id"])
    assert row.state is ChangeState.AWAITING_APPROVAL, row.sentence()
    for number in range(change["needs_people"]):
        voter = OPERATOR.model_copy(update={"id": f"person:operator-{number + 1}"})
        await lab.site.approvals.vote(
            voter, row.change_id, approve=True, shown_digest=row.binding_digest or ""
        )
    return await lab.end_of(change, within_s)


async def requests(lab: Lab) -> dict[str, Any]:
    """What stands, by the thing that it is asked of."""
    listed = await lab.call("bms", "list_requests")
    return {row["whose"]: row for row in listed["requests"]}


# Who decides, and whom it reaches


async def test_a_setpoint_waits_for_one_operator_and_names_every_rack_of_the_cdu(lab: Lab) -> None:
    """Several racks hang on one CDU."""
    change = await ask(lab, "request_supply_temperature", cdu_id="cdu-1", supply_c=27.0, **HOUR)
    row = await lab.site.guard.get(change["change_id"])
    assert (change["needs_people"], change["of_role"]) == (1, "operator")
    reach = row.blast_radius
    assert reach is not None
    assert reach.racks == {"rack-01", "rack-02", "rack-03", "rack-04"}
    assert (reach.gpus, len(reach.hosts)) == (256, 32)
    assert "pretrain-atlas" in reach.jobs


@pytest.mark.trap("EX-W14")
async def test_isolation_waits_for_two_people_and_says_what_stops(lab: Lab) -> None:
    """Without coolant a rack overheats, without power it is gone at once."""
    for medium in ("liquid", "electrical"):
        change = await ask(lab, f"request_{medium}_isolation", rack_id=WET)
        row = await lab.site.guard.get(change["change_id"])
        assert (change["needs_people"], change["of_role"]) == (2, "operator")
        assert row.blast_radius is not None
        assert row.blast_radius.racks == {WET}
        assert (row.blast_radius.gpus, len(row.blast_radius.hosts)) == (64, 8)
        assert row.blast_radius.jobs
        await lab.approve(change)
        row = await lab.site.guard.get(change["change_id"])
        assert row.state is ChangeState.AWAITING_APPROVAL  # one voice is not two
    assert lab.bms.requests.heard == 0


async def test_a_rack_that_works_is_not_isolated_under_work_with_a_promise(lab: Lab) -> None:
    """No vote buys that: drain it first. With a leak that is confirmed it is lost anyway."""
    groups = (await lab.call("maxlps", "list_groups"))["groups"]
    racks = {
        node["rack_id"]
        for group in groups
        if group.get("slo_floor")
        for node in (await lab.call("maxlps", "list_nodes", group=group["name"]))["nodes"]
    }
    rack = min(racks - {WET})
    change = await ask(lab, "request_liquid_isolation", rack_id=rack)
    assert change["state"] == "refused"
    assert "slo-floor-broken" in change["why"]


# What is refused


@pytest.mark.trap("EX-W15")
async def test_nothing_is_isolated_on_the_word_of_a_sensor_at_fault(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows a leak all the same."""
    fault = next(p for p in lab.bms._points if f"Fault/lab/{WET}" in p.tail)
    monkeypatch.setattr(fault, "read", lambda _: 1)
    await lab.second()
    for tool in ("request_liquid_isolation", "withdraw_electrical_isolation"):
        change = await ask(lab, tool, rack_id=WET)
        assert change["state"] == "refused"
        assert "rack.leak" in change["why"]
        assert "fault" in change["why"]


async def test_what_leaks_stays_isolated(lab: Lab) -> None:
    """Whoever asks for liquid to come back is told why not."""
    with pytest.raises(ComponentError, match="leaks"):
        await ask(lab, "withdraw_liquid_isolation", rack_id=WET)


@pytest.mark.parametrize(
    ("supply_c", "says"), [(35.0, "24 to 34"), (23.0, "24 to 34"), (31.0, "4 C at a time")]
)
async def test_our_own_limits_come_before_those_of_the_bms(
    lab: Lab, supply_c: float, says: str
) -> None:
    """It would clamp without a word."""
    with pytest.raises(ComponentError, match=says):
        await ask(lab, "request_supply_temperature", cdu_id="cdu-1", supply_c=supply_c, **HOUR)
    assert lab.bms.requests.heard == 0


async def test_steps_add_up_over_ten_minutes(lab: Lab) -> None:
    """Two small steps at once are one large one."""
    first = await carried_out(
        lab, "request_supply_temperature", cdu_id="cdu-1", supply_c=28.0, **HOUR
    )
    assert first.state is ChangeState.SUCCEEDED
    with pytest.raises(ComponentError, match="within 600 s"):
        await ask(lab, "request_supply_temperature", cdu_id="cdu-1", supply_c=31.0, **HOUR)


@pytest.mark.trap("EX-W16")
async def test_without_the_heartbeat_of_the_bms_nothing_is_asked(lab: Lab) -> None:
    """It would reach nobody, or somebody who comes back later."""
    lab.bms.fault("no_heartbeat")
    for _ in range(35):
        await lab.second()
    change = await ask(lab, "request_supply_temperature", cdu_id="cdu-1", supply_c=27.0, **HOUR)
    assert change["state"] == "refused"
    assert "not known to be alive" in change["why"]


async def test_what_the_metadata_does_not_list_cannot_be_announced(lab: Lab) -> None:
    """States of readiness come from the project's own words."""
    with pytest.raises(ComponentError, match="AI ready"):
        await ask(lab, "announce_readiness", point="Status", state="Perfect", **HOUR)


# How it goes on and ends


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("ignore_requests", "ignored"),
        ("clamp_requests", "clamped"),
        ("default_for_requests", "fallback"),
    ],
)
@pytest.mark.trap("EX-W03")
async def test_what_is_not_applied_has_failed_and_the_safe_value_is_asked_for(
    lab: Lab, fault: Any, outcome: str
) -> None:
    """Each with its class on record; that it was published is never a success."""
    lab.plant.set_cdu_target_c("cdu-1", 25.5)
    await lab.second()
    lab.bms.fault(fault)
    ended = await carried_out(
        lab, "request_supply_temperature", cdu_id="cdu-1", supply_c=26.0, **HOUR
    )
    assert ended.state is ChangeState.COMPENSATED
    assert ended.evidence["answer"]["acknowledged"] is False
    assert ended.evidence["verified"]["evidence"]["outcome"] == outcome
    assert ended.evidence["compensation"]["value"] == 25.0
    assert await requests(lab) == {}


async def test_a_setpoint_ends_by_itself_and_the_bms_is_asked_for_the_safe_one(lab: Lab) -> None:
    """The yes to the request covers its end; afterwards nothing is said any more."""
    ended = await carried_out(
        lab,
        "request_supply_temperature",
        cdu_id="cdu-1",
        supply_c=28.0,
        expires_in_s=60.0,
    )
    assert ended.state is ChangeState.SUCCEEDED
    assert (await requests(lab))["cdu-1"]["outcome"] == "applied"
    for _ in range(70):
        await lab.second()
    assert lab.plant.cdu_target_c[0] == 25.0
    assert await requests(lab) == {}


@pytest.mark.trap("EX-W05")
async def test_a_rack_is_isolated_until_two_people_take_it_back(lab: Lab) -> None:
    """No clock brings power back into a rack."""
    isolated = await carried_out(lab, "request_electrical_isolation", rack_id=WET)
    assert isolated.state is ChangeState.SUCCEEDED
    assert isolated.evidence["verified"]["evidence"]["status"] == 1
    assert lab.plant.rack_power_w[2] == 0.0
    lab.plant.repair(FaultKind.LEAK, "node-017")
    for _ in range(120):
        await lab.second()
    assert lab.plant.rack_power_w[2] == 0.0
    assert (await requests(lab))[WET]["outcome"] == "applied"
    back = await carried_out(lab, "withdraw_electrical_isolation", rack_id=WET)
    assert back.state is ChangeState.SUCCEEDED
    assert back.blast_radius is not None
    assert back.blast_radius.power_rise_w > 0
    assert lab.plant.rack_power_w[2] > 0.0
    assert await requests(lab) == {}


async def test_a_status_that_the_flow_denies_is_not_believed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The BMS says isolated, and coolant goes on flowing: nothing is claimed."""
    lab.bms.fault("ignore_requests")
    shows = next(p for p in lab.bms._points if f"LiquidIsolationStatus/lab/{WET}" in p.tail)
    change = await ask(lab, "request_liquid_isolation", rack_id=WET)
    row = await lab.site.guard.get(change["change_id"])
    for number in (1, 2):
        voter = OPERATOR.model_copy(update={"id": f"person:operator-{number}"})
        await lab.site.approvals.vote(
            voter, row.change_id, approve=True, shown_digest=row.binding_digest or ""
        )
    monkeypatch.setattr(shows, "read", lambda _: 1)
    ended = await lab.end_of(change, 400)
    assert ended.state is ChangeState.FAILED
    assert ended.evidence["verified"]["evidence"]["RackLiquidFlow"] > 1.0


@pytest.mark.trap("EX-W07")
async def test_when_we_are_gone_the_bms_goes_back_to_its_own_control(tmp_path: Path) -> None:
    """A request needs our presence; another process that opens the same store goes on with it."""
    async with open_lab(tmp_path, requests=True) as lab:
        await carried_out(lab, "request_supply_temperature", cdu_id="cdu-1", supply_c=28.0, **HOUR)
        assert lab.plant.cdu_target_c[0] == 28.0
    async with open_lab(tmp_path, requests=True) as again:
        assert again.clock.now() < again.site.guard.clock.now() + timedelta(seconds=1)
        for _ in range(3):
            await again.second()
        assert again.plant.cdu_target_c[0] == 28.0  # a plant of its own, asked anew
        assert (await requests(again))["cdu-1"]["value"] == 28.0


async def test_a_proposal_in_a_rehearsal_publishes_nothing(lab: Lab) -> None:
    """Facts and reach are worked out, and no word leaves us."""
    change = await lab.site.guard.propose(
        AGENT,
        "exchange.request_liquid_isolation",
        {"rack_id": WET},
        reason="a rehearsal",
        dry_run=True,
    )
    assert change.decision is not None
    assert change.blast_radius is not None
    assert lab.bms.requests.heard == 0
    topic = next(fact.value["topic"] for fact in change.facts if fact.kind == "request.liquid")
    tail = f"Rack/RackLiquidIsolationRequest/lab/{WET}/RackLiquidIsolationRequest"
    assert topic == value_topic(f"BMS/v1/PUB/Metadata/{tail}", "ACME")
