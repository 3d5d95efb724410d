"""The kept lists of tools are what a model sees now, and small enough to be read whole."""

from tests import golden

MOST_BYTES = 32_000  # of one server: about 8,000 tokens of a model's attention


async def test_what_a_model_sees_is_what_was_read_in_a_diff() -> None:
    """A changed word in a description changes what agents do; `make golden` renews the lists."""
    seen = await golden.seen_by_a_model()

    assert set(seen) == {"exchange", "flex", "maxlps"}
    assert golden.changed(seen) == []


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
    """Every byte of a list is paid in every conversation."""
    for component, tools in (await golden.seen_by_a_model()).items():
        assert golden.size_bytes(tools) < MOST_BYTES, component
