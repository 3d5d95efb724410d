"""Reading the bus: speed on the wire, cost of a value, memory, pages of the catalogue, failover."""

from interlock_evals.bench import ingest_failover, ingest_store, ingest_wire
from interlock_evals.bench.measured import Measured


def measure() -> Measured:
    """All of it, one after the other; each says by itself what it measures."""
    parts = [part.measure() for part in (ingest_wire, ingest_store, ingest_failover)]
    return Measured(
        {key: figure for part in parts for key, figure in part.figures.items()},
        {key: promise for part in parts for key, promise in part.promises.items()},
    )
