"""What a deployment says about its cluster and about NVSentinel on it."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from interlock_servers.transports.kube.settings import ClusterSettings


def _pattern(text: str) -> str:
    re.compile(text)
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class NvsentinelSettings(BaseModel):
    """Where the cluster is, and where upstream's defaults were changed.

    Attributes:
        cluster: the API server, and as whom.
        namespace: where NVSentinel is installed; the leases of its janitor are there too.
        events_namespace: where it writes its events.
        label_prefix: of the labels about a cordon (`labelPrefix` of its chart).
        system_namespaces: a pattern, matched from the start (`systemNamespaces` of its drainer);
            pods there do not count as anybody's work.
        gpu_resources: a pattern of resource names, matched whole, that stand for GPUs.
        rack_label, nvlink_label: node labels that name the rack and the NVLink domain.
        tenant_label: a namespace's label that names its tenant; without it the namespace is that.
        timeout_s: after so long a request that has not ended is shown as stuck; upstream's janitor
            gives up after 25 minutes.
        stuck_after_s: how long anything else may take before it is shown as stuck.
        operations: whether anything may be asked of it; without it nothing is registered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cluster: ClusterSettings
    namespace: Name = "nvsentinel"
    events_namespace: Name = "default"
    label_prefix: str = Field(default="k8saas.nvidia.com/", max_length=200)
    system_namespaces: Pattern = (
        "^(nvsentinel|kube-system|gpu-operator|gmp-system|network-operator|skyhook)$"
    )
    gpu_resources: Pattern = r"nvidia\.com/(p?gpu|mig-.+)|amd\.com/gpu"
    rack_label: str | None = None
    nvlink_label: str | None = "nvidia.com/gpu.clique"
    tenant_label: str | None = None
    timeout_s: float = Field(default=1500.0, gt=0)
    stuck_after_s: float = Field(default=900.0, gt=0)
    operations: bool = False
