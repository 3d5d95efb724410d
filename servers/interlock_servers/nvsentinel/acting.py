"""What all operations on NVSentinel share: their facts, what forbids them, and one request by name.

A request is named after the change that makes it, so that one whose answer was lost is found again
and none is made twice.
"""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Generic, Self, TypeVar

from pydantic import Field

from interlock_servers.nvsentinel import facts as known
from interlock_servers.nvsentinel import names
from interlock_servers.nvsentinel.client import NvsentinelClient
from interlock_servers.nvsentinel.models import Request
from interlock_servers.transports.kube.connection import Json
from interlock_servers.transports.kube.kinds import Kind
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.errors import ConflictError, InvalidRequestError, NotFoundError
from interlock_tools.fact import FactNeed, FactSet
from interlock_tools.identity import Target
from interlock_tools.operation import (
    Arguments,
    DryRun,
    Effect,
    Happened,
    Operation,
    ReadBack,
)

AGE_S: Final = 30.0
NodeId = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[a-z0-9]([-a-z0-9.]*)$")]
RequestName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[a-z0-9][-a-z0-9.]*$")]
A = TypeVar("A", bound="NodeArguments")


class NodeArguments(Arguments):
    """Which node."""

    node_id: NodeId


class Keyed:
    """An operation that finds what a change made by the change's key."""

    _key: str = ""

    def of(self, key: str) -> Self:
        """The same, as one change sees it."""
        mine = copy.copy(self)
        mine._key = key
        return mine


class OnNode(Keyed, Operation[A], Generic[A]):
    """One kind of change of a node.

    Attributes:
        needs: what it must know of the node, beside the installation.
    """

    effect = Effect.DISRUPTIVE
    act_timeout_s = 45.0
    needs: ClassVar[tuple[str, ...]] = ()
    always: ClassVar[tuple[str, ...]] = (
        known.NODE_HEALTH,
        known.NODE_QUARANTINE,
        known.NODE_OCCUPANCY,
        known.NODE_LEASE,
        known.NODE_REQUESTS,
    )

    def __init__(self, client: NvsentinelClient) -> None:
        self._client = client
        self._cluster = Target(kind="cluster", id=client.settings.cluster.name)

    def target(self, arguments: A) -> Target:
        """The node."""
        return Target(kind="node", id=arguments.node_id)

    def facts(self, arguments: A) -> tuple[FactNeed, ...]:
        """How the node stands, who works there, who has its lock, and what is installed."""
        node = self.target(arguments)
        own = tuple(
            FactNeed(kind=kind, subject=node, max_age_s=AGE_S)
            for kind in (*self.always, *self.needs)
        )
        return (*own, FactNeed(kind=known.SENTINEL, subject=self._cluster, max_age_s=AGE_S))

    def blast_radius(self, arguments: A, facts: FactSet) -> BlastRadius:
        """The node with its jobs, tenants and GPUs, once nothing forbids the change.

        Raises:
            InvalidRequestError: something forbids it; the message says what, and what to do.
        """
        self.forbid(arguments, Ground(facts, self.target(arguments), self._cluster))
        return reach_of(facts.value(known.NODE_OCCUPANCY, self.target(arguments)))

    @abstractmethod
    def forbid(self, arguments: A, ground: "Ground") -> None:
        """What must be so.

        Raises:
            InvalidRequestError: it is not.
        """


class AskFor(OnNode[A], Generic[A]):
    """One request, made by us, with a name of its change."""

    kind: ClassVar[Kind]

    @abstractmethod
    def spec(self, arguments: A, kind: Kind) -> Json:
        """What is asked for."""

    async def kind_now(self) -> Kind:
        """The kind that carries it on this cluster."""
        return self.kind

    async def dry_run(self, arguments: A) -> DryRun | None:
        """The API server's own rehearsal, with its schemas and admission webhooks."""
        kind = await self.kind_now()
        await self._client.kube.create(kind, self._body(arguments, kind), dry_run=True)
        return DryRun(would_succeed=True, notes=(f"the API server would take the {kind.kind}",))

    async def execute(self, arguments: A, key: str) -> dict[str, Any]:
        """Make the request; one of this change that is there already is not made again.

        Raises:
            ConflictError: one of its name is there, and is not ours.
            UnavailableError: no answer; it is found again by its name.
        """
        mine = self.of(key)
        kind = await mine.kind_now()
        body = mine._body(arguments, kind)
        try:
            await self._client.kube.create(kind, body)
        except ConflictError:
            if await mine._found(arguments, kind) is None:
                raise
        return {"kind": kind.kind, "name": mine.request_name}

    async def read_back(self, arguments: A) -> ReadBack:
        """By its name: it is there, or it is not."""
        kind = await self.kind_now()
        found = await self._found(arguments, kind)
        evidence = {"kind": kind.kind, "name": self.request_name}
        if found is None:
            return ReadBack(happened=Happened.NO, evidence=evidence)
        return ReadBack(happened=Happened.YES, evidence={**evidence, **says(found)})

    @property
    def request_name(self) -> str:
        """Of what this change makes."""
        return f"{names.OURS_BEGIN}{self._key or 'rehearsal'}"

    async def _found(self, arguments: A, kind: Kind) -> Request | None:
        """What this change made, if it is there; one of the same name of others is none."""
        try:
            found, raw = await self._client.request(kind, self.request_name)
        except NotFoundError:
            return None
        if found.change_id != self._key or arguments.node_id not in found.nodes:
            return None
        del raw
        return found

    def _body(self, arguments: A, kind: Kind) -> Json:
        about = {
            "name": self.request_name,
            "labels": {names.MANAGED_BY: names.FIELD_MANAGER},
            "annotations": {names.CHANGE: self._key},
        }
        return {"metadata": about, "spec": self.spec(arguments, kind)}


class Ground:
    """The facts of one node as sentences: each method forbids, or is silent."""

    def __init__(self, facts: FactSet, node: Target, cluster: Target) -> None:
        self._facts, self._node, self._cluster = facts, node, cluster

    def of(self, kind: str) -> Mapping[str, Any]:
        """The value of a fact of the node."""
        value: Mapping[str, Any] = self._facts.value(kind, self._node)
        return value

    @property
    def sentinel(self) -> Mapping[str, Any]:
        """The value of the fact of the installation."""
        value: Mapping[str, Any] = self._facts.value(known.SENTINEL, self._cluster)
        return value

    def is_free(self, *, but: str = "", while_drained_by_us: bool = False) -> None:
        """Nobody holds its maintenance lock, and nothing is being asked for it.

        `but` names a request, as `Kind/name`, that may; `while_drained_by_us` lets a maintenance
        of ours be open that asks for the drain alone: what follows is what it was for.
        """
        lease, asked = self.of(known.NODE_LEASE), self.of(known.NODE_REQUESTS)["open"]
        if lease["held"] and lease["by"] != but:
            _no(f"{lease['by']} holds the maintenance lock of {self._node.id}; wait for its end")
        may = {but.replace("/", " ")}
        if while_drained_by_us:
            may.update(self.of(known.NODE_REQUESTS)["drained_by_us"])
        others = [one for one in asked if one not in may]
        if others:
            _no(f"{others[0]} is open for {self._node.id}; wait for its end")

    def is_not_theirs(self) -> None:
        """Nobody else has cordoned it."""
        whose = self.of(known.NODE_QUARANTINE)["cordoned_by"]
        if whose == "somebody_else":
            writers = self.of(known.NODE_QUARANTINE)["writers"]
            told = f" ({', '.join(writers)})" if isinstance(writers, list) and writers else ""
            _no(f"{self._node.id} was cordoned by somebody else{told}; that is left alone")

    def is_not_released(self) -> None:
        """No external repair has it."""
        if self.of(known.NODE_QUARANTINE)["released"]:
            _no(f"{self._node.id} is released to an external repair; close that first")

    def is_drained(self) -> None:
        """It is cordoned and nobody works there, seen just now."""
        drain = self.of(known.NODE_DRAIN)
        if not drain["cordoned"]:
            _no(f"{self._node.id} is not cordoned, so that work may come at any moment: drain it")
        if drain["pod_count"]:
            first = ", ".join(one["pod"] for one in drain["pods"][:3])
            _no(f"{self._node.id} still has {drain['pod_count']} pods of users: {first}")

    def runs(self, *modules: str) -> None:
        """These modules are there, and do what they say."""
        missing = [one for one in modules if one not in self.sentinel["running"]]
        if missing:
            _no(f"NVSentinel has no {missing[0]} that runs here: nothing would come of it")

    def acts(self) -> None:
        """NVSentinel would quarantine: it does not run dry, and its breaker is not tripped."""
        if self.sentinel["dry_run"] == "yes":
            _no("NVSentinel runs dry: it would write annotations and do nothing")
        if self.sentinel["breaker"] == "tripped":
            _no("the circuit breaker is tripped: nothing is quarantined or given back")

    def serves(self, kind: Kind) -> None:
        """Requests of this kind can be made."""
        if kind.kind not in self.sentinel["serves"]:
            _no(f"{kind.name} is not served here: that part of NVSentinel is not installed")


def reach_of(occupancy: Mapping[str, Any]) -> BlastRadius:
    """Hosts, racks, jobs, tenants and GPUs of the fact of an occupancy."""
    return BlastRadius(
        gpus=occupancy["gpus"],
        hosts=frozenset(occupancy["hosts"]),
        racks=frozenset(occupancy["racks"]),
        nvlink_domains=frozenset(occupancy["nvlink_domains"]),
        jobs=frozenset(occupancy["jobs"]),
        tenants=frozenset(occupancy["tenants"]),
    )


def says(request: Request) -> dict[str, Any]:
    """A request for the record."""
    return {
        "outcome": request.outcome.value,
        "conditions": {
            one.type: f"{one.status} {one.reason}".strip() for one in request.conditions
        },
    }


def pointer(*parts: str) -> str:
    """A JSON Pointer (RFC 6901)."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def set_in(raw: Json, section: str, key: str, value: str) -> list[Json]:
    """What sets one label or annotation of an object, whether or not it has any."""
    has = (raw.get("metadata") or {}).get(section)
    path = pointer("metadata", section)
    first = [] if has else [{"op": "add", "path": path, "value": {}}]
    return [*first, {"op": "add", "path": path + pointer(key), "value": value}]


def drop_in(raw: Json, section: str, key: str) -> list[Json]:
    """What takes one label or annotation of an object away, if it is there."""
    if key not in ((raw.get("metadata") or {}).get(section) or {}):
        return []
    return [{"op": "remove", "path": pointer("metadata", section, key)}]


def settled(since: datetime, now: datetime, after_s: float) -> bool:
    """Whether so long has passed that a controller which does not agree would have shown it."""
    return (now - since).total_seconds() >= after_s


def _no(why: str) -> None:
    raise InvalidRequestError(f"node_id: {why}")
