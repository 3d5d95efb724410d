"""What an API server serves: its kinds, their versions, subresources and schemas."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from interlock_servers.transports.kube.embedded.model_schema import schema_of
from interlock_servers.transports.kube.embedded.schema import ANYTHING, Schema

NAMES: Final = frozenset({"metadata.name", "metadata.namespace"})
VERBS: Final = (
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
)


@dataclass(frozen=True)
class ScalePaths:
    """Where a scale subresource finds its numbers, as dotted paths."""

    replicas: str = ".spec.replicas"
    observed: str = ".status.replicas"
    selector: str = ""  # of a string; empty: the LabelSelector in `spec.selector`


@dataclass(frozen=True)
class Resource:
    """One resource in one version; versions of a resource share what is stored."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    model: str = ""  # the client's model of a built-in kind
    status: bool = False  # it has the subresource
    scale: ScalePaths | None = None
    generation: bool = False  # metadata.generation counts its specs
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    singular: str = ""
    list_kind: str = ""
    custom_schema: Schema | None = field(default=None, repr=False)
    fields: frozenset[str] = NAMES  # what can be selected by
    verbs: tuple[str, ...] = VERBS
    review: bool = False  # it is answered, and nothing is stored

    @cached_property
    def schema(self) -> Schema:
        """Of whole objects, metadata included."""
        if self.custom_schema is None:
            return schema_of(self.model)
        properties = dict(self.custom_schema.get("properties") or {})
        properties["metadata"] = schema_of("V1ObjectMeta")
        for name in ("apiVersion", "kind"):
            properties.setdefault(name, {"type": "string"})
        return {**self.custom_schema, "type": "object", "properties": properties}

    @property
    def custom(self) -> bool:
        """Whether a CustomResourceDefinition brought it."""
        return self.custom_schema is not None

    @property
    def api_version(self) -> str:
        """As objects write it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def key(self) -> str:
        """What is stored is found by this, whatever the version."""
        return f"{self.group}/{self.plural}"

    @cached_property
    def prefix(self) -> bytes:
        """How every object of it begins in JSON; the rest is kept once for all versions."""
        return f'{{"kind":"{self.kind}","apiVersion":"{self.api_version}",'.encode()


def custom_resource(definition: Mapping[str, Any], version: Mapping[str, Any]) -> Resource:
    """The resource that one version of a CustomResourceDefinition declares."""
    spec = definition["spec"]
    names, sub = spec["names"], version.get("subresources") or {}
    scale = sub.get("scale")
    selectable = {each["jsonPath"].lstrip(".") for each in version.get("selectableFields") or ()}
    return Resource(
        group=spec["group"],
        version=version["name"],
        plural=names["plural"],
        kind=names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        status="status" in sub,
        scale=None
        if scale is None
        else ScalePaths(
            scale["specReplicasPath"],
            scale["statusReplicasPath"],
            scale.get("labelSelectorPath") or ".",
        ),
        generation=True,
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        singular=names.get("singular") or names["kind"].lower(),
        list_kind=names.get("listKind") or f"{names['kind']}List",
        custom_schema=(version.get("schema") or {}).get("openAPIV3Schema") or ANYTHING,
        fields=NAMES | selectable,
    )


_POD_FIELDS: Final = NAMES | {
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
}
_EVENT_FIELDS: Final = NAMES | {
    *(
        f"involvedObject.{each}"
        for each in (
            "kind",
            "namespace",
            "name",
            "uid",
            "apiVersion",
            "resourceVersion",
            "fieldPath",
        )
    ),
    "reason",
    "type",
    "reportingComponent",
    "source",
}
_RBAC: Final = "rbac.authorization.k8s.io"
_AUTH: Final = "authorization.k8s.io"


def _budget(version: str) -> Resource:
    return Resource(
        "policy",
        version,
        "poddisruptionbudgets",
        "PodDisruptionBudget",
        True,
        "V1PodDisruptionBudget",
        short_names=("pdb",),
        status=True,
        generation=True,
    )


def built_in(policy_versions: tuple[str, ...] = ("v1",)) -> list[Resource]:
    """The kinds of a cluster without custom resources, in the order of its discovery."""
    core = ("", "v1")
    review = {"verbs": ("create",), "review": True}
    return [
        Resource(*core, "configmaps", "ConfigMap", True, "V1ConfigMap", short_names=("cm",)),
        Resource(
            *core, "events", "Event", True, "CoreV1Event", short_names=("ev",), fields=_EVENT_FIELDS
        ),
        Resource(
            *core,
            "namespaces",
            "Namespace",
            False,
            "V1Namespace",
            status=True,
            short_names=("ns",),
            fields=NAMES | {"status.phase"},
            verbs=tuple(verb for verb in VERBS if verb != "deletecollection"),
        ),
        Resource(
            *core,
            "nodes",
            "Node",
            False,
            "V1Node",
            status=True,
            short_names=("no",),
            fields=NAMES | {"spec.unschedulable"},
        ),
        Resource(
            *core,
            "pods",
            "Pod",
            True,
            "V1Pod",
            status=True,
            short_names=("po",),
            categories=("all",),
            fields=_POD_FIELDS,
        ),
        Resource(
            *core,
            "serviceaccounts",
            "ServiceAccount",
            True,
            "V1ServiceAccount",
            short_names=("sa",),
        ),
        *(
            Resource(
                "apps",
                "v1",
                plural,
                kind,
                True,
                f"V1{kind}",
                status=True,
                generation=True,
                scale=scale,
                short_names=(short,),
                categories=("all",),
            )
            for plural, kind, short, scale in (
                ("daemonsets", "DaemonSet", "ds", None),
                ("deployments", "Deployment", "deploy", ScalePaths()),
                ("replicasets", "ReplicaSet", "rs", ScalePaths()),
                ("statefulsets", "StatefulSet", "sts", ScalePaths()),
            )
        ),
        Resource(
            "batch",
            "v1",
            "jobs",
            "Job",
            True,
            "V1Job",
            status=True,
            generation=True,
            categories=("all",),
            fields=NAMES | {"status.successful"},
        ),
        *(_budget(version) for version in policy_versions),
        Resource("coordination.k8s.io", "v1", "leases", "Lease", True, "V1Lease"),
        Resource(
            _RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False, "V1ClusterRoleBinding"
        ),
        Resource(_RBAC, "v1", "clusterroles", "ClusterRole", False, "V1ClusterRole"),
        Resource(_RBAC, "v1", "rolebindings", "RoleBinding", True, "V1RoleBinding"),
        Resource(_RBAC, "v1", "roles", "Role", True, "V1Role"),
        *(
            Resource(_AUTH, "v1", f"{kind.lower()}s", kind, False, f"V1{kind}", **review)  # type: ignore[arg-type]
            for kind in ("SelfSubjectAccessReview", "SubjectAccessReview")
        ),
        Resource(
            "apiextensions.k8s.io",
            "v1",
            "customresourcedefinitions",
            "CustomResourceDefinition",
            False,
            "V1CustomResourceDefinition",
            status=True,
            generation=True,
            short_names=("crd", "crds"),
        ),
    ]
