"""The measure of NVSentinel's servers, on a cluster that is small."""

import anyio
import anyio.to_thread

from interlock_evals.bench.sentinel import Size, measure


async def test_it_measures_start_reads_memory_watches_and_proposals() -> None:
    """Every figure is one of something that happened; how large they are is for `make bench`."""
    with anyio.fail_after(120):
        measured = await anyio.to_thread.run_sync(measure, Size(64, ill=4, faults=2, reads=2))
    figures = measured.figures
    assert all(figure.value > 0 for figure in figures.values())
    assert figures["sentinel_list_node_health_ms"].n == 2
    assert figures["sentinel_fault_to_proposal_s"].n == 2
    assert figures["sentinel_watches_of_a_kind"].value == 1
    assert 50 < figures["sentinel_memory_mb"].value < 600
    assert set(measured.promises) == {
        "sentinel_slowest_read_ms",
        "sentinel_cold_start_s",
        "sentinel_memory_mb",
        "sentinel_slowest_proposal_s",
        "sentinel_watches_of_a_kind",
    }
