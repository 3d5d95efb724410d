"""Schemas of built-in kinds, read from the models that the Kubernetes client ships.

The models name every field and its type. Which lists merge by a key they do not say: that is in
the table here, from the `x-kubernetes-list-map-keys` and `x-kubernetes-patch-merge-key` of the
API's own OpenAPI document. A node's taints are none: a patch replaces them whole.
"""

import re
from functools import cache
from typing import Any, Final

from kubernetes.client import models

from interlock_servers.transports.kube.embedded.schema import ANYTHING, Schema
from interlock_servers.transports.kube.embedded.statuses import bad_request

# Lists that are maps, by the model and its field: their keys.
_KEYED: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("V1ObjectMeta", "ownerReferences"): ("uid",),
    ("V1PodSpec", "containers"): ("name",),
    ("V1PodSpec", "initContainers"): ("name",),
    ("V1PodSpec", "ephemeralContainers"): ("name",),
    ("V1PodSpec", "volumes"): ("name",),
    ("V1PodSpec", "imagePullSecrets"): ("name",),
    ("V1PodSpec", "hostAliases"): ("ip",),
    ("V1PodSpec", "topologySpreadConstraints"): ("topologyKey", "whenUnsatisfiable"),
    ("V1Container", "env"): ("name",),
    ("V1Container", "ports"): ("containerPort", "protocol"),
    ("V1Container", "volumeMounts"): ("mountPath",),
    ("V1Container", "volumeDevices"): ("devicePath",),
    ("V1PodStatus", "podIPs"): ("ip",),
    ("V1NodeStatus", "addresses"): ("type",),
    ("V1ServiceAccount", "secrets"): ("name",),
    ("V1ServiceAccount", "imagePullSecrets"): ("name",),
}
_SETS: Final = {("V1ObjectMeta", "finalizers"), ("V1NodeSpec", "podCIDRs")}
_QUANTITIES: Final = {"limits", "requests", "capacity", "allocatable", "overhead", "hard"}
_SCALARS: Final = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "datetime": "string",
    "date": "string",
}


@cache
def schema_of(model: str) -> Schema:
    """The schema of one model; what is JSON of any shape is anything."""
    kind = getattr(models, model)
    if model == "V1JSONSchemaProps":  # it holds itself
        return {"type": "object", **ANYTHING}
    properties: dict[str, Any] = {}
    for attribute, written in kind.openapi_types.items():
        field = kind.attribute_map[attribute]
        found = dict(_typed(written, quantity=field in _QUANTITIES))
        keys = _KEYED.get((model, field))
        if field == "conditions" and found.get("type") == "array":
            keys = ("type",)
        if keys is not None:
            found["x-kubernetes-list-type"] = "map"
            found["x-kubernetes-list-map-keys"] = list(keys)
            found["x-kubernetes-patch-merge-key"] = keys[0]
        elif (model, field) in _SETS:
            found["x-kubernetes-list-type"] = "set"
        properties[field] = found
    whole: dict[str, Any] = {"type": "object", "properties": properties}
    if model in ("V1LabelSelector", "V1NodeSelector", "V1ObjectReference"):
        whole["x-kubernetes-map-type"] = "atomic"
    return whole


def _typed(written: str, *, quantity: bool = False) -> Schema:
    if (listed := re.fullmatch(r"[Ll]ist\[(.+)\]", written)) is not None:
        return {"type": "array", "items": _typed(listed.group(1))}
    if (mapped := re.fullmatch(r"[Dd]ict\[str, (.+)\]", written)) is not None:
        inner = {"x-kubernetes-int-or-string": True} if quantity else _typed(mapped.group(1))
        return {"type": "object", "additionalProperties": inner}
    if written in _SCALARS:
        return {"type": _SCALARS[written]}
    return schema_of(written) if hasattr(models, written) else ANYTHING


def check_types(value: Any, schema: Schema, kind: str, version: str, path: str = "") -> None:
    """Refuse what the API server could not decode into its own types; null is left out there.

    Raises:
        ApiError: 400, with the path of the value.
    """
    wanted = schema.get("type")
    if value is None or wanted is None:
        return
    if isinstance(value, dict) and wanted == "object":
        declared, more = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, each in value.items():
            inner = declared.get(key, more)
            if isinstance(inner, dict):
                check_types(each, inner, kind, version, f"{path}.{key}")
        return
    if isinstance(value, list) and wanted == "array":
        for each in value:
            check_types(each, schema["items"], kind, version, f"{path}[]")
        return
    fits: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "boolean": (bool,),
        "integer": (int,),
        "number": (int, float),
    }
    if not isinstance(value, fits.get(wanted, ())) or (
        isinstance(value, bool) and wanted != "boolean"
    ):
        raise bad_request(
            f'{kind} in version "{version}" cannot be handled as a {kind}: '
            f"{path.lstrip('.')}: expected {wanted}, found {type(value).__name__}"
        )
