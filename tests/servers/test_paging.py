"""Every tool that lists does it alike: pages, fields, and a cursor that is of this list."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock_servers.page import Row
from interlock_servers.paging import MAX_LIMIT, Place, only, paged
from interlock_tools.errors import ComponentError, ConflictError, InvalidRequestError
from tests.servers.sites import Lab, open_lab

PLACE = Place.of("list_things", kind="round")
NAMES = [f"thing {number}" for number in range(7)]
# component, tool: the rows, their identity, one other field, arguments
LISTS: dict[tuple[str, str], tuple[str, set[str], str, dict[str, Any]]] = {
    ("exchange", "list_points"): ("points", {"key", "state"}, "unit", {}),
    ("exchange", "site_power"): ("below", {"id"}, "power_w", {}),
    ("exchange", "get_rack"): ("points", {"key", "state"}, "value", {"rack_id": "rack-01"}),
    ("exchange", "trace_path"): ("reaches", {"id"}, "steps", {"id": "lab"}),
    ("exchange", "point_history"): (
        "readings",
        {"at"},
        "quality",
        {"key": "Rack/RackPower/lab/rack-01/RackPower"},
    ),
    ("exchange", "list_events"): ("events", {"number", "kind", "subject"}, "after", {}),
    ("exchange", "list_leaks"): ("racks", {"id", "kind"}, "leak", {"everything": True}),
    ("flex", "list_load_targets"): (
        "targets",
        {"event_id", "starts_at", "limit_w"},
        "in_force_on",
        {},
    ),
    ("flex", "grid_schedule"): ("steps", {"starts_at", "limit_w"}, "ends_at", {}),
    ("flex", "list_feeds"): ("feeds", {"feed_tag"}, "compliant", {}),
    ("flex", "list_breaches"): ("breaches", {"breach_id"}, "status", {}),
    ("flex", "list_enforcements"): ("enforcements", {"breach_id"}, "code", {}),
    ("flex", "list_refused_messages"): ("refused", {"reason"}, "count", {}),
    ("grid_isv", "list_changes"): ("changes", {"change_id", "state"}, "why", {}),
    ("maxlps", "power_tree"): ("domains", {"id", "level"}, "headroom_w", {}),
    ("maxlps", "list_groups"): ("groups", {"name"}, "tenant", {}),
    ("maxlps", "list_nodes"): ("nodes", {"node_id"}, "power_w", {}),
    ("devices", "list_hosts"): ("nodes", {"node_id", "state"}, "gpus", {}),
    ("devices", "list_gpus"): ("gpus", {"node_id", "gpu"}, "power_w", {}),
    ("devices", "why_slow"): (
        "findings",
        {"node_id", "gpu", "cause", "says"},
        "now",
        {"node_id": "node-001"},
    ),
    ("dps", "resource_groups"): ("groups", {"name"}, "policy", {}),
    ("dps", "group_nodes"): ("nodes", {"node_id"}, "applied", {"group": "pretrain-atlas"}),
    ("dps", "list_policies"): ("policies", {"name"}, "each_gpu_w", {}),
    ("dps", "headroom"): ("entities", {"id"}, "headroom_w", {}),
    ("dps", "list_changes"): ("changes", {"change_id", "state"}, "why", {}),
    ("dps_groups", "list_changes"): ("changes", {"change_id", "state"}, "why", {}),
    ("bms", "list_requests"): ("requests", {"asks", "whose"}, "outcome", {}),
    ("bms", "list_changes"): ("changes", {"change_id", "state"}, "why", {}),
    ("isolation", "list_changes"): ("changes", {"change_id", "state"}, "why", {}),
    ("maxlps", "list_changes"): ("changes", {"change_id", "state"}, "why", {}),
}


class Thing(Row):
    """A row of a test."""

    identity: ClassVar[tuple[str, ...]] = ("name",)

    name: str
    weight_kg: float | None = None
    colour: str | None = None


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The lab, with a grid limit that it breaks, and two changes: every list has rows."""
    nodes = ("node-001",)
    async with open_lab(tmp_path, requests=True, sends=True, beside_dps=nodes) as opened:
        assert opened.nodes is not None
        opened.nodes.twins["node-001"].raise_xid(0, 79)
        ready = {"state": "AI ready", "expires_in_s": 3600.0, "reason": "a test of lists"}
        announced = await opened.call("bms", "announce_readiness", point="Status", **ready)
        await opened.approve(announced)
        await opened.end_of(announced)
        await opened.grid.set_target(100_000.0, fault=None)
        await opened.until("flex", "grid_limit", lambda grid: "limit_w" in grid)
        for watts in (500, 600, 650):
            await opened.propose("set_caps", gpu_cap_w_by_node={"node-001": watts}, dry_run=False)
        yield opened


async def every_page(lab: Lab, tool: tuple[str, str], limit: int) -> list[dict[str, Any]]:
    """All rows of a listing, page by page."""
    rows, _, _, arguments = LISTS[tool]
    found: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    for _ in range(500):
        component, name = tool
        page = await lab.call(component, name, **arguments, **more, limit=limit)
        assert len(page[rows]) <= limit
        found += page[rows]
        if "next_cursor" not in page:
            return found
        more = {"cursor": page["next_cursor"]}
    raise AssertionError("the pages do not end")


async def test_every_listing_of_every_server_is_covered_here(lab: Lab) -> None:
    """A tool that lists without pages fills a model's memory on the first large site."""
    paging = {"limit", "cursor", "fields"}
    found: set[tuple[str, str]] = set()
    for component, client in lab.clients.items():
        for tool in (await client.list_tools()).tools:
            arguments = set(tool.input_schema["properties"])
            if tool.name.startswith("dsx_exchange_"):
                continue  # the names, arguments and bounds of upstream's own server
            if tool.name.startswith("list_") or paging & arguments:
                assert paging <= arguments, tool.name
                found.add((component, tool.name))

    assert found == set(LISTS)


async def test_the_pages_of_every_listing_make_the_whole(lab: Lab) -> None:
    """One row at a time or many: nothing is lost, nothing told twice, the order is the same."""
    for tool, (_, identity, _, _) in LISTS.items():
        whole = await every_page(lab, tool, 50)
        by_one = await every_page(lab, tool, 1)
        keys = [tuple(str(row.get(name)) for name in sorted(identity)) for row in whole]
        assert len(set(keys)) == len(keys), tool
        assert [tuple(str(row.get(n)) for n in sorted(identity)) for row in by_one] == keys, tool
    assert len(await every_page(lab, ("maxlps", "list_nodes"), 7)) == 64
    assert len(await every_page(lab, ("maxlps", "list_changes"), 1)) == 5
    assert len(await every_page(lab, ("exchange", "list_points"), 100)) > 50


async def test_asked_for_fields_come_and_identity_stays(lab: Lab) -> None:
    """Absent fields are simply absent, in both forms, and the answer still fits its schema."""
    for (component, tool), (rows, identity, field, arguments) in LISTS.items():
        client = lab.clients[component]
        schema = next(t for t in (await client.list_tools()).tools if t.name == tool).output_schema
        result = await client.call_tool(tool, {**arguments, "fields": [field]})
        assert result.structured_content is not None
        assert schema is not None
        jsonschema.validate(result.structured_content, schema)
        for row in result.structured_content[rows]:
            assert set(row) <= identity | {field}, tool
            assert identity - {"limit_w"} <= set(row), tool


async def test_a_field_that_rows_do_not_have_is_refused_and_the_known_are_told(lab: Lab) -> None:
    """A misspelt field must not read as `nothing known`."""
    for (component, tool), (_, identity, field, arguments) in LISTS.items():
        with pytest.raises(ComponentError, match="'watt_age' is no field") as told:
            await lab.call(component, tool, **arguments, fields=[field, "watt_age"])
        for name in identity | {field}:
            assert name in str(told.value), tool


async def test_a_cursor_of_another_list_is_refused_and_says_what_to_do(lab: Lab) -> None:
    """Made up, of another tool or of other filters: never a silent first page."""
    nodes = await lab.call("maxlps", "list_nodes", limit=2)
    foreign = nodes["next_cursor"]
    for (component, tool), (_, _, _, arguments) in LISTS.items():
        for cursor in ("node-999", "", "%%%", "bnVsbA", "W10", foreign, "A" * 5000):
            if tool == "list_nodes" and cursor == foreign:
                continue
            with pytest.raises(ComponentError, match="leave it out to begin anew"):
                await lab.call(component, tool, **arguments, cursor=cursor)
    with pytest.raises(ComponentError, match="same filters"):
        await lab.call("maxlps", "list_nodes", rack_id="rack-01", limit=2, cursor=foreign)


@pytest.mark.parametrize("limit", [0, -1, MAX_LIMIT + 1, "5", 2.5])
async def test_a_limit_out_of_range_is_refused(lab: Lab, limit: object) -> None:
    """By every listing in the same way."""
    for (component, tool), (_, _, _, arguments) in LISTS.items():
        with pytest.raises(ComponentError, match="limit"):
            await lab.call(component, tool, **arguments, limit=limit)


async def test_changes_that_come_between_two_pages_disturb_none(lab: Lab) -> None:
    """The cursor names a change, not a number of rows."""
    first = await lab.call("maxlps", "list_changes", limit=2)
    lab.clock.advance(1.0)
    await lab.propose("set_caps", gpu_cap_w_by_node={"node-009": 500})
    rest = await lab.call("maxlps", "list_changes", limit=50, cursor=first["next_cursor"])

    ids = [row["change_id"] for page in (first, rest) for row in page["changes"]]
    assert len(ids) == len(set(ids)) == 5


@given(limit=st.integers(1, 9), count=st.integers(0, 7))
def test_pages_of_any_size_make_any_list(limit: int, count: int) -> None:
    """Whatever the size, and whether or not the last page is full."""
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(count + 1):
        page, cursor = paged(NAMES[:count], str, PLACE, limit=limit, cursor=cursor)
        seen += page
        if cursor is None:
            break

    assert seen == NAMES[:count]
    assert cursor is None


@given(st.text(max_size=60))
def test_no_text_but_a_cursor_is_a_cursor(text: str) -> None:
    """Neither a crash nor a guess; our error, whatever comes."""
    with pytest.raises(InvalidRequestError, match="next_cursor"):
        PLACE.last(text)


@given(st.text(max_size=60))
def test_a_cursor_leads_back_to_the_row_that_it_was_made_of(key: str) -> None:
    """Any key: those of the plant hold what they like."""
    assert PLACE.last(PLACE.cursor(key.encode("utf-8", "replace").decode())) is not None


def test_a_row_that_is_gone_is_a_conflict_and_no_second_first_page() -> None:
    """The caller looks again from the beginning, and knows it."""
    _, cursor = paged(NAMES, str, PLACE, limit=3, cursor=None)
    changed = [name for name in NAMES if name != NAMES[2]]

    with pytest.raises(ConflictError, match="begin anew"):
        paged(changed, str, PLACE, limit=3, cursor=cursor)


def test_a_cursor_is_opaque_but_no_secret() -> None:
    """Base64 of a mark and the last row: who changes it reads from another place, no more."""
    cursor = PLACE.cursor("thing 3")
    mark, last = json.loads(base64.urlsafe_b64decode(cursor + "=="))

    assert (mark, last) == (PLACE.mark, "thing 3")
    assert Place.of("list_things", kind="square").mark != PLACE.mark
    assert Place.of("list_others", kind="round").mark != PLACE.mark


def test_only_what_was_asked_for_stays_beside_identity() -> None:
    """No fields at all is identity alone; None is everything."""
    rows = [Thing(name="ball", weight_kg=2.0, colour="red")]

    assert only(Thing, rows, None) == rows
    assert only(Thing, rows, []) == [Thing(name="ball")]
    assert only(Thing, rows, ["colour", "colour"]) == [Thing(name="ball", colour="red")]
