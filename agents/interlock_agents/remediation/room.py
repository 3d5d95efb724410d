"""Whether a node may be taken out now: how many are out, who works there, and where that can go."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from interlock_agents.connection import PAGE, Servers
from interlock_tools.clock import Clock

SHARE: Final = 0.1  # of the fleet, out by our doing at once; the guard stops at a quarter
SPARE_BY: Final = ["stage", "ready", "pods", "opted_out", "lease"]
FLEET_KEPT: Final = timedelta(minutes=1)  # so that it is at hand when a node falls ill
FLEET_OLD: Final = timedelta(minutes=3)
FLEET_ANEW: Final = timedelta(seconds=10)  # where what was known leaves no room
# What keeps so many copies running that one may go; a part of anything else stops all of it.
_REPLACED: Final = ("ReplicaSet/", "StatefulSet/", "Deployment/")


@dataclass(frozen=True)
class Fleet:
    """Every node, as `list_node_health` shows it.

    Attributes:
        at: when it was asked for.
    """

    rows: Mapping[str, Mapping[str, Any]]
    at: datetime

    @property
    def most_out(self) -> int:
        """How many may be out at once."""
        return max(1, int(SHARE * len(self.rows)))

    def spares(self) -> list[str]:
        """Nodes in service on which nobody works."""
        return sorted(name for name, row in self.rows.items() if _is_spare(row))


async def fleet(servers: Servers, now: datetime) -> Fleet:
    """All nodes at `now`.

    Raises:
        ComponentError: they are not to be had.
    """
    rows: dict[str, Mapping[str, Any]] = {}
    async for page in servers.pages(
        "nvsentinel", "list_node_health", state="all", limit=PAGE, fields=SPARE_BY
    ):
        rows |= {row["node_id"]: row for row in page["nodes"]}
    return Fleet(rows, now)


@dataclass
class Room:
    """Keeps count of what is out, and of the spare nodes that are promised to somebody.

    Attributes:
        out: nodes that we have taken out, or have asked to, and what each was taken for.
    """

    servers: Servers
    clock: Clock
    out: dict[str, str] = field(default_factory=dict)
    _with_work: set[str] = field(default_factory=set)
    _promised: dict[str, str] = field(default_factory=dict)
    _fleet: Fleet | None = None

    def take(self, node_id: str, cause: str, *, with_work: bool, spare: str | None) -> None:
        """Count a node as out."""
        self.out[node_id] = cause
        if with_work:
            self._with_work.add(node_id)
        if spare is not None:
            self._promised[node_id] = spare

    def are_out(self, nodes: Collection[str]) -> None:
        """Only these are; what was promised to the work of others is taken by now, or free."""
        self.out = {name: self.out.get(name, name) for name in nodes}
        self._with_work &= self.out.keys()
        self._promised = {k: v for k, v in self._promised.items() if k in self.out}

    def is_empty(self, node_id: str) -> None:
        """Its work has left: the next host may follow."""
        self._with_work.discard(node_id)

    async def know_the_fleet(self, no_older: timedelta) -> Fleet:
        """Every node, asked anew where it is older; whom it calls spare is looked at again.

        Raises:
            ComponentError: they are not to be had.
        """
        now = self.clock.now()
        if self._fleet is None or now - self._fleet.at > no_older:
            self._fleet = await fleet(self.servers, now)
        return self._fleet

    async def for_one_more(
        self, story: Mapping[str, Any], cause: str
    ) -> tuple[str | None, str | None]:
        """Why the node may not go out now, and the node that is free for its work.

        Raises:
            ComponentError: nodes are not to be had.
        """
        known = await self.know_the_fleet(FLEET_OLD)
        no, spare = await self._fits(story, cause, known)
        if no is None or (anew := await self.know_the_fleet(FLEET_ANEW)) is known:
            return no, spare
        return await self._fits(story, cause, anew)

    async def _fits(
        self, story: Mapping[str, Any], cause: str, all_: Fleet
    ) -> tuple[str | None, str | None]:
        no = self._why_not(cause, story["pods"], all_)
        if no is not None or not story["pods"]:
            return no, None
        spare = await self._spare_for(story, all_)
        whole = gangs(story["pods"])
        if spare is None and whole:
            return f"{whole[0]} would stop: no spare node fits", None
        return None, spare

    def _why_not(self, cause: str, pods: Collection[Mapping[str, Any]], all_: Fleet) -> str | None:
        """Why one more node may not go out now; None where it may."""
        if len(self.out) >= all_.most_out:
            return f"{len(self.out)} of {len(all_.rows)} nodes are out, which is the most at once"
        others = sorted(name for name in self._with_work if self.out.get(name) != cause)
        if pods and others:
            return f"one host after the other: {others[0]} is first"
        blocked = sorted(f"{pod['namespace']}/{pod['pod']}" for pod in pods if pod.get("blocked"))
        if blocked:
            return f"a disruption budget holds {blocked[0]}"
        return None

    async def _spare_for(self, story: Mapping[str, Any], all_: Fleet) -> str | None:
        """A node that can take the work of this one; None where none fits.

        Raises:
            ComponentError: nodes are not to be had.
        """
        for name in all_.spares():
            if name in self._promised.values() or name == story["node_id"] or name in self.out:
                continue
            seen = await self.servers.call("nvsentinel", "explain_node", node_id=name, limit=1)
            fits = seen["gpus"] >= story["gpus"] and not seen["pods"] and seen.get("ready") is True
            if fits and not seen["faults"] and seen["cordoned_by"] == "nobody":
                return name
        return None


def gangs(pods: Iterable[Mapping[str, Any]]) -> list[str]:
    """The jobs among these pods that stop as a whole where one part goes."""
    found = {
        f"{pod['namespace']}/{pod.get('gang') or pod.get('job')}"
        for pod in pods
        if pod.get("gang") or not str(pod.get("job") or "").startswith(_REPLACED)
    }
    return sorted(found)


def _is_spare(row: Mapping[str, Any]) -> bool:
    return (
        row["stage"] == "in-service"
        and row.get("ready") is True
        and row.get("pods") == 0
        and not row.get("opted_out")
        and not row.get("lease")
    )
