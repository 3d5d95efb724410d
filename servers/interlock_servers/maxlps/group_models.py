"""Resource groups and policies of DPS as frozen types; the one place where watts change owner.

A policy's watts for GPUs are those of all GPUs of a node together; a limit of ours is of one GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from interlock_servers.maxlps.node_view import HOST

GPU, NODE = "GPU", "NODE"
KNOWN_ELEMENTS: Final = frozenset({GPU, NODE, "CPU", "MEMORY"})
PROFILE_OFFSET: Final = 3  # DPS and Redfish count workload power profiles from here, NVML from 0


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a policy: watts of all devices of a kind on a node together, or a percentage.

    `element` is DPS's word for the kind; one that we do not know is kept as it came.
    """

    element: str
    watts: float | None
    percentage: float | None

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"element": self.element, "watts": self.watts, "percentage": self.percentage}


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, or since 0.9 a policy bundle. `bundle_types` is empty where DPS tells none."""

    name: str
    limits: tuple[Limit, ...]
    bundle_types: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "name": self.name,
            "limits": [limit.as_json() for limit in self.limits],
            "bundle_types": list(self.bundle_types),
        }


@dataclass(frozen=True, slots=True)
class GroupState:
    """One resource group as DPS holds it now.

    Attributes:
        status: DPS's word for it: `active`, `inactive`, or on the way from one to the other.
        priority: the lower number is the more important; None where this DPS has no such field.
        policies: of each node that DPS tells of, the policy asked for and the one applied.
        nvml_profiles: workload power profiles by NVML's numbers.
    """

    name: str
    status: str
    policy: str | None
    priority: int | None
    dpm: bool
    prs: bool
    node_ids: tuple[str, ...]
    policies: Mapping[str, tuple[str, str]]
    nvml_profiles: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "name": self.name,
            "status": self.status,
            "policy": self.policy,
            "priority": self.priority,
            "dpm": self.dpm,
            "prs": self.prs,
            "node_ids": list(self.node_ids),
            "policies": {node: list(pair) for node, pair in self.policies.items()},
            "nvml_profiles": list(self.nvml_profiles),
        }


def each_gpu_w(node_total_w: float, gpus: int) -> float:
    """Watts of one GPU, of a policy's watts for all GPUs of a node: 5600 W on 8 GPUs is 700 W."""
    return node_total_w / gpus


def nvml_profile(dps_id: int) -> int | None:
    """NVML's number of a workload power profile; None where DPS's cannot be one."""
    return dps_id - PROFILE_OFFSET if PROFILE_OFFSET <= dps_id <= 255 + PROFILE_OFFSET else None


def unknown_elements(policy: Mapping[str, Any]) -> list[str]:
    """The element types of a policy (as JSON) that we do not know: its effect is unknown, too."""
    return sorted({one["element"] for one in policy["limits"]} - KNOWN_ELEMENTS)


def cap_of(policy: Mapping[str, Any], gpus: int, min_w: float, max_w: float) -> float | None:
    """The watts that a policy (as JSON) lets one GPU of a node draw; None where it says nothing.

    A limit of the whole node is turned into one of its GPUs by our model of a host.
    """
    found = []
    for limit in policy["limits"]:
        if limit["element"] == GPU:
            watts = limit["watts"]
            if watts is None and limit["percentage"] is not None:
                watts = max_w * gpus * limit["percentage"] / 100.0
            found.append(None if watts is None else each_gpu_w(watts, gpus))
        elif limit["element"] == NODE and limit["watts"] is not None:
            gpu_w = max(0.0, limit["watts"] - float(np.asarray(HOST.fixed_w))) / HOST.slope
            found.append(each_gpu_w(gpu_w, gpus))
    known = [watts for watts in found if watts is not None]
    return min(max(min(known), min_w), max_w) if known else None
