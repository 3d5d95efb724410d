"""Raw objects of the API server as what is kept of them; what cannot be read raises.

A fault is a condition of a health monitor with status `True`: the opposite of `Ready`. Which types
there are is not fixed (policies name their own), so everything outside the kubelet's own set counts
whose reason says `IsNotHealthy` or `IsHealthy`.
"""

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

from interlock_servers.nvsentinel import names
from interlock_servers.nvsentinel.events import action_of, read_events
from interlock_servers.nvsentinel.models import (
    Budget,
    Condition,
    Module,
    Node,
    Outcome,
    Past,
    Pod,
    Quarantine,
    Request,
)
from interlock_servers.nvsentinel.settings import NvsentinelSettings
from interlock_servers.plant_text import plant_text, plant_words
from interlock_servers.transports.kube.connection import Json
from interlock_servers.transports.kube.owners import writers_of

_KUBELETS: Final = frozenset(
    {"Ready", "MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"}
)
_JUDGED: Final = ("IsNotHealthy", "IsHealthy")
_GPU_UUID: Final = re.compile(r"GPU-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PCI: Final = re.compile(r"\b[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-9a-fA-F]\b")
MESSAGE_CHARS: Final = 1024  # NVSentinel's own limit; it is fenced where it is shown
_LABEL_TIME: Final = "%Y-%m-%dT%H-%M-%SZ"
_GANGS: Final = ("pod-group-name", "scheduling.k8s.io/group-name")


class Reading:
    """Reads objects as the settings of one deployment say."""

    def __init__(self, settings: NvsentinelSettings) -> None:
        self._settings = settings
        self._is_gpu = re.compile(settings.gpu_resources).fullmatch
        self._system = re.compile(settings.system_namespaces)

    def is_system(self, namespace: str) -> bool:
        """Whether pods of this namespace are nobody's work."""
        return self._system.match(namespace) is not None

    def node(self, raw: Json) -> Node:
        """One node."""
        about, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
        labels, notes = about.get("labels") or {}, about.get("annotations") or {}
        conditions = [_condition(one) for one in status.get("conditions") or ()]
        ready = next((one for one in conditions if one.type == "Ready"), None)
        judged = [one for one in conditions if _is_judged(one)]
        cordoned = spec.get("unschedulable") is True
        writers = writers_of(raw, ("spec", "unschedulable"))
        prefix = self._settings.label_prefix
        settings = self._settings
        return Node(
            name=str(about["name"]),
            uid=str(about.get("uid") or ""),
            ready={"True": True, "False": False}.get(ready.status) if ready else None,
            ready_since=ready.since if ready else None,
            boot_id=str((status.get("nodeInfo") or {}).get("bootID") or ""),
            cordoned=cordoned,
            faults=tuple(one for one in judged if one.status == "True"),
            healthy=tuple(one.type for one in judged if one.status == "False"),
            unsure=tuple(one.type for one in judged if one.status not in {"True", "False"}),
            quarantine=_quarantine(notes),
            stage=labels.get(names.STATE),
            cordoned_at=_label_time(labels.get(f"{prefix}cordon-timestamp")),
            by_hand="True"
            in (notes.get(names.UNCORDONED_BY_HAND), notes.get(names.UNTAINTED_BY_HAND)),
            opted_out=tuple(
                key
                for key in (names.NOT_QUARANTINED, names.NOT_MANAGED)
                if labels.get(key) == "false"
            ),
            opted_out_by=notes.get(names.CHANGE),
            released=any(t.get("key") == names.RELEASE_TAINT for t in spec.get("taints") or ()),
            bootstrapped=names.BOOTSTRAPPED in notes,
            remediation=_remediation(notes.get(names.REMEDIATION)),
            cordon_writers=None if writers is None else tuple(w.manager for w in writers),
            gpus=self._gpus(status.get("capacity") or {}),
            rack=labels.get(settings.rack_label) if settings.rack_label else None,
            nvlink_domain=labels.get(settings.nvlink_label) if settings.nvlink_label else None,
            created_at=moment(about.get("creationTimestamp")),
        )

    def pod(self, raw: Json) -> Pod:
        """One pod, without its labels: there may be forty thousand."""
        return self._pod(raw, labels=False)

    def pod_whole(self, raw: Json) -> Pod:
        """One pod, with its labels."""
        return self._pod(raw, labels=True)

    def _pod(self, raw: Json, *, labels: bool) -> Pod:
        about, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
        notes, tags = about.get("annotations") or {}, about.get("labels") or {}
        owners = about.get("ownerReferences") or ()
        owner = next((o for o in owners if o.get("controller")), owners[0] if owners else None)
        job = f"Pod/{about['name']}" if owner is None else f"{owner['kind']}/{owner['name']}"
        devices = notes.get(names.DEVICES)
        gang = next(
            (notes.get(key) or tags.get(key) for key in _GANGS if key in notes | tags), None
        )
        states = status.get("containerStatuses") or ()
        return Pod(
            namespace=str(about["namespace"]),
            name=str(about["name"]),
            node=str(spec.get("nodeName") or ""),
            job=job,
            gang=gang,
            gpus=sum(self._asked(one) for one in spec.get("containers") or ()),
            devices=None if devices is None else tuple(sorted(set(gpu_uuids(devices)))),
            bound=job.startswith("DaemonSet/") or "kubernetes.io/config.mirror" in notes,
            ended=status.get("phase") in {"Succeeded", "Failed"},
            leaving_since=moment(about.get("deletionTimestamp")),
            restarts=sum(int(one.get("restartCount") or 0) for one in states),
            labels=dict(tags) if labels else {},
        )

    def _asked(self, container: Json) -> int:
        resources = container.get("resources") or {}
        return self._gpus({**(resources.get("requests") or {}), **(resources.get("limits") or {})})

    def _gpus(self, amounts: Json) -> int:
        return sum(int(str(n)) for name, n in amounts.items() if self._is_gpu(name))


def request_of(kind: str) -> Callable[[Json], Request]:
    """What reads the requests of one kind."""

    def read(raw: Json) -> Request:
        about, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
        conditions = tuple(_condition(one) for one in status.get("conditions") or ())
        completed_at = moment(status.get("completionTime"))
        phase = status.get("phase")
        event = {str(k).lower(): v for k, v in (spec.get("healthEvent") or {}).items()}
        skipped = (status.get("skipped") or {}).get("nodes") or ()
        return Request(
            kind=kind,
            name=str(about["name"]),
            uid=str(about.get("uid") or ""),
            nodes=_nodes(spec, event),
            wants=_wants(kind, spec, event),
            outcome=_outcome(kind, conditions, phase, completed_at),
            phase=None if phase is None else str(phase),
            conditions=conditions,
            created_at=moment(about.get("creationTimestamp")),
            started_at=moment(status.get("startTime")),
            completed_at=completed_at,
            leaving_since=moment(about.get("deletionTimestamp")),
            change_id=(about.get("annotations") or {}).get(names.CHANGE),
            skipped=tuple(map(str, skipped)),
        )

    return read


def module(raw: Json) -> Module:
    """One Deployment."""
    about, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    template = spec.get("template") or {}
    containers = (template.get("spec") or {}).get("containers") or ()
    arguments = [
        str(word)
        for one in containers
        for word in (*(one.get("command") or ()), *(one.get("args") or ()))
    ]
    image = str(containers[0].get("image") or "") if containers else ""
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    wanted = int(spec.get("replicas", 1))
    notes = (template.get("metadata") or {}).get("annotations") or {}
    return Module(
        name=str(about["name"]),
        wanted=wanted,
        ready=int(status.get("readyReplicas") or 0),
        version=tag or None,
        dry_run=_flag(arguments, "dry-run"),
        breaker=_flag(arguments, "circuit-breaker-enabled"),
        rolled_out=(
            int(status.get("observedGeneration") or 0) >= int(about.get("generation") or 0)
            and int(status.get("updatedReplicas") or 0) == wanted
            and int(status.get("availableReplicas") or 0) == wanted
            and int(status.get("replicas") or 0) == wanted
        ),
        restarted_for=notes.get(names.CHANGE),
    )


def past(raw: Json) -> Past:
    """One event about a node."""
    about = raw.get("involvedObject") or {}
    source = (raw.get("source") or {}).get("component") or raw.get("reportingComponent") or ""
    last = raw.get("lastTimestamp") or raw.get("eventTime") or raw.get("firstTimestamp")
    return Past(
        key=str(raw["metadata"]["name"]),
        at=moment(last),
        node=str(about.get("name") or ""),
        type=plant_text(str(raw.get("type") or "")),
        reason=plant_text(str(raw.get("reason") or "")),
        message=plant_words(str(raw.get("message") or "")),
        source=plant_text(str(source)),
        times=int(raw.get("count") or 1),
    )


def budget(raw: Json) -> Budget:
    """One disruption budget."""
    selector = (raw.get("spec") or {}).get("selector") or {}
    labels = None if selector.get("matchExpressions") else dict(selector.get("matchLabels") or {})
    allowed = (raw.get("status") or {}).get("disruptionsAllowed")
    about = raw["metadata"]
    return Budget(str(about["namespace"]), str(about["name"]), labels, allowed)


def gpu_uuids(text: str) -> list[str]:
    """Every GPU's UUID in a text, in its order."""
    return _GPU_UUID.findall(text)


def pci_ids(text: str) -> list[str]:
    """Every PCI address in a text, in its order."""
    return _PCI.findall(text)


def moment(text: Any) -> datetime | None:
    """A moment of the API server; None where there is none.

    Raises:
        ValueError: it is something else.
    """
    return None if text is None else datetime.fromisoformat(str(text))


def _condition(said: Json) -> Condition:
    return Condition(
        type=plant_text(str(said["type"])),
        status=str(said.get("status") or "Unknown")[:20],
        reason=plant_text(str(said.get("reason") or "")),
        message=str(said.get("message") or "")[:MESSAGE_CHARS],
        since=moment(said.get("lastTransitionTime")),
    )


def _is_judged(one: Condition) -> bool:
    return one.type not in _KUBELETS and one.reason.endswith(_JUDGED)


def _quarantine(notes: Json) -> Quarantine | None:
    text = notes.get(names.EVENTS)
    if not text:
        return None
    try:
        events, why = read_events(text), ""
    except ValueError as error:
        events, why = None, f"{names.EVENTS} cannot be read: {plant_words(str(error))}"
    return Quarantine(
        events,
        why,
        cordoned=notes.get(names.IS_CORDONED) == "True",
        pre_existing=notes.get(names.PRE_EXISTING) == "True",
        taints=bool(notes.get(names.TAINTS)),
    )


def _remediation(text: Any) -> tuple[str, ...]:
    """The names of the requests that fault-remediation says it made for a node."""
    return tuple(sorted(set(re.findall(r'"maintenanceCR"\s*:\s*"([^"]{1,253})"', str(text or "")))))


def _label_time(text: Any) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.strptime(f"{text}+0000", f"{_LABEL_TIME}%z")
    except ValueError:
        return None  # a label is anybody's text


def _nodes(spec: Json, event: Json) -> tuple[str, ...]:
    named: Iterable[Any] = [one.get("name") for one in spec.get("nodes") or ()]
    found = [spec.get("nodeName"), event.get("nodename"), *named]
    return tuple(str(one) for one in found if one)


def _wants(kind: str, spec: Json, event: Json) -> str:
    if kind == names.RESETS.kind:
        selector = spec.get("selector") or {}
        chosen = [*(selector.get("uuids") or ()), *(selector.get("pciBusIDs") or ())]
        return plant_words(" ".join(map(str, chosen))) if chosen else "all GPUs"
    if event:
        return action_of(event)
    if kind == names.VALIDATIONS.kind:
        return plant_words(" ".join(map(str, spec.get("tests") or ("its default tests",))))
    return "reboot" if kind == names.REBOOTS.kind else "termination"


_ENDS_WITH: Final = {
    names.REBOOTS.kind: "NodeReady",
    names.TERMINATIONS.kind: "NodeTerminated",
    names.RESETS.kind: "Complete",
}


def _outcome(
    kind: str, conditions: tuple[Condition, ...], phase: Any, completed_at: datetime | None
) -> Outcome:
    """By the request's own end, and by nothing else that looks like one."""
    if kind == names.MAINTENANCE.kind:
        return Outcome.OPEN  # it is there as long as the maintenance lasts
    status = {one.type: one.status for one in conditions}
    if kind == names.REPAIRS.kind:
        return Outcome.SUCCEEDED if status.get(names.REPAIRED) == "True" else Outcome.OPEN
    if kind == names.VALIDATIONS.kind or kind == names.RESETS.kind:
        if phase == "Failed":
            return Outcome.FAILED
        if kind == names.VALIDATIONS.kind:
            return Outcome.SUCCEEDED if phase == "Succeeded" else Outcome.OPEN
    if completed_at is None:
        return Outcome.OPEN
    ended = status.get(_ENDS_WITH[kind])
    if kind == names.RESETS.kind and phase != "Succeeded" and ended == "True":
        return Outcome.UNKNOWN
    return {"True": Outcome.SUCCEEDED, "False": Outcome.FAILED}.get(str(ended), Outcome.UNKNOWN)


def _flag(arguments: list[str], name: str) -> bool | None:
    """The last that the arguments say of a flag, as Go's `flag` reads it; None where nothing."""
    said: bool | None = None
    for word in arguments:
        key, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and key == name:
            said = value.lower() in {"true", "1", "t"} if equals else True
    return said
