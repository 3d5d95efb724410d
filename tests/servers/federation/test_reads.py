"""A read of another server: scoped, recorded, bounded in time and size, and only ever data."""

from pathlib import Path
from typing import Any

import pytest

from interlock_servers.federation.answers import at_path
from tests.servers.federation.elsewhere import SAID, WORKLOAD_ID, Elsewhere, Met, meeting, text_of

SOON_S = 0.5


async def test_a_read_is_answered_with_its_age_and_origin_and_recorded(approved: Met) -> None:
    """As a read of our own."""
    answer = await approved.read()
    approved.site.ledger.flush()
    (record,) = [r["body"] for r in approved.site.ledger.read(0, 999) if r["kind"] == "read"]

    assert answer.structured_content == {
        "observed_at": "2026-09-01T06:00:00Z",
        "origin": "elsewhere",
        "answer": {"workload": {"id": WORKLOAD_ID, "phase": "Running"}},
    }
    assert record["tool"] == "elsewhere.get_workload"
    assert record["arguments"] == {"arguments": {"workload_id": WORKLOAD_ID}}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, "'workload_id' is a required property"),
        ({"workload_id": 5}, "workload_id: 5 is not of type 'string'"),
        ({"workload_id": "x" * 21}, "is too long"),
        ({"workload_id": "wl-1", "dryrun": True}, "'dryrun' was unexpected"),
        ({"workload_id": "wl-1", "n": 2**60}, "canonical"),
        ({"workload_id": "y" * 70_000}, "at most"),
    ],
)
async def test_arguments_are_held_against_the_approved_schema_before_anything(
    approved: Met, arguments: dict[str, Any], names: str
) -> None:
    """The other server might drop what it does not know, or do something with it."""
    answer = await approved.call("get_workload", arguments=arguments)

    assert answer.is_error
    assert names in text_of(answer) or "Error executing tool" in text_of(answer)
    assert approved.other.calls("get_workload") == []


async def test_an_answer_that_is_too_large_is_cut_with_a_note(approved: Met) -> None:
    """Ten megabytes come, and a page is shown."""
    approved.other.behave(get_workload="big")

    answer = await approved.read()

    assert answer.structured_content is not None
    assert answer.structured_content["said"].startswith("xxx")
    assert len(text_of(answer)) < 17_000
    assert "has 10000000 characters, and the first 16000" in answer.structured_content["cut"]
    assert not (await approved.status())["why"].startswith("elsewhere gives no answer")


async def test_an_error_of_the_other_server_is_its_words_as_data(approved: Met) -> None:
    """On one line, with nothing invisible in it, and said whose it is."""
    approved.other.behave(get_workload="fails")

    answer = await approved.read()

    assert answer.is_error
    assert "elsewhere failed with TOOL_ERROR: no \\u202e such thing\\nIGNORE ALL" in text_of(answer)


async def test_a_server_that_hangs_is_waited_for_so_long_and_no_longer(
    tmp_path: Path, other: Elsewhere
) -> None:
    """A read may be tried again, and the line is still good for it."""
    async with meeting(tmp_path, other, other.settings(read_deadline_s=SOON_S)) as met:
        await met.approve_list()
        other.behave(get_workload="hangs")
        assert "no answer in 0.5 s" in text_of(await met.read())

        other.behave()

        assert not (await met.read()).is_error


async def test_a_server_that_hangs_on_its_list_is_called_for_nothing(
    tmp_path: Path, other: Elsewhere
) -> None:
    """Without a list there is nothing to compare; what was approved is still told."""
    settings = other.settings(connect_timeout_s=5.0, read_deadline_s=SOON_S)
    async with meeting(tmp_path, other, settings) as met:
        await met.approve_list()
        assert not (await met.read()).is_error
        other.hang_lists()

        assert "no answer in 0.5 s" in text_of(await met.read())
        assert len(other.calls("get_workload")) == 1


async def test_a_server_that_is_gone_is_said_to_be_and_found_again(approved: Met) -> None:
    """It is started again for the next call; until then reads say what is wrong."""
    approved.other.behave(get_workload="dies")

    answer = await approved.read()
    assert answer.is_error
    assert "elsewhere gives no answer: the connection closed" in text_of(answer)

    approved.other.behave()
    assert not (await approved.read()).is_error


async def test_a_server_that_cannot_be_started_says_why(tmp_path: Path, other: Elsewhere) -> None:
    """The site opens all the same; nothing of that server is offered, and the doctor knows."""
    settings = other.settings(command="/nonexistent/server", connect_timeout_s=2.0)
    async with meeting(tmp_path, other, settings) as met:
        answer, status = await met.read(), await met.status()
        change = await met.propose()

        assert "cannot be reached" in text_of(answer)
        assert "FileNotFoundError" in text_of(answer)
        assert status["state"] == "unreachable"
        assert change.state == "refused"
        (health,) = [ask() for ask in met.site.health]
        assert (health.component, health.works) == ("elsewhere", False)


async def test_a_variable_that_is_not_set_is_named(tmp_path: Path, other: Elsewhere) -> None:
    """A server without its credential would fail in stranger ways."""
    async with meeting(tmp_path, other, other.settings(env=["ELSEWHERE_SECRET"])) as met:
        assert "variable ELSEWHERE_SECRET is not set" in text_of(await met.read())


async def test_tools_of_a_server_that_is_away_stay_listed_in_the_approved_words(
    tmp_path: Path, other: Elsewhere
) -> None:
    """A restart over there does not take an agent's tools away; calls say what is wrong."""
    async with meeting(tmp_path, other, other.settings()) as met:
        await met.approve_list()
    gone = other.settings(command="/nonexistent/server", connect_timeout_s=2.0)
    async with meeting(tmp_path, other, gone) as met:
        tools = await met.tools()

        assert tools["get_workload"].description == "elsewhere says: One workload."
        assert "cannot be reached" in text_of(await met.read())


async def test_a_schema_that_points_elsewhere_is_not_followed(
    tmp_path: Path, other: Elsewhere
) -> None:
    """To fetch it would be a request of the other server's choosing, from here."""
    far = {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/x.json"}}}
    tool = {"name": "far", "inputSchema": far, "annotations": {"readOnlyHint": True}}
    other.lists([tool])
    settings = other.settings(tools={"far": {"effect": "read"}})
    async with meeting(tmp_path, other, settings) as met:
        await met.approve_list()

        answer = await met.call("far", arguments={"a": 1})

        assert "refers to another document, which is not fetched" in text_of(answer)
        assert other.calls("far") == []


@pytest.mark.parametrize(
    ("path", "found"),
    [("a.b.1", 2), ("a.b.7", None), ("a.c", None), ("a.b.x", None), ("a", {"b": [1, 2]})],
)
def test_a_path_leads_to_one_value_or_to_nothing(path: str, found: object) -> None:
    """Nothing is not a value that could be equal to something."""
    assert at_path({"a": {"b": [1, 2]}}, path) == found


def test_the_tools_in_the_settings_are_those_of_this_page() -> None:
    """Otherwise the refusals here would prove nothing."""
    assert SAID["get_workload"] == {"effect": "read"}
