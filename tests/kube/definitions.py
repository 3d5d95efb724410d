"""CustomResourceDefinitions: one of our own, and those of real components where they are given."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kube.asking import CRDS, Json, Kube, eventually

VARIABLE = "INTERLOCK_CONTRACTS"
WIDGETS = "/apis/test.example/v1/widgets"


def widget_definition() -> Json:
    """A definition with everything that a schema can ask for and our components use."""
    spec = {
        "type": "object",
        "required": ["size"],
        "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 8},
            "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"},
            "serial": {"type": "string", "pattern": "^W-[0-9]+$", "maxLength": 8},
            "replicas": {"type": "integer", "default": 1},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "ports": {
                "type": "array",
                "maxItems": 3,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string"},
                        "port": {"type": "integer", "default": 80},
                    },
                },
            },
        },
    }
    status = {
        "type": "object",
        "properties": {"phase": {"type": "string"}, "replicas": {"type": "integer"}},
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {
            "openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}
        },
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
            },
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.test.example"},
        "spec": {
            "group": "test.example",
            "scope": "Cluster",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [version],
        },
    }


def definitions(component: str = "*") -> Iterator[Json]:
    """The definitions that a component ships, ready for any server; skips where there are none."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} is not set: no definitions of real components")
    files = sorted(Path(folder).glob(f"crds/{component}/*.yaml"))
    assert files, f"{VARIABLE} holds no crds/{component}/*.yaml"
    for file in files:
        for document in yaml.load_all(file.read_bytes(), Loader=yaml.CSafeLoader):
            if document:
                _drop_empty_defaults(document)
                yield document


def _drop_empty_defaults(schema: Any) -> None:
    """Take out `default: ""`, which 1.20 refuses, and require a list's keys that lose it."""
    if isinstance(schema, list):
        for each in schema:
            _drop_empty_defaults(each)
    if not isinstance(schema, dict):
        return
    keys, items = schema.get("x-kubernetes-list-map-keys"), schema.get("items")
    if isinstance(keys, list) and isinstance(items, dict):
        properties = items.get("properties") or {}
        lost = [key for key in keys if (properties.get(key) or {}).get("default") == ""]
        if lost:
            items["required"] = [*(items.get("required") or ()), *lost]
    if schema.get("default") == "" and "type" in schema:
        del schema["default"]
    for each in schema.values():
        _drop_empty_defaults(each)


async def define(kube: Kube, definition: Json) -> None:
    """Serve a definition, if it is not served yet; it is established and listed afterwards."""
    made = await kube.http.post(CRDS, json=definition)
    assert made.status_code in (201, 409), made.text
    spec, name = definition["spec"], definition["metadata"]["name"]
    served = next(each["name"] for each in spec["versions"] if each["served"])
    path = f"/apis/{spec['group']}/{served}/{spec['names']['plural']}"

    async def ready() -> bool:
        told = (await kube.get(f"{CRDS}/{name}")).get("status", {}).get("conditions") or ()
        established = any(e["type"] == "Established" and e["status"] == "True" for e in told)
        return established and (await kube.http.get(path)).status_code == 200

    await eventually(ready)
