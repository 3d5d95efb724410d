"""Which resources are served now, and what the discovery documents say of them.

Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from interlock_servers.transports.kube.embedded.resources import Resource, custom_resource
from interlock_servers.transports.kube.embedded.statuses import Cause

Json = dict[str, Any]
CRDS: Final = "apiextensions.k8s.io/customresourcedefinitions"
_VERSION: Final = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


class Registry:
    """The resources of one server, by group, version and plural name."""

    def __init__(self, built_in: Iterable[Resource]) -> None:
        self._found = {(each.group, each.version, each.plural): each for each in built_in}

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource, where it is served."""
        return self._found.get((group, version, plural))

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        """The resource of this kind, where it is served."""
        group, _, version = api_version.rpartition("/")
        return next((r for r in self.of(group, version) if r.kind == kind and not r.review), None)

    def of(self, group: str, version: str) -> Iterator[Resource]:
        """The resources of one version of a group."""
        return (r for r in self._found.values() if (r.group, r.version) == (group, version))

    def stored(self) -> dict[str, Resource]:
        """One version of each resource that is stored."""
        return {each.key: each for each in self._found.values() if not each.review}

    def define(self, definition: Json) -> None:
        """Serve what a CustomResourceDefinition declares, as it now stands."""
        self.withdraw(definition)
        for version in definition["spec"]["versions"]:
            if version["served"]:
                made = custom_resource(definition, version)
                self._found[made.group, made.version, made.plural] = made

    def withdraw(self, definition: Json) -> list[Resource]:
        """Serve it no longer; what was served."""
        spec = definition["spec"]
        gone = [k for k in self._found if (k[0], k[2]) == (spec["group"], spec["names"]["plural"])]
        return [self._found.pop(key) for key in gone]

    def groups(self) -> list[Json]:
        """Every named group, for `/apis`."""
        versions: dict[str, list[str]] = {}
        for group, version, _ in self._found:
            if group and version not in versions.setdefault(group, []):
                versions[group].append(version)
        return [_group(name, sorted(each, key=_rank)) for name, each in versions.items()]

    def group(self, name: str) -> Json | None:
        """One group, for `/apis/NAME`."""
        found = next((each for each in self.groups() if each["name"] == name), None)
        return None if found is None else {"kind": "APIGroup", "apiVersion": "v1", **found}

    def resources(self, group: str, version: str) -> Json | None:
        """The resources of a version, for `/apis/NAME/VERSION`; None where it is not served."""
        policies = sorted((v for g, v, _ in self._found if g == "policy"), key=_rank)
        eviction = policies[0] if policies else "v1"
        found = (_described(each, eviction) for each in self.of(group, version))
        listed = [described for each in found for described in each]
        if not listed:
            return None
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": listed,
        }


def _rank(version: str) -> tuple[int, int, int]:
    """Stable before beta before alpha, newer before older."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return 3, 0, 0
    major, stage, minor = found.groups()
    return {None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0)


def _group(name: str, versions: list[str]) -> Json:
    listed = [{"groupVersion": f"{name}/{each}", "version": each} for each in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _described(resource: Resource, eviction: str) -> Iterator[Json]:
    whole: Json = {
        "name": resource.plural,
        "singularName": resource.singular or resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        whole["shortNames"] = list(resource.short_names)
    if resource.categories:
        whole["categories"] = list(resource.categories)
    yield whole
    below = {"singularName": "", "namespaced": resource.namespaced}
    if resource.plural == "pods" and not resource.group:
        yield {
            "name": "pods/eviction",
            **below,
            "group": "policy",
            "version": eviction,
            "kind": "Eviction",
            "verbs": ["create"],
        }
    changed = ["get", "patch", "update"]
    if resource.scale is not None:
        yield {
            "name": f"{resource.plural}/scale",
            **below,
            "group": "autoscaling",
            "version": "v1",
            "kind": "Scale",
            "verbs": changed,
        }
    if resource.status:
        yield {
            "name": f"{resource.plural}/status",
            **below,
            "kind": resource.kind,
            "verbs": changed,
        }


def complete_definition(definition: Json, now: str) -> None:
    """Fill in a CustomResourceDefinition what the server does: names, conversion, status."""
    spec = definition["spec"]
    names = spec["names"]
    names.setdefault("singular", names.get("kind", "").lower())
    names.setdefault("listKind", f"{names.get('kind', '')}List")
    spec.setdefault("conversion", {"strategy": "None"})
    stored = [each["name"] for each in spec.get("versions") or () if each.get("storage")]
    status = definition.get("status") or {}
    old = status.get("storedVersions") or []
    told = (
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    )
    definition["status"] = {
        "conditions": status.get("conditions")
        or [
            {
                "type": kind,
                "status": "True",
                "lastTransitionTime": now,
                "reason": reason,
                "message": message,
            }
            for kind, reason, message in told
        ],
        "acceptedNames": dict(names),
        "storedVersions": [*old, *(each for each in stored if each not in old)],
    }


def check_definition(definition: Json) -> Iterator[Cause]:
    """What is wrong with a CustomResourceDefinition."""
    spec = definition.get("spec") or {}
    names, group = spec.get("names") or {}, spec.get("group") or ""
    if definition["metadata"].get("name") != f"{names.get('plural', '')}.{group}":
        says = 'must be spec.names.plural+"."+spec.group'
        yield Cause.invalid("metadata.name", definition["metadata"].get("name"), says)
    for field in ("plural", "kind"):
        if not names.get(field):
            yield Cause.required(f"spec.names.{field}")
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        yield Cause.unsupported("spec.scope", spec.get("scope", ""), ("Cluster", "Namespaced"))
    versions = spec.get("versions") or ()
    if sum(bool(each.get("storage")) for each in versions) != 1:
        says = "must have exactly one version marked as storage version"
        yield Cause.invalid("spec.versions", "versions", says)
    for number, version in enumerate(versions):
        at = f"spec.versions[{number}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            yield Cause.required(at, "schemas are required")
        else:
            if schema.get("type") != "object":
                yield Cause.invalid(
                    f"{at}.type", schema.get("type", ""), "must be object at the root"
                )
            yield from _structural(schema, at)


def _structural(schema: Json, path: str, *, root: bool = True) -> Iterator[Cause]:
    loose = schema.get("x-kubernetes-int-or-string") or schema.get(
        "x-kubernetes-preserve-unknown-fields"
    )
    if not schema.get("type") and not loose:
        yield Cause.required(f"{path}.type", "must not be empty for specified object fields")
    if schema.get("type") == "array" and not isinstance(schema.get("items"), dict):
        yield Cause.required(f"{path}.items", "must be specified")
    for name, inner in (schema.get("properties") or {}).items():
        if not (root and name in ("apiVersion", "kind", "metadata")):
            yield from _structural(inner, f"{path}.properties[{name}]", root=False)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _structural(schema[name], f"{path}.{name}", root=False)


def has_expressions(schema: Any) -> bool:
    """Whether a schema holds CEL rules, which are accepted here and not evaluated."""
    if isinstance(schema, dict):
        return "x-kubernetes-validations" in schema or any(map(has_expressions, schema.values()))
    return isinstance(schema, list) and any(map(has_expressions, schema))
