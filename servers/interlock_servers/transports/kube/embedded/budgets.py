"""How many pods each disruption budget lets go: counted again when something about it changes.

Source: https://kubernetes.io/docs/tasks/run-application/configure-pdb/
"""

import json
import math
from typing import Any

from interlock_servers.transports.kube.embedded.eviction import BUDGETS, budgets_in, is_ready
from interlock_servers.transports.kube.embedded.registry import Registry
from interlock_servers.transports.kube.embedded.requests import MERGE_PATCH, WriteOptions
from interlock_servers.transports.kube.embedded.resources import Resource
from interlock_servers.transports.kube.embedded.scale import scale_of
from interlock_servers.transports.kube.embedded.selectors import object_selector
from interlock_servers.transports.kube.embedded.store import Change, Entry, Key, Store, decode
from interlock_servers.transports.kube.embedded.writes import Writer

Json = dict[str, Any]
_BY = WriteOptions("kube-controller-manager")


class BudgetCounter:
    """Counts the budgets of one store; it remembers which pods each covers."""

    def __init__(self, store: Store, registry: Registry, writer: Writer) -> None:
        self._store, self._registry, self._writer = store, registry, writer
        self._moved: dict[str, set[Key]] = {}  # namespace: pods that changed
        self._changed: set[Key] = set()  # budgets that did
        self._covered: dict[Key, tuple[Json | None, set[Key]]] = {}  # by selector, of a budget
        self._health: dict[Key, tuple[int, bool]] = {}

    def observe(self, resource_key: str, change: Change) -> None:
        """Take note of a change."""
        key = change.entry.key
        if resource_key == "/pods":
            self._moved.setdefault(key[0], set()).add(key)
            if change.deleted:
                self._health.pop(key, None)
        elif resource_key == BUDGETS:
            (self._changed.discard if change.deleted else self._changed.add)(key)
            if change.deleted:
                self._covered.pop(key, None)

    def step(self) -> None:
        """Count what has to be counted again."""
        moved, self._moved = self._moved, {}
        changed, self._changed = self._changed, set()
        resource = self._registry.stored().get(BUDGETS)
        if resource is None:
            return
        for namespace in sorted({*moved, *(key[0] for key in changed)}):
            for entry, budget in list(budgets_in(self._store, namespace)):
                touched = self._cover(entry.key, budget, moved.get(namespace, set()))
                if touched or entry.key in changed:
                    self._count(resource, entry.key, budget)

    def _cover(self, key: Key, budget: Json, moved: set[Key]) -> bool:
        """Bring up to date which pods it covers; whether one of them moved."""
        selector, pods = budget["spec"].get("selector"), self._store.table("/pods")
        test, known = object_selector(selector), self._covered.get(key)
        if known is None or known[0] != selector:
            covered = {each.key for each in pods.within(key[0]) if test(each.labels)}
            self._covered[key] = selector, covered
            return True
        covered, touched = known[1], False
        for each in moved:
            entry, before = pods.entries.get(each), each in covered
            now = entry is not None and test(entry.labels)
            touched = touched or before or now
            (covered.add if now else covered.discard)(each)
        return touched

    def _count(self, resource: Resource, key: Key, budget: Json) -> None:
        spec, status = budget["spec"], budget["status"]
        table = self._store.table("/pods")
        pods = [table.entries[each] for each in self._covered[key][1]]
        there = {each.key[1] for each in pods}
        before = status.get("disruptedPods", {})
        disrupted = {name: at for name, at in before.items() if name in there}
        healthy = sum(self._is_healthy(e) and e.key[1] not in disrupted for e in pods)
        expected = self._expected(pods)
        if "maxUnavailable" in spec:
            desired = max(0, expected - _amount(spec["maxUnavailable"], expected))
        elif isinstance(spec.get("minAvailable"), str):
            desired = _amount(spec["minAvailable"], expected)
        else:
            desired, expected = spec.get("minAvailable", 0), len(pods)
        gone = {name: None for name in before if name not in disrupted}
        counted = {
            "observedGeneration": budget["metadata"]["generation"],
            "disruptionsAllowed": max(0, healthy - desired) if expected else 0,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
            "disruptedPods": {**disrupted, **gone} if disrupted else None,
        }
        patch = json.dumps({"status": counted}).encode()
        self._writer.patch(resource, key, "status", MERGE_PATCH, patch, _BY)

    def _is_healthy(self, entry: Entry) -> bool:
        known = self._health.get(entry.key)
        if known is None or known[0] != entry.version:
            known = entry.version, is_ready(decode(b"{", entry))
            self._health[entry.key] = known
        return known[1]

    def _expected(self, pods: list[Entry]) -> int:
        """How many pods their controllers want; who has none, or one without a scale, is none."""
        owners = {uid for entry in pods for uid in entry.owners[:1]}
        return sum(self._replicas(uid) for uid in owners)

    def _replicas(self, uid: str) -> int:
        resource_key, key = self._store.by_uid.get(uid, ("", ("", "")))
        resource = self._registry.stored().get(resource_key)
        if resource is None or resource.scale is None:
            return 0
        value = self._writer.read(resource, key)
        return int(scale_of(value, resource.scale)["spec"].get("replicas", 0))


def _amount(given: int | str, whole: int) -> int:
    if isinstance(given, int):
        return given
    return math.ceil(int(given.rstrip("%")) * whole / 100)
