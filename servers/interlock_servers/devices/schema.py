"""The messages of `interlock.node.v1`, between a node agent and whoever reads and caps its GPUs.

Field numbers are never used twice: an agent of one version answers a client of another.
"""

from typing import Any, Final

from google.protobuf.message_factory import GetMessageClass

from interlock_servers.transports.grpc_table import pool_of_table, rows

PACKAGE: Final = "interlock.node.v1"
SERVICE: Final = "NodeService"

# A value that is not there stands in `unread` under its name, with the reason.
_MESSAGES: Final = """
ReadNodeRequest:
NodeReading: node_id=1 string, boot_id=2 string, sequence=3 uint64, age_s=4 ?double, \
says=5 string, takes_writes=6 bool, failure=7 string, gpus=8 *Gpu, held=9 *HeldCap
Unread: why=1 string, detail=2 string
Violation: kind=1 string, held_s=2 ?double, unread=3 Unread
Xid: code=1 uint32, age_s=2 double
Rows: corrected=1 uint64, uncorrected=2 uint64, is_pending=3 bool, has_failed=4 bool
Mig: is_on=1 bool, will_be_on=2 bool
Profiles: requested=1 *uint32, enforced=2 *uint32
Gpu: index=1 uint32, vendor=2 string, uuid=3 ?string, serial=4 ?string, model=5 ?string, \
bus_id=6 ?string, limit_now_w=10 ?double, limit_default_w=11 ?double, limit_min_w=12 ?double, \
limit_max_w=13 ?double, limit_enforced_w=14 ?double, limit_requested_w=15 ?double, \
power_average_w=16 ?double, power_instant_w=17 ?double, energy_j=18 ?double, events=19 ?uint64, \
temperature_c=20 ?double, memory_temperature_c=21 ?double, ecc_is_on=22 ?bool, \
ecc_corrected=23 ?uint64, ecc_uncorrected=24 ?uint64, ecc_corrected_ever=25 ?uint64, \
ecc_uncorrected_ever=26 ?uint64, violations=27 *Violation, xids=28 *Xid, \
remapped_rows=29 Rows, links_up=30 *bool, mig=31 Mig, unread=32 map/Unread, \
profiles=33 Profiles
HeldCap: key=1 string, limit_w=2 double, safe_w=3 double, left_s=4 double, state=5 string, \
controller_id=6 string, change_id=7 string

Cap: key=1 string, limit_w=2 double, safe_w=3 double, expires_in_s=4 double
SetLimitsRequest: controller_id=1 string, change_id=2 string, caps=3 *Cap
SetLimitsResponse: results=1 *Result
Result: key=1 string, asked_w=2 double, outcome=3 string, before_w=4 ?double, \
after_w=5 ?double, why=6 string
RenewCapsRequest: controller_id=1 string, keys=2 *string, expires_in_s=3 double
RenewCapsResponse: held=1 *HeldCap, not_held=2 *string
EndCapsRequest: controller_id=1 string, keys=2 *string
EndCapsResponse: results=1 *Result
"""

METHODS: Final = {
    "ReadNode": ("ReadNodeRequest", "NodeReading"),
    "SetLimits": ("SetLimitsRequest", "SetLimitsResponse"),
    "RenewCaps": ("RenewCapsRequest", "RenewCapsResponse"),
    "EndCaps": ("EndCapsRequest", "EndCapsResponse"),
}
READS: Final = frozenset({"ReadNode"})

_pool = pool_of_table(
    "interlock/node/v1/node.proto",
    PACKAGE,
    rows(_MESSAGES),
    {SERVICE: [(name, *types) for name, types in METHODS.items()]},
)
_classes: dict[str, Any] = {
    name: GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
    for name in rows(_MESSAGES)
}


def message(name: str, **fields: Any) -> Any:
    """A new message of the package."""
    return _classes[name](**fields)


def message_class(name: str) -> Any:
    """The class of a message of the package."""
    return _classes[name]


def path_of(method: str) -> str:
    """The path of a method on the wire."""
    return f"/{PACKAGE}.{SERVICE}/{method}"
