"""The scale subresource: one number of an object, in the same shape for every kind."""

import json
from typing import Any

from interlock_servers.transports.kube.embedded import patches
from interlock_servers.transports.kube.embedded.requests import (
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    WriteOptions,
    parse,
)
from interlock_servers.transports.kube.embedded.resources import Resource, ScalePaths
from interlock_servers.transports.kube.embedded.selectors import selector_text
from interlock_servers.transports.kube.embedded.statuses import (
    Cause,
    bad_request,
    invalid,
    unsupported_media,
)
from interlock_servers.transports.kube.embedded.store import Key
from interlock_servers.transports.kube.embedded.writes import Writer

Json = dict[str, Any]


def scale_of(value: Json, paths: ScalePaths) -> Json:
    """The Scale of an object."""
    names = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    metadata = {name: value["metadata"][name] for name in names if name in value["metadata"]}
    wanted = _at(value, paths.replicas)
    status: Json = {"replicas": _at(value, paths.observed) or 0}
    if paths.selector:
        text = _at(value, paths.selector) if paths.selector != "." else None
    else:
        text = selector_text(value["spec"].get("selector"))
    if text:
        status["selector"] = text
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": wanted} if wanted else {},
        "status": status,
    }


def rescale(
    writer: Writer,
    resource: Resource,
    key: Key,
    media: str | None,
    raw: bytes,
    options: WriteOptions,
) -> Json:
    """The Scale after a PUT (no `media`) or a PATCH.

    Raises:
        ApiError: 409, the object has changed; 415; 422, no number of replicas.
    """
    paths = resource.scale or ScalePaths()
    value = writer.read(resource, key)
    before, given = scale_of(value, paths), parse(raw)
    if media is None:
        after = given
    elif media == JSON_PATCH:
        after = patches.json_patch(before, given)
    elif media in (MERGE_PATCH, STRATEGIC_PATCH):
        after = patches.merge_patch(before, given)
    else:
        raise unsupported_media((JSON_PATCH, MERGE_PATCH))
    if not isinstance(after, dict):
        raise bad_request("a Scale is an object")
    replicas = (after.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise bad_request("Scale.spec.replicas: expected an integer")
    if replicas < 0:
        cause = Cause.invalid("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid("autoscaling", "Scale", key[1], [cause])
    *way, last = paths.replicas.strip(".").split(".")
    node = value
    for part in way:
        node = node.setdefault(part, {})
    node[last] = replicas
    given_version = (after.get("metadata") or {}).get("resourceVersion")
    if given_version:
        value["metadata"]["resourceVersion"] = given_version
    changed = writer.replace(resource, key, "", json.loads(json.dumps(value)), options)
    return scale_of(changed, paths)


def _at(value: Any, path: str) -> Any:
    for part in path.strip(".").split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
