"""The names that NVSentinel's code uses: kinds, labels, annotations, modules.

Source: NVSentinel v1.19.0 and its CRDs at commit 42672ae8; `MaintenanceRequest` from the
documentation of v1.25. Other keys in upstream's DATA_FLOW page are not in the code.
"""

from typing import Final

from interlock_servers.transports.kube.kinds import Kind

_JANITOR: Final = "janitor.dgxc.nvidia.com"
_DGXC: Final = "nvsentinel.dgxc.nvidia.com"

REBOOTS: Final = Kind(_JANITOR, ("v1alpha1",), "rebootnodes", "RebootNode")
TERMINATIONS: Final = Kind(_JANITOR, ("v1alpha1",), "terminatenodes", "TerminateNode")
RESETS: Final = Kind(_JANITOR, ("v1alpha1",), "gpuresets", "GPUReset")
REPAIRS: Final = Kind(_DGXC, ("v1",), "externalremediationrequests", "ExternalRemediationRequest")
MAINTENANCE: Final = Kind(_DGXC, ("v1",), "maintenancerequests", "MaintenanceRequest")
VALIDATIONS: Final = Kind(
    "nvsentinel.nvidia.com", ("v1alpha1",), "validationrequests", "ValidationRequest"
)
REQUESTS: Final = (REBOOTS, TERMINATIONS, RESETS, REPAIRS, MAINTENANCE, VALIDATIONS)

# ── on nodes ──────────────────────────────────────────────────────────────────────────────────
STATE: Final = "dgxc.nvidia.com/nvsentinel-state"
EVENTS: Final = "quarantineHealthEvent"
IS_CORDONED: Final = "quarantineHealthEventIsCordoned"
PRE_EXISTING: Final = "quarantineHealthEventCordonPreExisting"
TAINTS: Final = "quarantineHealthEventAppliedTaints"
UNCORDONED_BY_HAND: Final = "quarantinedNodeUncordonedManually"
UNTAINTED_BY_HAND: Final = "quarantinedNodeUntaintedManually"
REMEDIATION: Final = "latestFaultRemediationState"
BOOTSTRAPPED: Final = "nvsentinel.dgxc.nvidia.com/dcgm-bootstrap-completed"
NOT_QUARANTINED: Final = "k8saas.nvidia.com/ManagedByNVSentinel"  # "false": people's opt-out
NOT_MANAGED: Final = "nvsentinel.dgxc.nvidia.com/managed"  # "false": the janitor sets it too
RELEASE_TAINT: Final = "nvsentinel.dgxc.nvidia.com/external-remediation"
DEVICES: Final = "dgxc.nvidia.com/devices"  # on pods: which GPUs they have

# ── of ours, on what we write ─────────────────────────────────────────────────────────────────
FIELD_MANAGER: Final = "interlock"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
CHANGE: Final = "interlock/change"
OURS_BEGIN: Final = "interlock-"

# ── conditions ────────────────────────────────────────────────────────────────────────────────
EMITTED: Final = "HealthEventEmitted"
RELEASED: Final = "NVSentinelOwnershipReleased"
REPAIRED: Final = "ExternalRemediationComplete"
MANUAL: Final = "ManualMode"

# ── in its namespace ──────────────────────────────────────────────────────────────────────────
QUARANTINER: Final = "fault-quarantine"
DRAINER: Final = "node-drainer"
REMEDIATOR: Final = "fault-remediation"
JANITOR: Final = "janitor"
LIFECYCLE: Final = "lifecycle-manager"
ACTING: Final = (QUARANTINER, DRAINER, REMEDIATOR, JANITOR, "janitor-provider", LIFECYCLE)
BREAKER: Final = "circuit-breaker"  # ConfigMaps, as are the next two
RESUME: Final = "resume-control"
RULES_KEY: Final = "config.toml"

ACTIONS: Final = {
    0: "NONE",
    2: "COMPONENT_RESET",
    5: "CONTACT_SUPPORT",
    6: "RUN_FIELDDIAG",
    15: "RESTART_VM",
    24: "RESTART_BM",
    25: "REPLACE_VM",
    26: "RUN_DCGMEUD",
    27: "CUSTOM",
    99: "UNKNOWN",
}
UNSUPPORTED: Final = frozenset({"NONE", "CONTACT_SUPPORT", "RUN_FIELDDIAG", "RUN_DCGMEUD"})
