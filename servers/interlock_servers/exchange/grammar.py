"""Which points the bus may have: object types, their point types, who writes them, fixed meanings.

Source: AsyncAPI `bms.yaml` 1.0.0; a test holds these tables against it. A point type that is not in
them is taken with a remark: upstream may add some.
"""

from typing import NamedTuple

_LIQUID = {"LiquidTemperature", "LiquidDifferentialPressure", "LiquidFlow", "LiquidPressure"}
_AIR = {
    "AirTemperature",
    "AirDifferentialPressure",
    "AirRelativeHumidity",
    "AirFlow",
    "AirPressure",
}
_ACTUATORS = {"ValvePosition", "PumpSpeed", "FanSpeed", "DamperPosition"}
_EQUIPMENT = _LIQUID | _AIR | _ACTUATORS | {"Status", "Available", "LeakDetect", "GenericPoint"}
_SIMPLE = {"Available", "GenericPoint"}

ELECTRICAL = frozenset({"PowerMeter", "BESS", "UPS", "ATS", "Generator", "Shunt", "Breaker"})
PLANT_ROOM = frozenset({"CDU", "CoolingTower", "HX", "CRAH", "CRAC", "AHU", "Chiller", "Tank"})
PARTS = frozenset({"Valve", "Pump", "Fan", "Damper"})

BMS_POINTS: dict[str, frozenset[str]] = {
    "Rack": frozenset(
        {
            "RackLiquidSupplyTemperature",
            "RackLiquidReturnTemperature",
            "RackLiquidFlow",
            "RackLiquidDifferentialPressure",
            "RackLiquidDifferentialPressureSp",
            "RackControlValvePosition",
            "RackPower",
            "RackLeakDetect",
            "RackLeakSensorFault",
            "RackLiquidIsolationStatus",
            "RackElectricalIsolationStatus",
        }
    ),
    "PowerMeter": frozenset(
        {
            "Voltage",
            "PowerFactor",
            "Frequency",
            "ApparentPower",
            "ActivePower",
            "Current",
            "CurrentLimit",
            "PhaseCurrent",
            "GenericPoint",
        }
    ),
    **dict.fromkeys(ELECTRICAL - {"PowerMeter"}, frozenset({"Status"} | _SIMPLE)),
    **dict.fromkeys(PLANT_ROOM, frozenset(_EQUIPMENT)),
    "Valve": frozenset({"ValvePosition"} | _SIMPLE),
    "Pump": frozenset({"PumpSpeed"} | _SIMPLE),
    "Fan": frozenset({"FanSpeed"} | _SIMPLE),
    "Damper": frozenset({"DamperPosition"} | _SIMPLE),
    "Sensor": frozenset(_LIQUID | _AIR | {"LeakDetect", "Sound"} | _SIMPLE),
    "GenericObject": frozenset(_EQUIPMENT | {"Sound"}),
    "System": frozenset({"HeartbeatTimestampBms", "HeartbeatEchoBms", "Status"} | _SIMPLE),
}
INTEGRATION_POINTS: dict[str, frozenset[str]] = {
    **dict.fromkeys(BMS_POINTS, frozenset({"GenericPoint"})),
    "Rack": frozenset(
        {"RackLeakDetectTray", "RackLiquidIsolationRequest", "RackElectricalIsolationRequest"}
    ),
    "CDU": frozenset({"LiquidTemperatureSpRequest", "GenericPoint"}),
    "GenericObject": frozenset({"LiquidTemperatureSpRequest", "GenericPoint"}),
    "System": frozenset(
        {"HeartbeatTimestampIntegration", "HeartbeatEchoIntegration", "Status"} | _SIMPLE
    ),
}
OBJECT_TYPES = frozenset(BMS_POINTS)

FIXED_UNITS = {
    "RackLiquidSupplyTemperature": "C",
    "RackLiquidReturnTemperature": "C",
    "RackLiquidFlow": "LPM",
    "RackLiquidDifferentialPressure": "kPa",
    "RackLiquidDifferentialPressureSp": "kPa",
    "RackControlValvePosition": "%",
    "RackPower": "kW",
    "LiquidTemperature": "C",
    "AirTemperature": "C",
    "LiquidTemperatureSpRequest": "C",
}
# Ways to write the same unit, for points whose unit is fixed; a prefix is never guessed.
_SPELLINGS = {
    "C": frozenset({"°C", "degC", "deg C", "Celsius"}),
    "LPM": frozenset({"lpm", "L/min", "l/min"}),
    "%": frozenset({"percent", "Percent"}),
}

# What 0 and 1 are on a rack. The texts are upstream's examples: a site may word them otherwise.
RACK_STATES = {
    "RackLeakDetect": ("NoLeak", "Leak"),
    "RackLeakSensorFault": ("NoFault", "Fault"),
    "RackLiquidIsolationStatus": ("NotIsolated", "Isolated"),
    "RackElectricalIsolationStatus": ("NotIsolated", "Isolated"),
    "RackLeakDetectTray": ("NoLeak", "Leak"),
    "RackLiquidIsolationRequest": ("NoIsolationRequested", "IsolationRequested"),
    "RackElectricalIsolationRequest": ("NoIsolationRequested", "IsolationRequested"),
}
UNITLESS = frozenset(
    {
        "PowerFactor",
        "HeartbeatTimestampBms",
        "HeartbeatTimestampIntegration",
        "HeartbeatEchoBms",
        "HeartbeatEchoIntegration",
    }
)
# Point names of clients that were written before the specification (NICo, August 2026).
OLD_POINT_NAMES = {
    "LeakDetectRack": "RackLeakDetect",
    "LeakSensorFaultRack": "RackLeakSensorFault",
    "LeakDetectRackTray": "RackLeakDetectTray",
}


class Space(NamedTuple):
    """A family of topics: its pattern, who owns it, and what is said there."""

    pattern: str
    domain: str
    role: str
    object_type: str | None
    point_types: tuple[str, ...]
    says: str


def knows(object_type: str, point_type: str) -> bool:
    """Whether the specification has such a point."""
    return point_type in BMS_POINTS.get(object_type, ()) or point_type in INTEGRATION_POINTS.get(
        object_type, ()
    )


def written_by_integrations_only(object_type: str, point_type: str) -> bool:
    """Whether the BMS never writes the value of such a point."""
    return (
        point_type in INTEGRATION_POINTS.get(object_type, ())
        and point_type not in BMS_POINTS[object_type]
    )


def unit_as_specified(point_type: str, unit: str) -> tuple[str, bool]:
    """The unit in the spelling of the specification, and whether it is the one that must be."""
    fixed = FIXED_UNITS.get(point_type)
    if fixed is None or unit == fixed:
        return unit, True
    return (fixed, True) if unit in _SPELLINGS.get(fixed, ()) else (unit, False)


def states_are_swapped(point_type: str, texts: dict[int, str]) -> bool:
    """Whether 0 bears the text of 1 or 1 that of 0: a leak that reads as none."""
    known = RACK_STATES.get(point_type)
    if known is None:
        return False
    none, some = (_bare(text) for text in known)
    return _bare(texts.get(0, "")) == some or _bare(texts.get(1, "")) == none


def _bare(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum())


def spaces() -> tuple[Space, ...]:
    """Every family of topics of section 4.1 of the contract, the 69 of the BMS included."""
    found = [
        Space(
            f"BMS/v1/{publisher}/{kind}/{object_type}/{{pointType}}/{{tagPath}}",
            "bms",
            role,
            object_type,
            tuple(sorted(points)),
            says,
        )
        for object_type in sorted(OBJECT_TYPES)
        for publisher, kind, role, points, says in (
            ("PUB", "Value", "bms", BMS_POINTS[object_type], "live readings"),
            (
                "PUB",
                "Metadata",
                "bms",
                BMS_POINTS[object_type] | INTEGRATION_POINTS[object_type],
                "what the points are; retained",
            ),
            (
                "{integration}",
                "Value",
                "integration",
                INTEGRATION_POINTS[object_type],
                "what an integration asks or reports",
            ),
        )
    ]
    found += [
        Space(pattern, "dsx-flex", role, None, (), says)
        for pattern, role, says in (
            ("grid/v1/isv/{identifier}/loadtarget/set", "isv", "a load target of the grid"),
            (
                "grid/v1/dsx-flex-agent/{identifier}/powerstate/status",
                "dsx-flex-agent",
                "state of the feeds, calculated",
            ),
            (
                "grid/v1/dsx-flex-agent/{identifier}/powerbreach",
                "dsx-flex-agent",
                "a feed above its target",
            ),
            (
                "grid/v1/infra/{infraAgentId}/powerbreach/enforcement",
                "infra",
                "what was done about a breach",
            ),
        )
    ]
    says = "lifecycle state of a machine"
    return (*found, Space("NICO/v1/machine/{machineId}/state", "nico", "nico", None, (), says))
