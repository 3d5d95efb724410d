"""Names of kinds: what a component asks for, and what a server serves of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote


@dataclass(frozen=True)
class Kind:
    """A kind that a component understands.

    Attributes:
        group: its API group; empty is the core.
        versions: those that the component reads, the one it likes best first.
        plural: its name in addresses.
        kind: its name in objects.
        namespaced: whether its objects live in namespaces.
    """

    group: str
    versions: tuple[str, ...]
    plural: str
    kind: str
    namespaced: bool = False

    @property
    def name(self) -> str:
        """As `kubectl` writes it: `gpuresets.janitor.dgxc.nvidia.com`, or `nodes`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


@dataclass(frozen=True)
class ServedKind:
    """A kind as one server serves it: the version is settled.

    Attributes:
        verbs: what the server offers for it; what we may do is another question.
        subresources: such as `status`, `scale`, `eviction`, each with the API version that its
            own body has; empty where that is the object's.
    """

    kind: Kind
    version: str
    verbs: frozenset[str]
    subresources: Mapping[str, str]

    @property
    def api_version(self) -> str:
        """As objects carry it."""
        return f"{self.kind.group}/{self.version}" if self.kind.group else self.version

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """The address of a collection, an object or a part of one; every name is quoted."""
        parts = [f"/apis/{self.kind.group}" if self.kind.group else "/api", self.version]
        if namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.kind.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


NODES: Final = Kind("", ("v1",), "nodes", "Node")
PODS: Final = Kind("", ("v1",), "pods", "Pod", namespaced=True)
NAMESPACES: Final = Kind("", ("v1",), "namespaces", "Namespace")
EVENTS: Final = Kind("", ("v1",), "events", "Event", namespaced=True)
CONFIG_MAPS: Final = Kind("", ("v1",), "configmaps", "ConfigMap", namespaced=True)
DEPLOYMENTS: Final = Kind("apps", ("v1",), "deployments", "Deployment", namespaced=True)
JOBS: Final = Kind("batch", ("v1",), "jobs", "Job", namespaced=True)
LEASES: Final = Kind("coordination.k8s.io", ("v1",), "leases", "Lease", namespaced=True)
DISRUPTION_BUDGETS: Final = Kind(
    "policy", ("v1", "v1beta1"), "poddisruptionbudgets", "PodDisruptionBudget", namespaced=True
)
CUSTOM_RESOURCES: Final = Kind(
    "apiextensions.k8s.io", ("v1",), "customresourcedefinitions", "CustomResourceDefinition"
)
ACCESS_REVIEWS: Final = Kind(
    "authorization.k8s.io", ("v1",), "selfsubjectaccessreviews", "SelfSubjectAccessReview"
)
