"""Creates, updates, patches, applies and deletes, each as the API server does it."""

import copy
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from interlock_servers.transports.kube.embedded import objects
from interlock_servers.transports.kube.embedded.managers import (
    Manager,
    apply,
    note_update,
    same_books,
    without_books,
)
from interlock_servers.transports.kube.embedded.patches import (
    json_patch,
    merge_patch,
    strategic_patch,
)
from interlock_servers.transports.kube.embedded.registry import CRDS, Registry
from interlock_servers.transports.kube.embedded.requests import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    WriteOptions,
    parse,
)
from interlock_servers.transports.kube.embedded.resources import Resource
from interlock_servers.transports.kube.embedded.schema import undeclared
from interlock_servers.transports.kube.embedded.statuses import (
    ApiError,
    Cause,
    already_exists,
    bad_request,
    conflict,
    details_of,
    forbidden,
    invalid,
    not_found,
    unsupported_media,
)
from interlock_servers.transports.kube.embedded.store import Entry, Key, Store, decode
from interlock_tools.clock import Clock

Json = dict[str, Any]
_DONE: Final = ("Succeeded", "Failed")
CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"  # held until its objects are gone


class Writer:
    """What writes to one store."""

    def __init__(self, store: Store, registry: Registry, clock: Clock) -> None:
        self._store, self._registry, self._clock = store, registry, clock

    def now(self) -> str:
        """This moment, as metadata writes it."""
        return objects.written(self._clock.now())

    def read(self, resource: Resource, key: Key) -> Json:
        """The object as it is stored.

        Raises:
            ApiError: 404.
        """
        return decode(resource.prefix, self.entry(resource, key))

    def entry(self, resource: Resource, key: Key) -> Entry:
        """What is stored under this key.

        Raises:
            ApiError: 404.
        """
        found = self._store.table(resource.key).entries.get(key)
        if found is None:
            raise not_found(resource.group, resource.plural, key[1])
        return found

    # --- create ---

    def create(self, resource: Resource, namespace: str, body: Any, options: WriteOptions) -> Json:
        """The new object; of a dry run, the one that would have been made."""
        value = objects.admit(resource, body)
        return self._begin(resource, namespace, None, value, options)

    def _begin(
        self,
        resource: Resource,
        namespace: str,
        name: str | None,
        value: Json,
        options: WriteOptions,
        *,
        noted: bool = False,
    ) -> Json:
        if value["metadata"].get("resourceVersion"):
            message = "resourceVersion should not be set on objects to be created"
            raise ApiError(500, "", message)
        key = objects.place(resource, value, namespace, name)
        if resource.namespaced:
            self._check_namespace(resource, *key)
        now = self.now()
        objects.begin(resource, value, now)
        objects.refuse_invalid(resource, value)
        if key in self._store.table(resource.key).entries:
            raise already_exists(resource.group, resource.plural, key[1])
        if not noted:
            manager = Manager(options.manager, "Update", resource.api_version)
            note_update(None, value, resource.schema, manager, now)
        self._keep(resource, key, value, options)
        return value

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        found = self._store.table("/namespaces").entries.get(("", namespace))
        if found is None:
            raise not_found("", "namespaces", namespace)
        if found.deleting:
            said = f"namespace {namespace} is being terminated"
            why = f"unable to create new content in namespace {namespace} because it is being"
            why = f"{why} terminated"
            refusal = forbidden(resource.group, resource.plural, name, why)
            cause = Cause("metadata.namespace", "NamespaceTerminating", said)
            refusal.status["details"]["causes"] = [cause.as_json()]
            raise refusal

    def load(self, resource: Resource, value: Json) -> None:
        """Store an object as it is given, status included, and without books; for bulk."""
        value = objects.admit(resource, value)
        status = value.get("status")
        key = objects.place(resource, value, value["metadata"].get("namespace", ""), None)
        objects.begin(resource, value, self.now())
        if status is not None:
            value["status"] = {**(value.get("status") or {}), **status}
        objects.refuse_invalid(resource, value)
        if key in self._store.table(resource.key).entries:
            raise already_exists(resource.group, resource.plural, key[1])
        self._keep(resource, key, value, WriteOptions("load"))

    # --- change ---

    def replace(
        self, resource: Resource, key: Key, subresource: str, body: Any, options: WriteOptions
    ) -> Json:
        """The object after a PUT."""
        old = self.read(resource, key)
        value = objects.admit(resource, body)
        return self._change(resource, key, old, value, subresource, options)

    def patch(
        self,
        resource: Resource,
        key: Key,
        subresource: str,
        media: str,
        raw: bytes,
        options: WriteOptions,
    ) -> tuple[Json, bool]:
        """The object after a PATCH, and whether that made it."""
        accepted = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
        if not resource.custom:
            accepted.insert(2, STRATEGIC_PATCH)
        if media not in accepted:
            raise unsupported_media(accepted)
        given = parse(raw, yaml_too=media == APPLY_PATCH)
        if media == APPLY_PATCH:
            return self._apply(resource, key, subresource, given, options)
        old = self.read(resource, key)
        if media == JSON_PATCH:
            patched = json_patch(old, given)
        elif not isinstance(given, dict):
            raise bad_request("a merge patch is an object")
        elif media == MERGE_PATCH:
            patched = merge_patch(copy.deepcopy(old), given)
        else:
            patched = strategic_patch(copy.deepcopy(old), given, resource.schema)
        value = objects.admit(resource, patched)
        return self._change(resource, key, old, value, subresource, options), False

    def _apply(
        self, resource: Resource, key: Key, subresource: str, given: Any, options: WriteOptions
    ) -> tuple[Json, bool]:
        if not isinstance(given, dict):
            raise bad_request("an applied object is an object")
        version = given.get("apiVersion", "")
        if version != resource.api_version:
            raise bad_request(
                "Incorrect version specified in apply patch. "
                f"Specified patch version: {version}, expected: {resource.api_version}"
            )
        if (given.get("metadata") or {}).get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        for path in undeclared(given, resource.schema):
            message = f"failed to create typed patch object: {path}: field not declared in schema"
            raise ApiError(500, "", message)
        config = objects.admit(resource, given)
        entry = self._store.table(resource.key).entries.get(key)
        if entry is None and subresource:
            raise not_found(resource.group, resource.plural, key[1])
        if resource.status:  # each half is applied where it is written
            kept = ("kind", "apiVersion", "metadata", "status")
            config = {
                k: v for k, v in config.items() if (k in kept if subresource else k != "status")
            }
        by = Manager(options.manager, "Apply", resource.api_version, subresource)
        objects.place(resource, config, key[0], key[1])
        version_given = config["metadata"].pop("resourceVersion", None)
        if entry is None:
            if version_given is not None:
                raise conflict(resource.group, resource.plural, key[1])
            made = apply(None, config, resource.schema, by, self.now(), force=options.force)
            return self._begin(resource, key[0], key[1], made, options, noted=True), True
        old = decode(resource.prefix, entry)
        merged = apply(old, config, resource.schema, by, self.now(), force=options.force)
        if version_given is not None:
            merged["metadata"]["resourceVersion"] = version_given
        return self._change(resource, key, old, merged, subresource, options, noted=True), False

    def _change(
        self,
        resource: Resource,
        key: Key,
        old: Json,
        value: Json,
        subresource: str,
        options: WriteOptions,
        *,
        noted: bool = False,
    ) -> Json:
        objects.place(resource, value, *key)
        self._check_versions(resource, old, value)
        now, books = self.now(), value["metadata"].get("managedFields")
        if subresource == "status":
            value = objects.only_status(resource, old, value)
        else:
            objects.carry_over(resource, old, value)
            objects.complete(resource, value, now)
        objects.refuse_invalid(resource, value, old)
        if noted:
            value["metadata"].pop("managedFields", None)
            if books:
                value["metadata"]["managedFields"] = books
        else:
            by = Manager(options.manager, "Update", resource.api_version, subresource)
            note_update(old, value, resource.schema, by, now)
        if same_books(old, value) and without_books(value) == without_books(old):
            return old
        if objects.finished(value):
            if not options.dry_run:
                self._store.remove(resource.key, key, value)
            return value
        self._keep(resource, key, value, options)
        return value

    def _check_versions(self, resource: Resource, old: Json, value: Json) -> None:
        """Refuse an update of an object that is no longer what the caller had read."""
        metadata, before = value["metadata"], old["metadata"]
        name = before["name"]
        version = metadata.get("resourceVersion") or ""
        if version and not version.isdigit():
            message = f'strconv.ParseUint: parsing "{version}": invalid syntax'
            raise ApiError(500, "", message)
        if not version and resource.custom:
            cause = Cause(
                "metadata.resourceVersion",
                "FieldValueInvalid",
                "Invalid value: 0x0: must be specified for an update",
            )
            raise invalid(resource.group, resource.plural, name, [cause])
        if version and version != before["resourceVersion"]:
            raise conflict(resource.group, resource.plural, name)
        uid = metadata.get("uid")
        if uid and uid != before["uid"]:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: "
            why = f"{why}{before['uid']}"
            raise conflict(resource.group, resource.plural, name, why)

    def _keep(self, resource: Resource, key: Key, value: Json, options: WriteOptions) -> None:
        if options.dry_run:
            value["metadata"].pop("resourceVersion", None)
            return
        self._store.put(resource.key, key, value, objects.fields_of(resource, value))
        if resource.key == CRDS:
            self._registry.define(value)

    # --- delete ---

    def delete(
        self, resource: Resource, key: Key, options: Mapping[str, Any], *, dry_run: bool = False
    ) -> Json:
        """What is answered to a DELETE: the object where it stays for now, else a Status."""
        value = self.read(resource, key)
        self._check_preconditions(resource, value, options.get("preconditions") or {})
        metadata = value["metadata"]
        grace_s = self._grace_s(resource, value, options)
        policy = options.get("propagationPolicy")
        finalizers = list(metadata.get("finalizers") or ())
        for name, wanted in (
            ("orphan", policy == "Orphan"),
            ("foregroundDeletion", policy == "Foreground"),
        ):
            if wanted and name not in finalizers and "deletionTimestamp" not in metadata:
                finalizers.append(name)
        if resource.key == CRDS and CLEANUP not in finalizers:
            finalizers.append(CLEANUP)
        if finalizers:
            metadata["finalizers"] = finalizers
        stays = bool(finalizers) or grace_s > 0 or resource.key == "/namespaces"
        if stays:
            return self._mark(resource, key, value, grace_s, dry_run=dry_run)
        if resource.key == "/pods":
            metadata.setdefault("deletionTimestamp", self.now())
            metadata["deletionGracePeriodSeconds"] = 0
        if not dry_run:
            self._store.remove(resource.key, key, value)
        if resource.key in ("/pods", "/serviceaccounts"):
            return value
        details = details_of(resource.group, resource.plural, key[1], uid=metadata["uid"])
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details,
        }

    def _mark(
        self, resource: Resource, key: Key, value: Json, grace_s: int, *, dry_run: bool
    ) -> Json:
        metadata = value["metadata"]
        if "deletionTimestamp" in metadata and grace_s >= metadata.get(
            "deletionGracePeriodSeconds", 0
        ):
            return value
        ends = self._clock.now() + timedelta(seconds=grace_s)
        metadata["deletionTimestamp"] = objects.written(ends)
        if resource.key == "/namespaces":
            value["status"] = {**(value.get("status") or {}), "phase": "Terminating"}
        else:
            metadata["deletionGracePeriodSeconds"] = grace_s
        if "generation" in metadata:
            metadata["generation"] += 1
        if not dry_run:
            self._store.put(resource.key, key, value, objects.fields_of(resource, value))
        return value

    def _grace_s(self, resource: Resource, value: Json, options: Mapping[str, Any]) -> int:
        if resource.key != "/pods":
            return 0
        spec = value["spec"]
        if not spec.get("nodeName") or (value.get("status") or {}).get("phase") in _DONE:
            return 0
        asked = options.get("gracePeriodSeconds")
        return int(spec.get("terminationGracePeriodSeconds", 30) if asked is None else asked)

    def _check_preconditions(
        self, resource: Resource, value: Json, wanted: Mapping[str, Any]
    ) -> None:
        for field, said in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            if wanted.get(field) and wanted[field] != value["metadata"][field]:
                why = (
                    f"Precondition failed: {said} in precondition: {wanted[field]}, "
                    f"{said} in object meta: {value['metadata'][field]}"
                )
                raise conflict(resource.group, resource.plural, value["metadata"]["name"], why)
