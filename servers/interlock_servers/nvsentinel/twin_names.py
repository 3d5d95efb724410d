"""The names that NVSentinel writes on a cluster: labels, annotations, conditions, kinds.

Source: the code and charts of NVIDIA/NVSentinel at 42672ae (just after v1.19.0).
"""

from typing import Final

from interlock_servers.transports.kube.kinds import Kind

SPACE: Final = "nvsentinel"
LIMIT_OF_CONDITION: Final = 1024  # characters of its message

# fault-quarantine, on nodes
EVENTS: Final = "quarantineHealthEvent"
APPLIED_TAINTS: Final = "quarantineHealthEventAppliedTaints"
APPLIED_LABELS: Final = "quarantineHealthEventAppliedLabels"
IS_CORDONED: Final = "quarantineHealthEventIsCordoned"
PRE_EXISTING: Final = "quarantineHealthEventCordonPreExisting"
UNCORDONED_MANUALLY: Final = "quarantinedNodeUncordonedManually"
UNTAINTED_MANUALLY: Final = "quarantinedNodeUntaintedManually"
QUARANTINE: Final = (EVENTS, APPLIED_TAINTS, APPLIED_LABELS, IS_CORDONED, PRE_EXISTING)
PREFIX: Final = "k8saas.nvidia.com/"
MANAGED: Final = "k8saas.nvidia.com/ManagedByNVSentinel"
MANAGED_NEW: Final = "nvsentinel.dgxc.nvidia.com/managed"
BY: Final = "NVSentinel"
STAMP: Final = "%Y-%m-%dT%H-%M-%SZ"

# the state of a session, one label of the node
STATE: Final = "dgxc.nvidia.com/nvsentinel-state"
QUARANTINED: Final = "quarantined"
DRAINING: Final = "draining"
DRAINED: Final = "drain-succeeded"
DRAIN_FAILED: Final = "drain-failed"
REMEDIATING: Final = "remediating"
REMEDIATED: Final = "remediation-succeeded"  # the CR was made: no more than that
REMEDIATION_FAILED: Final = "remediation-failed"

# others
REMEDIATION_STATE: Final = "latestFaultRemediationState"
DEVICES: Final = "dgxc.nvidia.com/devices"
TTL: Final = "nvsentinel.nvidia.com/ttl"
EXPIRY: Final = "nvsentinel.nvidia.com/expiry"
PRESERVE: Final = "nvsentinel.nvidia.com/preserve"
ACTIVE_VALIDATION: Final = "nvsentinel.nvidia.com/active-validation-request"
BOOTSTRAPPED: Final = "nvsentinel.dgxc.nvidia.com/dcgm-bootstrap-completed"
RELEASE_TAINT: Final = "nvsentinel.dgxc.nvidia.com/external-remediation"
EXTERNAL_FINALIZER: Final = "nvsentinel.dgxc.nvidia.com/external-remediation-cleanup"
MAINTENANCE_FINALIZER: Final = "nvsentinel.dgxc.nvidia.com/maintenance-request"  # inferred
REQUESTER: Final = "maintenanceRequestRequesterAgent"
GPU_PRESENT: Final = "nvidia.com/gpu.present"
GPU: Final = "nvidia.com/gpu"

RULES_MAP: Final = "fault-quarantine"
BREAKER_MAP: Final = "circuit-breaker"
RESUME_MAP: Final = "resume-control"

JANITOR: Final = "janitor.dgxc.nvidia.com"
REBOOTS: Final = Kind(JANITOR, ("v1alpha1",), "rebootnodes", "RebootNode")
TERMINATIONS: Final = Kind(JANITOR, ("v1alpha1",), "terminatenodes", "TerminateNode")
RESETS: Final = Kind(JANITOR, ("v1alpha1",), "gpuresets", "GPUReset")
EXTERNALS: Final = Kind(
    "nvsentinel.dgxc.nvidia.com",
    ("v1",),
    "externalremediationrequests",
    "ExternalRemediationRequest",
)
MAINTENANCES: Final = Kind(
    "nvsentinel.dgxc.nvidia.com", ("v1",), "maintenancerequests", "MaintenanceRequest"
)
VALIDATIONS: Final = Kind(
    "nvsentinel.nvidia.com", ("v1alpha1",), "validationrequests", "ValidationRequest"
)

# actions of a health event and their numbers on the wire
ACTIONS: Final = {
    "NONE": 0,
    "COMPONENT_RESET": 2,
    "CONTACT_SUPPORT": 5,
    "RUN_FIELDDIAG": 6,
    "RESTART_VM": 15,
    "RESTART_BM": 24,
    "REPLACE_VM": 25,
    "RUN_DCGMEUD": 26,
    "CUSTOM": 27,
    "UNKNOWN": 99,
}
