"""One object on its way into the store: decoded, pruned, completed, checked, and indexed."""

import copy
import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from interlock_servers.transports.kube.embedded.model_schema import check_types
from interlock_servers.transports.kube.embedded.names import check_metadata
from interlock_servers.transports.kube.embedded.registry import (
    CRDS,
    check_definition,
    complete_definition,
)
from interlock_servers.transports.kube.embedded.resources import Resource
from interlock_servers.transports.kube.embedded.rules import check, fill_in
from interlock_servers.transports.kube.embedded.schema import (
    Schema,
    child,
    items_of,
    prune,
    set_defaults,
    validate,
)
from interlock_servers.transports.kube.embedded.statuses import Cause, bad_request, invalid

Json = dict[str, Any]
_SUFFIX: Final = "bcdfghjklmnpqrstvwxz2456789"  # as generated names use: no words, no look-alikes


def written(moment: datetime) -> str:
    """A moment as metadata writes it: whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def admit(resource: Resource, body: Any) -> Json:
    """The object in a body, with its kind, without members that nobody declares.

    Raises:
        ApiError: 400, it is of another kind, or a member is of another type.
    """
    kind = resource.kind
    if not isinstance(body, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {kind})")
    if resource.custom and not body.get("kind"):
        raise bad_request(
            f'{kind} in version "{resource.version}" cannot be handled as a {kind}: '
            "Object 'Kind' is missing"
        )
    given, version = body.get("kind") or kind, body.get("apiVersion") or resource.api_version
    if (given, version) != (kind, resource.api_version):
        raise bad_request(
            f'{given} in version "{version.rpartition("/")[2]}" cannot be handled as a {kind}: '
            f"expected {kind} in {resource.api_version}"
        )
    pruned = prune(body, resource.schema, root=resource.custom)
    value: Json = {"kind": kind, "apiVersion": resource.api_version, **pruned}
    value["kind"], value["apiVersion"] = kind, resource.api_version
    metadata = value.get("metadata")
    value["metadata"] = (
        prune(metadata, resource.schema["properties"]["metadata"]) if metadata else {}
    )
    if resource.custom:
        checked = {"metadata": value["metadata"]}
        metadata_schema = {"properties": {"metadata": resource.schema["properties"]["metadata"]}}
        check_types(checked, {"type": "object", **metadata_schema}, kind, resource.version)
    else:
        check_types(value, resource.schema, kind, resource.version)
        value = tidy(value, resource.schema)
        value.setdefault("metadata", {})
    return value


def tidy(value: Any, schema: Schema) -> Any:
    """The value without members that built-in kinds do not write: null, empty lists and maps."""
    if isinstance(value, list):
        return [tidy(each, items_of(schema)) for each in value]
    if not isinstance(value, dict):
        return value
    done = {}
    for key, each in value.items():
        inner = child(schema, key)
        listed = isinstance(each, list) or "additionalProperties" in inner
        if each is not None and (each or not listed):
            done[key] = tidy(each, inner)
    return done


def place(resource: Resource, value: Json, namespace: str, name: str | None) -> tuple[str, str]:
    """The key of an object, which agrees with the path; a name is made where one is asked for.

    Raises:
        ApiError: 400, object and path name different things.
    """
    metadata = value["metadata"]
    if resource.namespaced:
        if metadata.setdefault("namespace", namespace) != namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )
    else:
        metadata.pop("namespace", None)
    if name is None:
        if not metadata.get("name") and (prefix := metadata.get("generateName")):
            metadata["name"] = prefix + "".join(secrets.choice(_SUFFIX) for _ in range(5))
    elif metadata.setdefault("name", name) != name:
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL "
            f"({name})"
        )
    return metadata.get("namespace", ""), metadata.get("name", "")


def begin(resource: Resource, value: Json, now: str) -> None:
    """Give a new object what only the server gives, and its defaults."""
    metadata = value["metadata"]
    for name in (
        "resourceVersion",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ):
        metadata.pop(name, None)
    metadata["uid"], metadata["creationTimestamp"] = str(uuid.uuid4()), now
    if resource.generation:
        metadata["generation"] = 1
    if resource.custom and resource.status:
        value.pop("status", None)
    complete(resource, value, now, new=True)


def complete(resource: Resource, value: Json, now: str, *, new: bool = False) -> None:
    """Fill in defaults."""
    if resource.custom_schema is not None:
        set_defaults(value, resource.custom_schema)
    elif resource.key == CRDS:
        if isinstance((value.get("spec") or {}).get("names"), dict):
            complete_definition(value, now)
    else:
        fill_in(resource.kind, value, new=new)


def carry_over(resource: Resource, old: Json, value: Json) -> None:
    """Keep of the old object what an update cannot change, and count its generation."""
    metadata, before = value["metadata"], old["metadata"]
    for name in (
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ):
        metadata.pop(name, None)
        if name in before:
            metadata[name] = before[name]
    if resource.status:
        value.pop("status", None)
        if "status" in old:
            value["status"] = old["status"]
    if not resource.generation:
        return
    ignored = {"metadata", "status", "kind", "apiVersion"}
    wanted = {key: each for key, each in value.items() if key not in ignored}
    if wanted != {key: each for key, each in old.items() if key not in ignored}:
        metadata["generation"] = before.get("generation", 0) + 1


def refuse_invalid(resource: Resource, value: Json, old: Json | None = None) -> None:
    """Return where the object keeps to every rule.

    Raises:
        ApiError: 422, with a cause for each rule that it breaks.
    """
    metadata = value["metadata"]
    causes = list(check_metadata(metadata, resource.kind))
    if old is not None and "deletionTimestamp" in old["metadata"]:
        known = old["metadata"].get("finalizers") or ()
        added = [each for each in metadata.get("finalizers") or () if each not in known]
        if added:
            listed = ", ".join(f'"{each}"' for each in added)
            says = "no new finalizers can be added if the object is being deleted, found new "
            causes.append(
                Cause.forbidden("metadata.finalizers", f"{says}finalizers []string{{{listed}}}")
            )
    if resource.custom_schema is not None:
        body = {key: each for key, each in value.items() if key != "metadata"}
        causes += validate(body, resource.custom_schema)
    elif resource.key == CRDS:
        causes += check_definition(value)
    elif not causes or value.get("spec") is not None:
        causes += check(resource.kind, value, old)
    if causes:
        raise invalid(resource.group, resource.kind, metadata.get("name", ""), causes)


def fields_of(resource: Resource, value: Mapping[str, Any]) -> dict[str, str]:
    """What field selectors are asked about."""
    found = {}
    for field in resource.fields:
        node: Any = value
        for part in field.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        if isinstance(node, bool):
            found[field] = str(node).lower()
        elif isinstance(node, (str, int)):
            found[field] = str(node)
        elif field == "spec.unschedulable":
            found[field] = "false"
    return found


def only_status(resource: Resource, old: Json, value: Json) -> Json:
    """What a write to the status subresource changes; of built-in kinds also the metadata."""
    changed = copy.deepcopy(old)
    if "status" in value:
        changed["status"] = value["status"]
    else:
        changed.pop("status", None)
    if resource.custom:
        return changed
    kept = {
        name: old["metadata"][name]
        for name in (
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
        )
        if name in old["metadata"]
    }
    changed["metadata"] = {**value["metadata"], **kept}
    return changed


def finished(value: Json) -> bool:
    """Whether nothing holds a deleted object any more."""
    metadata = value["metadata"]
    held = metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds", 0)
    return "deletionTimestamp" in metadata and not held and value["kind"] != "Namespace"
