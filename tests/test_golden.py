"""The kept lists and the table of tools are what a model sees now, and small enough."""

import pytest

from interlock_policies.bundles import load_bundle
from interlock_tools.operation import Effect
from tests import golden, surface_table, tool_table


async def test_what_a_model_sees_is_what_was_read_in_a_diff() -> None:
    """A changed word in a description changes what agents do; `make golden` renews the lists."""
    seen = await golden.seen_by_a_model()

    assert set(seen) == {
        *("exchange", "dsx_exchange", "bms", "isolation"),
        *("flex", "grid_isv"),
        *("maxlps", "devices", "dps", "dps_groups"),
        *("nvsentinel", "remediation", "janitor"),
    }
    assert golden.changed(seen) == []


async def test_what_a_server_offers_besides_was_read_in_a_diff_too() -> None:
    """Resources, families of them and prompts; one word less is seen."""
    offered = await golden.surfaces()
    assert golden.changed_surfaces(offered) == []

    offered["maxlps"]["prompts"][0]["description"] += "!"
    assert golden.changed_surfaces(offered) == ["maxlps"]


async def test_the_lists_are_the_same_every_time() -> None:
    """Sorted and free of moments: a diff shows a change and nothing else."""
    first, second = await golden.seen_by_a_model(), await golden.seen_by_a_model()

    assert first == second


async def test_a_change_is_seen() -> None:
    """One word less in one description."""
    seen = await golden.seen_by_a_model()
    description = seen["flex"][0]["description"]
    seen["flex"][0]["description"] = description.rsplit(" ", 1)[0]

    assert golden.changed(seen) == ["flex"]


async def test_a_server_is_no_burden_to_who_reads_it() -> None:
    """Every byte of a list is paid in every conversation: the whole answer, not its parts."""
    given = await golden.answers()

    assert golden.too_large(given) == []
    for answer in given.values():
        assert golden.cost(answer) <= 2_500
        assert tool_table.size_bytes(answer) > tool_table.size_bytes(answer["tools"])


async def test_a_server_that_costs_too_much_is_named() -> None:
    """One long description, and the check that runs before every merge fails."""
    given = await golden.answers()
    given["maxlps"]["tools"][0]["description"] *= 20

    assert golden.too_large(given) == ["maxlps"]


async def test_the_table_of_tools_is_not_stale_and_says_who_decides() -> None:
    """Every tool of every server, and the rule as the policy itself answers."""
    given = await golden.answers()
    page = tool_table.as_markdown(given) + surface_table.as_markdown(await golden.surfaces())

    assert tool_table.FILE.read_text("utf-8") == page
    rows = [
        f"| `{tool['name']}` | {tool['description']} |"
        for answer in given.values()
        for tool in answer["tools"]
    ]
    for row in rows:  # what every server has stands there for each of them
        assert page.count(row) == rows.count(row)
    reading = next(line for line in page.splitlines() if line.startswith("| `site_power`"))
    changing = next(line for line in page.splitlines() if line.startswith("| `set_caps`"))
    assert "| read | `interlock:read` | `read-in-scope`: allow |" in reading
    assert "| reversible | `interlock:propose` |" in changing
    assert "`reversible-needs-operator`: 1 operator" in changing


@pytest.mark.parametrize(
    ("effect", "answers"),
    [
        (Effect.DISRUPTIVE, ["`disruptive-needs-two-operators`: 2 operator"]),
        (
            Effect.IRREVERSIBLE,
            ["`irreversible-needs-two-site-leads`: 2 site_lead, typing the target"],
        ),
    ],
)
def test_harder_effects_show_their_harder_rules(effect: Effect, answers: list[str]) -> None:
    """Before the first such tool is offered, the table already knows who will be asked."""
    gate = load_bundle(tool_table.BUNDLE, {"plant.do_it": effect})

    assert tool_table.rules_of(gate, "plant.do_it", effect) == answers


def test_a_listing_of_72_gpus_is_short() -> None:
    """Text and structure together, every field known: a client may show its model both.

    The text keeps to it at 2 bytes a token too, which is what digits cost.
    """
    text, structure = tool_table.listing_tokens(tool_table.gpus_72())

    assert sum(len(node.power_w or ()) for node in tool_table.gpus_72().nodes) == 72
    assert text + structure <= 1_500
    assert len(tool_table.gpus_72().text()) / 2 <= 1_500
