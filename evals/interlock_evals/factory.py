"""A simulated AI factory: the plant, stepped by a clock, shown by its twins on the real wires.

It gives addresses, as a real site would; whoever connects cannot tell, and need not know.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from interlock_plant.plant import Plant
from interlock_servers.exchange.twin import ExchangeTwin
from interlock_servers.flex.twin import FlexAgentTwin, GridIsvTwin
from interlock_servers.maxlps.twin import DpsTwin
from interlock_tools.clock import Clock


class Addresses(BaseModel):
    """Where a factory can be reached; written to a file so that other processes can join it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site_id: str
    broker: str
    dps: str
    jwks_file: str
    clock_epoch: str
    clock_anchor_unix_s: float
    clock_rate: float

    def save(self, path: Path) -> None:
        """Write the file as a whole or not at all."""
        scratch = path.with_suffix(".part")
        scratch.write_text(self.model_dump_json(indent=2), "utf-8")
        scratch.replace(path)


@dataclass
class Factory:
    """A running factory: the plant behind it is for scorers, the addresses are for everyone."""

    plant: Plant
    exchange: ExchangeTwin
    dps: DpsTwin
    grid: GridIsvTwin
    flex_agent: FlexAgentTwin
    addresses: Addresses
    clock: Clock
