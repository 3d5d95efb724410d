"""fault-quarantine: fatal events cordon a node, healthy ones give it back, a breaker stops both.

It works through the stored events in order, some seconds after each; a node that somebody uncordons
meanwhile is left to him.
"""

import json
import math
from collections import deque
from datetime import datetime, timedelta
from typing import Final

from interlock_servers.nvsentinel import twin_names as names
from interlock_servers.nvsentinel.twin_cluster import Cluster, Json
from interlock_servers.nvsentinel.twin_events import (
    ALREADY,
    CANCELLED,
    QUARANTINED,
    UNQUARANTINED,
    EventStore,
    Record,
    annotation,
    clears,
    without,
)
from interlock_servers.nvsentinel.twin_raw import note, unlabel, unnote
from interlock_servers.nvsentinel.twin_rules import RuleSet, parse_rules
from interlock_servers.transports.kube.kinds import CONFIG_MAPS, DEPLOYMENTS, NODES
from interlock_tools.errors import ConflictError, InvalidRequestError

BY: Final = "fault-quarantine"
CLOSED, TRIPPED = "CLOSED", "TRIPPED"
WINDOW_S: Final = 300.0
SHARE: Final = 0.5  # of the GPU nodes, cordoned within the window


class Breaker:
    """The circuit breaker. A module reads its state when it starts, and from then on keeps its own.

    So a person who sets the ConfigMap back to `CLOSED` has to restart the module as well.
    """

    def __init__(self, cluster: Cluster, share: float = SHARE, window_s: float = WINDOW_S) -> None:
        self._cluster = cluster
        self._share, self._window_s = share, window_s
        self._cordons: dict[str, datetime] = {}
        self._state = CLOSED

    async def stops(self) -> bool:
        """Whether nothing may be done; trips where too many nodes were cordoned lately."""
        if self._state == TRIPPED:
            return True
        since = self._cluster.now - timedelta(seconds=self._window_s)
        self._cordons = {node: at for node, at in self._cordons.items() if at >= since}
        gpu_nodes = sum(
            (raw["metadata"].get("labels") or {}).get(names.GPU_PRESENT) == "true"
            for raw in self._cluster.all(NODES)
        )
        if not gpu_nodes or len(self._cordons) < math.ceil(gpu_nodes * self._share):
            return False
        await self.trip()
        return True

    def cordoned(self, node: str) -> None:
        """Count a cordon; a node counts once."""
        self._cordons[node] = self._cluster.now

    async def trip(self) -> None:
        """Stop everything, until a person sets it back and restarts the module."""
        self._state = TRIPPED
        await self._write(status=TRIPPED)

    async def restart(self) -> bool:
        """Read the ConfigMap, as a start does; whether what waits shall be passed over."""
        data = self._data()
        self._state, self._cordons = str(data.get("status", CLOSED)), {}
        if data.get("cursor") != "CREATE":
            return False
        await self._write(cursor="RESUME")
        return True

    async def _write(self, **data: str) -> None:
        found = self._cluster.mirrors[CONFIG_MAPS].get(names.BREAKER_MAP, names.SPACE)
        if found is not None:
            await self._cluster.update(
                CONFIG_MAPS, found, lambda raw: raw.setdefault("data", {}).update(data), by=BY
            )

    def _data(self) -> Json:
        found = self._cluster.mirrors[CONFIG_MAPS].get(names.BREAKER_MAP, names.SPACE)
        return (found or {}).get("data") or {}


class FaultQuarantine:
    """Cordons and uncordons.

    Attributes:
        breaker: its circuit breaker.
        errors: what was wrong with rules, newest last.
    """

    def __init__(
        self, cluster: Cluster, store: EventStore, breaker: Breaker, *, delay_s: float
    ) -> None:
        self._cluster, self._store, self.breaker = cluster, store, breaker
        self._delay = timedelta(seconds=delay_s)
        self._rules: tuple[str, list[RuleSet]] = ("", [])
        self._started = ""
        self.errors: deque[str] = deque(maxlen=50)

    async def reconcile(self) -> None:
        """See who was uncordoned by hand, then take the events whose moment has come, in order."""
        quarantined = {record.event.node for record in self._store.active()}
        await self._cluster.each(sorted(quarantined), self._see_override, by=BY)
        await self._see_restart()
        for record in self._store.unread():
            if record.at + self._delay > self._cluster.now or await self.breaker.stops():
                return
            try:
                await self._take(record)
            except ConflictError:
                return  # the node changed meanwhile; events are taken in order, so all wait

    async def _see_restart(self) -> None:
        """After a rollout restart with the cursor at `CREATE`, what waits is passed over."""
        found = self._cluster.mirrors[DEPLOYMENTS].get(BY, names.SPACE)
        template = ((found or {}).get("spec") or {}).get("template") or {}
        notes = (template.get("metadata") or {}).get("annotations") or {}
        started = str(notes.get("kubectl.kubernetes.io/restartedAt", ""))
        if started == self._started:
            return
        self._started = started
        if await self.breaker.restart():
            for record in self._store.unread():
                self._pass(record)

    # ── events ────────────────────────────────────────────────────────────────────────────────

    async def _take(self, record: Record) -> None:
        """Decide about one event."""
        node = self._cluster.node(record.event.node)
        if node is None or record.event.skip_quarantine:
            self._pass(record)
        elif record.event.is_healthy:
            await self._give_back(record, node)
        else:
            await self._quarantine(record, node)

    async def _quarantine(self, record: Record, node: Json) -> None:
        rules = self._matching(record, node)
        if not rules and not record.event.force_quarantine:
            self._pass(record)
            return
        notes = node["metadata"].get("annotations") or {}
        stored = json.loads(notes.get(names.EVENTS, "[]"))
        told = record.event.as_json(record.at, record.event_id)
        if stored:
            value = annotation([*stored, told])
            await self._cluster.update(
                NODES, node, lambda raw: note(raw, {names.EVENTS: value}), by=BY
            )
            record.quarantined = ALREADY
            return
        if not any(rule.cordons or rule.taint for rule in rules) and rules:
            self._pass(record)
            return
        was_cordoned = bool((node.get("spec") or {}).get("unschedulable"))
        reason = rules[0].name if rules else record.event.message
        await self._cluster.update(
            NODES, node, lambda raw: self._cordon(raw, rules, reason, [told]), by=BY
        )
        record.quarantined = QUARANTINED
        if not was_cordoned:
            self.breaker.cordoned(record.event.node)

    def _cordon(self, raw: Json, rules: list[RuleSet], reason: str, events: list[Json]) -> None:
        spec = raw.setdefault("spec", {})
        notes = {names.EVENTS: annotation(events), names.IS_CORDONED: "True"}
        if spec.get("unschedulable"):
            notes[names.PRE_EXISTING] = "True"
        spec["unschedulable"] = True
        taints = [
            {key: rule.taint[key] for key in ("key", "value", "effect")}
            for rule in rules
            if rule.taint
        ]
        if taints:
            spec["taints"] = [*spec.get("taints", []), *taints]
            notes[names.APPLIED_TAINTS] = json.dumps(
                [{"Key": t["key"], "Value": t["value"], "Effect": t["effect"]} for t in taints]
            )
        labels = {rule.label["key"]: rule.label["value"] for rule in rules if rule.label}
        if labels:
            notes[names.APPLIED_LABELS] = json.dumps(labels)
        unnote(raw, (names.UNCORDONED_MANUALLY, names.UNTAINTED_MANUALLY))
        note(raw, notes)
        unlabel(raw, [f"{names.PREFIX}uncordon-{part}" for part in ("by", "reason", "timestamp")])
        raw["metadata"].setdefault("labels", {}).update(
            {
                **labels,
                names.STATE: names.QUARANTINED,
                f"{names.PREFIX}cordon-by": names.BY,
                f"{names.PREFIX}cordon-reason": _value(reason),
                f"{names.PREFIX}cordon-timestamp": self._cluster.now.strftime(names.STAMP),
            }
        )

    async def _give_back(self, record: Record, node: Json) -> None:
        event = record.event
        notes = node["metadata"].get("annotations") or {}
        stored = json.loads(notes.get(names.EVENTS, "[]"))
        left = [
            rest
            for one in stored
            if (rest := without(one, event.entities) if clears(event, one) else one) is not None
        ]
        if left == stored:
            self._pass(record)
            return
        if left:
            await self._cluster.update(
                NODES, node, lambda raw: note(raw, {names.EVENTS: annotation(left)}), by=BY
            )
        else:
            await self._cluster.update(NODES, node, self._uncordon, by=BY)
        alive = {one.get("id") for one in left}
        for other in self._store.active(event.node):
            if other.event_id not in alive:
                other.quarantined = UNQUARANTINED
                self._store.close(other)
        record.quarantined = UNQUARANTINED
        self._store.close(record)

    def _uncordon(self, raw: Json) -> None:
        notes = raw["metadata"].get("annotations") or {}
        spec = raw["spec"]
        if names.PRE_EXISTING not in notes:
            spec.pop("unschedulable", None)
        applied = json.loads(notes.get(names.APPLIED_TAINTS, "[]"))
        keys = {(taint["Key"], taint["Value"], taint["Effect"]) for taint in applied}
        taints = [
            taint
            for taint in spec.get("taints", [])
            if (taint["key"], taint.get("value", ""), taint["effect"]) not in keys
        ]
        spec.pop("taints", None)
        if taints:
            spec["taints"] = taints
        unlabel(raw, list(json.loads(notes.get(names.APPLIED_LABELS, "{}"))))
        unnote(raw, (*names.QUARANTINE, names.REMEDIATION_STATE))
        unlabel(
            raw,
            [names.STATE]
            + [f"{names.PREFIX}cordon-{part}" for part in ("by", "reason", "timestamp")],
        )
        raw["metadata"].setdefault("labels", {}).update(
            {
                f"{names.PREFIX}uncordon-by": names.BY,
                f"{names.PREFIX}uncordon-reason": "All-health-checks-passed",
                f"{names.PREFIX}uncordon-timestamp": self._cluster.now.strftime(names.STAMP),
            }
        )

    # ── people ────────────────────────────────────────────────────────────────────────────────

    async def _see_override(self, name: str) -> None:
        """Where somebody else uncordoned the node or took our taint away, it is his."""
        node = self._cluster.node(name)
        if node is None:
            for record in self._store.active(name):
                self._store.close(record)
            return
        notes = node["metadata"].get("annotations") or {}
        if names.IS_CORDONED not in notes:
            return
        spec = node.get("spec") or {}
        applied = json.loads(notes.get(names.APPLIED_TAINTS, "[]"))
        there = {(taint["key"], taint["effect"]) for taint in spec.get("taints", [])}
        untainted = any((taint["Key"], taint["Effect"]) not in there for taint in applied)
        if spec.get("unschedulable") and not untainted:
            return
        manual = names.UNTAINTED_MANUALLY if untainted else names.UNCORDONED_MANUALLY

        def change(raw: Json) -> None:
            unnote(raw, names.QUARANTINE)
            note(raw, {manual: "True"})
            unlabel(raw, [names.STATE])

        await self._cluster.update(NODES, node, change, by=BY)
        for record in self._store.active(name):
            record.quarantined = CANCELLED

    # ── rules ─────────────────────────────────────────────────────────────────────────────────

    def _matching(self, record: Record, node: Json) -> list[RuleSet]:
        """The rule sets for this event; one that cannot be read is for none."""
        found = self._cluster.mirrors[CONFIG_MAPS].get(names.RULES_MAP, names.SPACE)
        text = str(((found or {}).get("data") or {}).get("config.toml", ""))
        if text != self._rules[0]:
            try:
                self._rules = (text, parse_rules(text))
            except InvalidRequestError as error:
                self.errors.append(str(error))
                self._rules = (text, [])
        matching = []
        for rules in self._rules[1]:
            try:
                if rules.matches(record.event.as_cel(), node):
                    matching.append(rules)
            except InvalidRequestError as error:
                self.errors.append(str(error))
        return matching

    def _pass(self, record: Record) -> None:
        record.quarantined = ""
        self._store.close(record)


def _value(text: str) -> str:
    """A label's value: at most 63 characters of those that one may have."""
    kept = "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in text)
    return kept[:63].strip("-_.")
