"""What is kept of a cluster: nodes, pods, requests, modules; frozen, and nothing raw in it.

Every name and message is text of the plant: it is data, and is fenced where it is shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

NOTHING: Final[Mapping[str, str]] = {}


class Condition(NamedTuple):
    """One condition of a node or a request; `status` is `True`, `False` or `Unknown`."""

    type: str
    status: str
    reason: str
    message: str
    since: datetime | None


class HealthEvent(NamedTuple):
    """One of the events that keep a node quarantined, as its annotation tells it.

    Attributes:
        action: what NVSentinel recommends; `UNKNOWN` where it does not say.
        entities: what it is about, as (`GPU_UUID`, `GPU-…`).
    """

    check: str
    agent: str
    component: str
    is_fatal: bool | None
    action: str
    codes: tuple[str, ...]
    entities: tuple[tuple[str, str], ...]
    message: str
    event_id: str


class Quarantine(NamedTuple):
    """What NVSentinel's annotations on a node say.

    Attributes:
        events: None where the annotation cannot be read; `why` then says why.
        cordoned: it says that it cordoned the node.
        pre_existing: somebody had cordoned it before, so that it stays cordoned afterwards.
        taints: whether it applied some.
    """

    events: tuple[HealthEvent, ...] | None
    why: str
    cordoned: bool
    pre_existing: bool
    taints: bool


class CordonedBy(StrEnum):
    """Whose a cordon is."""

    NOBODY = "nobody"
    NVSENTINEL = "nvsentinel"
    SOMEBODY = "somebody_else"
    BEFORE = "somebody_else_before_nvsentinel"


@dataclass(frozen=True, slots=True)
class Node:
    """One node.

    Attributes:
        ready: None where its kubelet does not say.
        faults: conditions of health monitors that show a fault.
        healthy: those that show none; `unsure` those that say neither.
        cordon_writers: who wrote `spec.unschedulable`, newest first; None where nobody knows.
        gpus: how many its kubelet offers.
        labels: those that anybody here reads.
    """

    name: str
    uid: str
    ready: bool | None
    ready_since: datetime | None
    boot_id: str
    cordoned: bool
    faults: tuple[Condition, ...]
    healthy: tuple[str, ...]
    unsure: tuple[str, ...]
    quarantine: Quarantine | None
    stage: str | None
    cordoned_at: datetime | None
    by_hand: bool
    opted_out: tuple[str, ...]
    opted_out_by: str | None
    released: bool
    bootstrapped: bool
    remediation: tuple[str, ...]
    cordon_writers: tuple[str, ...] | None
    gpus: int
    rack: str | None
    nvlink_domain: str | None
    created_at: datetime | None

    @property
    def cordoned_by(self) -> CordonedBy:
        """Whose the cordon is; without NVSentinel's own annotation it is not NVSentinel's."""
        if not self.cordoned:
            return CordonedBy.NOBODY
        if self.quarantine is None:
            return CordonedBy.SOMEBODY
        if self.quarantine.pre_existing:
            return CordonedBy.BEFORE
        return CordonedBy.NVSENTINEL if self.quarantine.cordoned else CordonedBy.SOMEBODY

    @property
    def calm(self) -> bool:
        """Whether there is nothing to say about it."""
        return (
            self.ready is True
            and not self.faults
            and not self.unsure
            and not self.cordoned
            and self.quarantine is None
            and self.stage is None
            and not self.opted_out
        )


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod.

    Attributes:
        job: what it works for, as `Job/name`, of its namespace.
        gpus: how many it asks for.
        devices: which GPUs it has, by UUID; None where nobody wrote that down.
        bound: a DaemonSet's or a static one: it belongs to its node and no drain removes it.
        ended: it has run to its end.
        restarts: of its containers, added up.
    """

    namespace: str
    name: str
    node: str
    job: str
    gang: str | None
    gpus: int
    devices: tuple[str, ...] | None
    bound: bool
    ended: bool
    leaving_since: datetime | None
    restarts: int
    labels: Mapping[str, str] = field(default_factory=dict)


class Outcome(StrEnum):
    """How a request stands, by its own conditions."""

    OPEN = "open"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"  # it says that it ended, and not how


@dataclass(frozen=True, slots=True)
class Request:
    """One custom resource that asks NVSentinel, its janitor or somebody outside for something.

    Attributes:
        nodes: whom it is about.
        wants: what it asks for, in a word or two: a recommended action, `2 GPUs`, `all GPUs`.
        change_id: of ours, where we made it.
        leaving_since: it is deleted, and something still holds it.
    """

    kind: str
    name: str
    uid: str
    nodes: tuple[str, ...]
    wants: str
    outcome: Outcome
    phase: str | None
    conditions: tuple[Condition, ...]
    created_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    leaving_since: datetime | None
    change_id: str | None
    skipped: tuple[str, ...] = ()

    def condition(self, kind: str) -> Condition | None:
        """Its condition of this type, if it has one."""
        return next((one for one in self.conditions if one.type == kind), None)

    def says(self, kind: str) -> str:
        """The status of one of its conditions; `Unknown` where it has none."""
        found = self.condition(kind)
        return "Unknown" if found is None else found.status


class Budget(NamedTuple):
    """One PodDisruptionBudget."""

    namespace: str
    name: str
    labels: Mapping[str, str] | None  # None: a selector that is more than labels
    allowed: int | None


@dataclass(frozen=True, slots=True)
class Module:
    """One Deployment in NVSentinel's namespace.

    Attributes:
        version: the tag of its image.
        dry_run, breaker: as its arguments say; None where they do not.
        rolled_out: whether what runs is what its Deployment says.
    """

    name: str
    wanted: int
    ready: int
    version: str | None
    dry_run: bool | None
    breaker: bool | None
    rolled_out: bool
    restarted_for: str | None


class Past(NamedTuple):
    """One event that NVSentinel wrote about a node; `key` tells it from others."""

    key: str
    at: datetime | None
    node: str
    type: str
    reason: str
    message: str
    source: str
    times: int
