"""What may be asked of the BMS here, as the settings let it be offered."""

from collections.abc import Mapping
from typing import Any

from interlock_servers.exchange.asking import AskBms, Wires
from interlock_servers.exchange.intents import Does
from interlock_servers.exchange.isolation import (
    RequestElectricalIsolation,
    RequestLiquidIsolation,
    WithdrawElectricalIsolation,
    WithdrawLiquidIsolation,
)
from interlock_servers.exchange.readiness import AnnounceReadiness, WithdrawReadiness
from interlock_servers.exchange.setpoints import (
    RequestSupplyTemperature,
    WithdrawSupplyTemperature,
)

SUPPLY: tuple[type[AskBms[Any]], ...] = (RequestSupplyTemperature, WithdrawSupplyTemperature)
ISOLATION: tuple[type[AskBms[Any]], ...] = (
    RequestLiquidIsolation,
    WithdrawLiquidIsolation,
    RequestElectricalIsolation,
    WithdrawElectricalIsolation,
)
READINESS: tuple[type[AskBms[Any]], ...] = (AnnounceReadiness, WithdrawReadiness)
DOES: Mapping[str, Does] = {one.name: one.does for one in (*SUPPLY, *ISOLATION, *READINESS)}


def exchange_operations(wires: Wires) -> tuple[AskBms[Any], ...]:
    """Everything that the settings allow; nothing where they say that we stay silent."""
    settings = wires.settings
    if settings.silent:
        return ()
    kinds = (
        *(SUPPLY if settings.supply is not None else ()),
        *(ISOLATION if settings.isolation else ()),
        *(READINESS if settings.not_ready else ()),
    )
    return tuple(kind(wires) for kind in kinds)
