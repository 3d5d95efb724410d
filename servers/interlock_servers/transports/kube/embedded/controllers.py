"""What follows from writes: garbage collection, ends of namespaces and definitions, budgets.

They run behind the requests, as kube-controller-manager does; nothing else of it is here: no jobs,
no deployments, no nodes that fall silent.
"""

import json
from typing import Any

import anyio
import anyio.lowlevel

from interlock_servers.transports.kube.embedded.budgets import BudgetCounter
from interlock_servers.transports.kube.embedded.registry import CRDS, Registry
from interlock_servers.transports.kube.embedded.requests import MERGE_PATCH, WriteOptions
from interlock_servers.transports.kube.embedded.resources import Resource
from interlock_servers.transports.kube.embedded.store import Change, Entry, Key, Store, decode
from interlock_servers.transports.kube.embedded.writes import CLEANUP, Writer

Json = dict[str, Any]
Place = tuple[str, Key]
_BY = WriteOptions("kube-controller-manager")
_BACKGROUND: Json = {"propagationPolicy": "Background"}


class Controllers:
    """The controllers of one store."""

    def __init__(self, store: Store, registry: Registry, writer: Writer) -> None:
        self._store, self._registry, self._writer = store, registry, writer
        self._orphans: set[Place] = set()  # whose owners have to be looked for
        self._ending: set[Place] = set()  # deleted, and held by something of ours
        self._budgets = BudgetCounter(store, registry, writer)
        self._wake = anyio.Event()
        store.observers.append(self._observe)

    def _observe(self, resource_key: str, change: Change) -> None:
        entry, place = change.entry, (resource_key, change.entry.key)
        if change.deleted:
            self._orphans |= self._store.owned.get(entry.uid, set())
        elif entry.owners and (change.previous is None or change.previous.owners != entry.owners):
            self._orphans.add(place)
        if entry.deleting and not change.deleted:
            self._ending.add(place)
        self._budgets.observe(resource_key, change)
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            self.step()
            await anyio.lowlevel.checkpoint()

    def step(self) -> None:
        """Do what can be done now."""
        orphans, self._orphans = self._orphans, set()
        for place in orphans:
            self._collect(place)
        for place in list(self._ending):
            self._end(place)
        self._budgets.step()

    # --- garbage ---

    def _collect(self, place: Place) -> None:
        resource, entry = self._find(place)
        if resource is None or entry is None or not entry.owners:
            return
        if not any(uid in self._store.by_uid for uid in entry.owners):
            self._delete(resource, entry.key, _BACKGROUND)

    def _end(self, place: Place) -> None:
        resource, entry = self._find(place)
        if resource is None or entry is None:
            self._ending.discard(place)
            return
        value = decode(resource.prefix, entry)
        finalizers = value["metadata"].get("finalizers") or ()
        if resource.key == "/namespaces":
            self._end_namespace(resource, entry, value)
        elif CLEANUP in finalizers:
            self._end_definition(resource, entry, value)
        elif "foregroundDeletion" in finalizers:
            waiting = self._dependents(entry.uid)
            for dependent, key in waiting:
                self._delete(dependent, key, {"propagationPolicy": "Foreground"})
            if not self._dependents(entry.uid):
                self._release(resource, entry, finalizers, "foregroundDeletion")
        elif "orphan" in finalizers:
            for dependent, key in self._dependents(entry.uid):
                owned = self._writer.read(dependent, key)["metadata"]["ownerReferences"]
                kept = [each for each in owned if each["uid"] != entry.uid]
                self._patch(dependent, key, {"metadata": {"ownerReferences": kept or None}})
            self._release(resource, entry, finalizers, "orphan")
        else:
            self._ending.discard(place)

    def _end_namespace(self, resource: Resource, entry: Entry, value: Json) -> None:
        left = False
        for inner in self._registry.stored().values():
            if inner.namespaced:
                for each in self._store.table(inner.key).within(entry.key[1]):
                    if not each.deleting:
                        self._delete(inner, each.key, _BACKGROUND)
                left = left or bool(self._store.table(inner.key).within(entry.key[1]))
        if not left and not value["metadata"].get("finalizers"):
            value["spec"] = {}
            self._store.remove(resource.key, entry.key, value)

    def _end_definition(self, resource: Resource, entry: Entry, value: Json) -> None:
        spec = value["spec"]
        key = f"{spec['group']}/{spec['names']['plural']}"
        inner = self._registry.stored().get(key)
        if inner is not None:
            for each in self._store.table(key).within(None):
                if not each.deleting:
                    self._delete(inner, each.key, _BACKGROUND)
        if not self._store.table(key).entries:
            self._registry.withdraw(value)
            finalizers = [f for f in value["metadata"]["finalizers"] if f != CLEANUP]
            if not finalizers:
                self._store.remove(CRDS, entry.key, value)

    def _dependents(self, uid: str) -> list[tuple[Resource, Key]]:
        stored = self._registry.stored()
        return [
            (stored[resource_key], key)
            for resource_key, key in sorted(self._store.owned.get(uid, ()))
            if resource_key in stored
        ]

    def _release(self, resource: Resource, entry: Entry, finalizers: Any, name: str) -> None:
        kept = [each for each in finalizers if each != name]
        self._patch(resource, entry.key, {"metadata": {"finalizers": kept or None}})

    def _delete(self, resource: Resource, key: Key, options: Json) -> None:
        found = self._store.table(resource.key).entries.get(key)
        if found is not None and not found.deleting:
            self._writer.delete(resource, key, options)

    def _patch(self, resource: Resource, key: Key, patch: Json, subresource: str = "") -> None:
        raw = json.dumps(patch).encode()
        self._writer.patch(resource, key, subresource, MERGE_PATCH, raw, _BY)

    def _find(self, place: Place) -> tuple[Resource | None, Entry | None]:
        resource_key, key = place
        table = self._store.table(resource_key)
        return self._registry.stored().get(resource_key), table.entries.get(key)
