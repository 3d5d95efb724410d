"""No trap of a contract is without a test, and the page of them is not stale."""

from tests import traps_table


def test_every_trap_has_a_test_and_every_claim_a_trap() -> None:
    """In both directions."""
    assert traps_table.wrong(traps_table.named(), traps_table.claimed()) == []
    assert not traps_table.is_stale()


def test_a_trap_that_nobody_tests_and_a_claim_that_nobody_named_are_seen() -> None:
    """The check can fail."""
    traps = [traps_table.Traps("x", "y", {"X-1": "one", "X-2": "two"})]
    assert traps_table.wrong(traps, {"X-1": ["a::b"], "X-3": ["c::d"]}) == [
        "trap X-2 has no test",
        "c::d claims unknown trap X-3",
    ]
    assert traps_table.wrong(traps * 2, {"X-1": ["a"], "X-2": ["b"]}) == [
        "trap X-1 is named twice",
        "trap X-1 is named twice",
        "trap X-2 is named twice",
        "trap X-2 is named twice",
    ]
