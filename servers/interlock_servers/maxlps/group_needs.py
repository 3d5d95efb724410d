"""What we need of DPS's messages to read and change resource groups; found by reflection.

DPS may lack any of it: then the call that needs it is refused, by the name of what is missing, and
the rest goes on. 0.8 is the floor; a priority is a field only since 0.10.
"""

from typing import Final

from interlock_servers.transports.grpc_descriptors import MethodNeed

_GROUPS = "/nvidia.dcpower.v1.ResourceGroupManagementService/"
_TOPOLOGY = "/nvidia.dcpower.v1.TopologyManagementService/"
_STATUS = ("status.ok:bool", "status.diag_msg:text")
_NODES = (
    *_STATUS,
    "operation_id:text",
    "node_statuses{}.policy_apply_status.status.ok:bool",
    "node_statuses{}.policy_apply_status.status.diag_msg:text",
    "node_statuses{}.policy_apply_status.policy.name:text",
)


def _write(name: str, *request: str, response: tuple[str, ...] = _STATUS) -> MethodNeed:
    return MethodNeed(
        _GROUPS + name, is_read=False, request=("group_name:text", *request), response=response
    )


GROUP_STATES: Final = MethodNeed(
    _GROUPS + "ResourceGroupList",
    is_read=True,
    response=(
        *_STATUS,
        "resource_groups[].group_name:text",
        "resource_groups[].activation_status:text",
        "resource_groups[].policy_name?:text",
        "resource_groups[].resource_names[]:text",
        "resource_groups[].resource_policies[].resource_name:text",
        "resource_groups[].resource_policies[].policy_name:text",
        "resource_groups[].resource_policies[].applied_policy_name:text",
        "resource_groups[].workload_profile_ids[]:number",
        "resource_groups[].prs_enabled:bool",
        "resource_groups[].dpm_enable:bool",
    ),
)
LIST_POLICIES: Final = MethodNeed(
    _TOPOLOGY + "ListPolicies",
    is_read=True,
    streams=True,
    response=(
        "name:text",
        "limits[].element_type:enum",
        "limits[].power_limit.watts?:number",
        "limits[].power_limit.percentage?:number",
    ),
)
LIST_DEVICES: Final = MethodNeed(
    _TOPOLOGY + "ListDevices", is_read=True, streams=True, response=("type:text", "model:text")
)
CREATE: Final = _write(
    "ResourceGroupCreate", "policy_name?:text", "prs_enabled?:bool", "dpm_enable:bool"
)
ADD: Final = _write(
    "ResourceGroupAddResources",
    "resource_names[]:text",
    "policy_name?:text",
    "strict:bool",
    "allow_reprovision:bool",
)
REMOVE: Final = _write("ResourceGroupRemoveResources", "resource_names[]:text")
ACTIVATE: Final = _write(
    "ActivateResourceGroup",
    "strict:bool",
    "async.wait?:duration",
    "allow_reprovision:bool",
    response=_NODES,
)
UPDATE: Final = _write(
    "ResourceGroupUpdate",
    "policy_name?:text",
    "strict:bool",
    "async.wait?:duration",
    response=_STATUS,
)
# Without presence, a priority of 0 could not be told from one that is left as it is.
SET_PRIORITY: Final = _write("ResourceGroupUpdate", "priority?:number")
UPDATE_RESOURCES: Final = _write(
    "ResourceGroupUpdateResources",
    "updates[].resource_name:text",
    "updates[].policy_name?:text",
)
DELETE: Final = _write("ResourceGroupDelete")
OPERATION_STATUS: Final = MethodNeed(
    _GROUPS + "AsyncOperationStatus",
    is_read=False,  # to read it can consume it: it is never sent again by itself
    request=("operation_id:text",),
    response=(
        "completed:bool",
        "n_failed:number",
        *(f"activate.{path}" for path in _NODES),
    ),
)
WANTS: Final = (
    GROUP_STATES,
    LIST_POLICIES,
    LIST_DEVICES,
    CREATE,
    ADD,
    REMOVE,
    ACTIVATE,
    UPDATE,
    SET_PRIORITY,
    UPDATE_RESOURCES,
    DELETE,
    OPERATION_STATUS,
)
