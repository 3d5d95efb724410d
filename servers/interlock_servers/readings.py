"""What a running site lets telemetry read of it: open changes, the ledger, the buses."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.telling import open_by_state
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.flex.client import FlexClient
from interlock_tools import measures
from interlock_tools.telemetry import Observed, Read, Reading, watched

ACCEPTED = "accepted"


@contextmanager
def readable(
    engine: Engine, ledger: Ledger, exchange: ExchangeClient | None, flex: FlexClient | None
) -> Iterator[None]:
    """Have all of this collected for as long as the block lasts; nothing reads where no SDK is."""

    def messages() -> list[Reading]:
        found: list[Reading] = []
        if exchange is not None:
            store = exchange.store
            found.append((store.accepted, _of("exchange", ACCEPTED)))
            found += [(one.times, _of("exchange", why)) for why, one in store.rejected.items()]
        if flex is not None:
            found.append((flex.accepted, _of("flex", ACCEPTED)))
            found += [(one.count, _of("flex", why)) for why, one in flex.rejected().items()]
        return found

    def connected() -> list[Reading]:
        found: list[Reading] = []
        if exchange is not None:
            found.append((int(exchange.bus_state().connected), {measures.BUS: "exchange"}))
        if flex is not None:
            found.append((int(flex.health().connected), {measures.BUS: "flex"}))
        return found

    def points() -> list[Reading]:
        return [] if exchange is None else [(len(exchange.store), {measures.BUS: "exchange"})]

    reads: dict[Observed, Read] = {
        measures.OPEN_CHANGES: lambda: open_by_state(engine),
        measures.LEDGER_SIZE: lambda: [(ledger.size_and_root()[0], {})],
        measures.LEDGER_UNCOVERED: lambda: [(ledger.uncovered()[0], {})],
        measures.CHECKPOINT_AGE: lambda: [(ledger.uncovered()[1], {})],
        measures.BUS_MESSAGES: messages,
        measures.BUS_CONNECTED: connected,
        measures.BUS_POINTS: points,
    }
    with watched(reads):
        yield


def _of(bus: str, outcome: str) -> dict[str, str]:
    return {measures.BUS: bus, measures.OUTCOME: outcome}
