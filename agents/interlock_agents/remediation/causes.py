"""Which nodes are ill for one reason, such as a CDU: one reason, one incident."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from interlock_agents.connection import PAGE, Servers
from interlock_agents.remediation.diagnosing import Diagnosis
from interlock_tools.errors import ComponentError

COMMON_OF: Final = 3  # nodes of one place with the same fault are no coincidence
HEAT: Final = "heat"
FLOW: Final = "CDU/LiquidFlow/"


@dataclass(frozen=True)
class Incident:
    """One cause and the nodes that it hits.

    Attributes:
        place: what they share: a CDU, a rack, or the one node itself.
        is_shared: whether it is more than that node's own.
    """

    key: str
    place: str
    is_shared: bool
    members: tuple[Diagnosis, ...]

    @property
    def is_hot(self) -> bool:
        """Whether a member is hot now: nothing that is done to a node helps that."""
        return any(one.is_hot for one in self.members)


class Places:
    """What the facility's bus says that a rack hangs on, as far as there is one."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._cools: dict[str, str] = {}

    async def cooling_of(self, rack: str) -> str:
        """The CDU that cools a rack, else the rack itself."""
        if rack not in self._cools:
            try:
                found = await self._servers.call(
                    "exchange", "trace_path", id=rack, direction="up", limit=PAGE
                )
            except ComponentError:
                return rack  # no bus, or a silent one: a rack is the smallest shared place
            near = sorted(row["id"] for row in found["reaches"] if row["kind"] == "equipment")
            cdus = [name for name in near if await self._cdu(name)]
            self._cools[rack] = cdus[0] if cdus else rack
        return self._cools[rack]

    async def flow_of(self, place: str) -> str:
        """What the bus says of a CDU's flow, as evidence; empty where it says nothing."""
        for point in await self._cdu(place):
            if point["key"].startswith(FLOW) and point.get("value") is not None:
                return f"its flow reads {point['value']:g} {point.get('unit') or ''}".rstrip()
        return ""

    async def _cdu(self, name: str) -> list[dict[str, Any]]:
        """The points of a CDU; none where there is no CDU of this name, or no bus."""
        try:
            found = await self._servers.call(
                "exchange", "list_points", object_type="CDU", object_id=name, limit=PAGE
            )
        except ComponentError:
            return []
        points: list[dict[str, Any]] = found["points"]
        return points


async def incidents(
    found: Iterable[Diagnosis],
    racks: Mapping[str, str | None],
    places: Places,
    known: Collection[str] = (),
) -> list[Incident]:
    """The diagnoses by their cause; where it is too hot, everything belongs to whatever cools.

    `known` are the keys of shared ones that have begun: they last as long as one node is ill, for
    GPUs that got too hot do not all come back with the cooling.
    """
    found = list(found)
    cools = {rack: rack for rack in racks.values() if rack is not None}
    if any(one.is_hot for one in found) or any(key.startswith(HEAT) for key in known):
        cools = {rack: await places.cooling_of(rack) for rack in cools}
    hot = Counter(cools[rack] for one in found if one.is_hot and (rack := racks[one.node_id]))
    too_hot = {place for place in cools.values() if f"{HEAT} at {place}" in known}
    too_hot |= {place for place, nodes in hot.items() if nodes >= COMMON_OF}
    groups: dict[tuple[str, str], list[Diagnosis]] = defaultdict(list)
    alone: list[Incident] = []
    for one in found:
        rack = racks.get(one.node_id)
        if rack is None:
            alone.append(_own(one))
        elif cools[rack] in too_hot:
            groups[HEAT, cools[rack]].append(one)
        else:
            groups[" ".join(sorted(one.kinds)), rack].append(one)
    shared: list[Incident] = []
    for (what, place), members in groups.items():
        key = f"{what} at {place}"
        if len(members) >= COMMON_OF or key in known:
            shared.append(Incident(key, place, True, tuple(members)))
        else:
            alone += map(_own, members)
    return [*shared, *alone]


def _own(one: Diagnosis) -> Incident:
    return Incident(one.node_id, one.node_id, False, (one,))
