"""The twin's protobuf descriptors of `nvidia.dcpower.v1`, from one table; no generated code.

Messages and numbers are those of DPS 0.8 as far as they are public. Chosen is what is known by name
only: all of the metrics service but its method, the names of messages whose shape alone is public,
and the answers of adding, removing and updating resources beyond their Status. A client that finds
them by reflection does not depend on these choices.
"""

from typing import Final

from google.protobuf.descriptor_pool import DescriptorPool

from interlock_servers.transports.grpc_table import pool_of_table, rows

PACKAGE: Final = "nvidia.dcpower.v1"

_MESSAGES: Final = """
Status: ok=1 bool, diag_msg=2 string
PowerLimit: watts=1 limit/double, percentage=2 limit/double
PolicyLimit: element_type=1 PolicyElementType, power_limit=2 PowerLimit
PolicyObject: name=1 string, limits=2 *PolicyLimit, properties=4 Struct
GPUPolicy: gpu_id=1 ?uint32, power_limit=2 PowerLimit
GPUPolicies: policies=1 *GPUPolicy
PolicyApplyStatus: policy=1 PolicyObject, status=2 Status

ResourceGroupListAllRequest: list_active_only=2 bool
ResourceGroupListAllResponse: status=1 Status, resource_groups=2 *ResourceGroupInfo
ResourceGroupInfo: group_name=2 string, external_id=3 int64, activation_status=4 string, \
policy_name=5 ?string, resource_names=6 *string, workload_profile_ids=7 *int32, \
resource_policies=8 *ResourcePolicy, properties=9 Struct, prs_enabled=10 bool, \
dpm_enable=11 bool, shared_gpu_enable=12 bool
ResourcePolicy: resource_name=1 string, policy_name=2 string, applied_policy_name=3 string, \
applied_policy=4 PolicyObject, node_cap_watts=5 double, gpu_policies=6 GPUPolicies
UpdateGPUPoliciesRequest: node_gpu_policies=1 map/GPUPolicies
UpdateGPUPoliciesResponse: results=1 *UpdateGPUPoliciesResult, status=2 Status
UpdateGPUPoliciesResult: resource_name=1 string, gpu_id=2 ?uint32, ok=3 bool, \
set_limit=4 double, diag_msg=5 string
AsyncStrategy: wait=1 strategy/Duration, nHosts=2 strategy/uint32, fracHosts=3 strategy/double
PartialActivation: atleast_n_hosts=1 amount/uint32, atleast_frac_hosts=2 amount/double, \
host_activation_timeout=3 Duration
WorkloadProfileIDs: ids=1 *int32
GPUWorkloadProfileResponse: gpu_id=2 uint32, ok=3 bool, enforced_workload_profile_ids=4 *int32, \
diag_msg=5 string
NodeStatusResponse: policy_apply_status=1 PolicyApplyStatus, \
workload_profile_results=2 *GPUWorkloadProfileResponse
ResourceGroupCreateRequest: external_id=2 int64, group_name=3 string, policy_name=4 ?string, \
workload_profile_ids=5 *int32, prs_enabled=6 ?bool, properties=7 Struct, dpm_enable=8 bool, \
shared_gpu_enable=9 bool
ResourceGroupCreateResponse: status=1 Status
ResourceGroupAddResourcesRequest: group_name=2 string, resource_names=3 *string, \
policy_name=4 ?string, strict=5 bool, allow_reprovision=6 bool
ResourceGroupAddResourcesResponse: status=1 Status
ResourceGroupRemoveResourcesRequest: group_name=2 string, resource_names=3 *string
ResourceGroupRemoveResourcesResponse: status=1 Status
ActivateResourceGroupRequest: group_name=2 string, strict=3 bool, async=4 AsyncStrategy, \
partial_activation=5 PartialActivation, allow_reprovision=6 bool
ActivateResourceGroupResponse: node_statuses=1 map/NodeStatusResponse, status=2 Status, \
operation_id=3 string
ResourceGroupUpdateRequest: group_name=2 string, policy_name=3 ?string, strict=4 bool, \
workload_profile_ids=5 WorkloadProfileIDs, async=6 AsyncStrategy, \
partial_activation=7 PartialActivation, wpps_disable_async_verification=8 bool
ResourceGroupUpdateResponse: node_statuses=1 map/NodeStatusResponse, status=2 Status, \
operation_id=3 string
ResourceUpdate: resource_name=1 string, policy_name=2 update/string
ResourceGroupUpdateResourcesRequest: group_name=2 string, updates=3 *ResourceUpdate, \
async=4 AsyncStrategy, partial_activation=5 PartialActivation
ResourceGroupUpdateResourcesResponse: status=2 Status, operation_id=3 string
ResourceGroupDeleteRequest: group_name=2 string, wpps_disable_async_verification=3 bool
ResourceGroupDeleteResponse: status=1 Status
GroupOperation: resource_group_name=1 string, operation_type=2 string
AsyncOperationStatusRequest: operation_id=1 which/string, \
resource_group_info=2 which/GroupOperation
AsyncOperationStatusResponse: operation_id=1 string, completed=2 bool, n_hosts=3 uint32, \
n_success=4 uint32, n_failed=5 uint32, n_in_progress=6 uint32, \
activate=10 result/ActivateResourceGroupResponse, update=11 result/ResourceGroupUpdateResponse

Device: type=1 string, model=2 string, description=3 string, gpu=10 spec/DeviceSpec, \
computerSystem=11 spec/ComputerSystemSpec, powerDistribution=13 spec/DeviceSpec, \
cpu=15 spec/DeviceSpec
DeviceSpec: min_load_watts=1 double, max_load_watts=2 double
ComputerSystemSpec: devices=1 *string, power_policy_plugin=2 string, min_load_watts=3 double, \
max_load_watts=4 double

ListTopologiesRequest: is_active=2 ?bool
ListTopologiesResponse: status=1 Status, topologies=2 *TopologySummary
TopologySummary: topology_name=2 string, is_active=3 bool, leaf_node_names=4 *string
GetTopologyModelRequest: topology_name=1 string
GetTopologyModelResponse: header=1 TopologyHeader, entities=3 *TopologyEntity
TopologyHeader: topology_name=1 string, properties=2 Struct, topology_hash=3 bytes
TopologyEntity: entity=1 Struct, children=2 *string
GetNodesStatusRequest: nodes=1 *string
GetNodesStatusResponse: node_statuses=1 map/NodeStatus
NodeStatus: inaccessible_since=1 Timestamp, last_successful_access_time=2 Timestamp, \
last_access_error=3 string, current_state=4 NodeState, last_policy_error=5 string
NodeState: resource_group=1 string, allocated_policy_name=2 string
ValidateAllocationRequest: device_names=1 *string, policy_name=2 string, strict=3 bool
ValidateAllocationResponse: allocation_validation_result=1 result/AllocationValidationResult, \
per_device_allocation_validation_result=2 result/PerDeviceAllocationValidationResult
AllocationValidationResult: status=1 Status, allocation_would_succeed=2 bool, \
allocation_policy_selection=3 AllocationPolicySelection, \
allocation_power_reclamation_requirements=4 AllocationPowerReclamationRequirements
AllocationPolicySelection: requested_policy_name=1 string, selected_policy_name=2 string, \
policy_would_be_downgraded=3 bool
AllocationPowerReclamationRequirements: affected_resource_group_names=1 *string, \
watts_to_reclaim=2 double, diagnostic_note=3 string
PerDeviceAllocationValidationResult: device_id=1 string, \
device_allocation_status=2 DeviceAllocationStatus
DeviceAllocationStatus: policy_apply_status=1 PolicyApplyStatus, \
power_distribution_status=2 PowerDistributionStatus, policy_would_be_downgraded=3 bool
PowerDistributionStatus: allocated_watts=1 double, capacity_watts=2 double

MetricsQueryRequest: nodes=1 *string
MetricsQueryResponse: status=1 Status, nodes=2 *NodeMetrics
NodeMetrics: name=1 string, num_gpus=2 uint32, num_cpus=3 uint32, num_memory_units=4 uint32, \
power_usage=5 ?double, gpus=6 *DeviceMetrics, cpus=7 *DeviceMetrics
DeviceMetrics: id=1 string, power_usage=2 ?double, energy_usage=3 ?double, \
energy_usage_unit=4 string, set_limit=5 ?double, max_limit=6 ?double, min_limit=7 ?double, \
temperature_celsius=8 ?double
"""

ENUMS: Final = {"PolicyElementType": ("NODE", "GPU", "CPU", "MEMORY")}
_NEWER_ENUMS: Final = {"PolicyElementType": (*ENUMS["PolicyElementType"], "DPU")}

# What a newer server has besides; the names are those of 0.10, the numbers chosen.
_NEWER: Final = {
    "Status": ("code=99 int32",),
    "PolicyObject": ("bundle_types=99 *string",),
    "ResourceGroupCreateRequest": ("priority=99 ?int32",),
    "ResourceGroupUpdateRequest": ("priority=99 ?int32",),
    "ResourceGroupInfo": ("priority=98 int32", "policy_bundle=99 string"),
    "DeviceMetrics": ("effective_limit=99 ?double",),
    "UpdateGPUPoliciesResult": ("effective_limit=99 ?double",),
}

# service: method, request, response; `>` before the response means a stream
SERVICES: Final = {
    "ResourceGroupManagementService": (
        ("ResourceGroupList", "ResourceGroupListAllRequest", "ResourceGroupListAllResponse"),
        ("UpdateGPUPolicies", "UpdateGPUPoliciesRequest", "UpdateGPUPoliciesResponse"),
        *(
            (name, f"{name}Request", f"{name}Response")
            for name in (
                "ResourceGroupCreate",
                "ResourceGroupAddResources",
                "ResourceGroupRemoveResources",
                "ActivateResourceGroup",
                "ResourceGroupUpdate",
                "ResourceGroupUpdateResources",
                "ResourceGroupDelete",
                "AsyncOperationStatus",
            )
        ),
    ),
    "TopologyManagementService": (
        ("ListTopologies", "ListTopologiesRequest", "ListTopologiesResponse"),
        ("GetTopologyModel", "GetTopologyModelRequest", ">GetTopologyModelResponse"),
        ("GetNodesStatus", "GetNodesStatusRequest", "GetNodesStatusResponse"),
        ("ValidateAllocation", "ValidateAllocationRequest", ">ValidateAllocationResponse"),
        ("ListPolicies", "Empty", ">PolicyObject"),
        ("ListDevices", "Empty", ">Device"),
    ),
    "MetricsManagementService": (("MetricsQuery", "MetricsQueryRequest", "MetricsQueryResponse"),),
}


def build_pool(*, newer: bool = False, without: frozenset[str] = frozenset()) -> DescriptorPool:
    """The descriptors of a server.

    Args:
        newer: with fields that no client knows yet.
        without: fields (`Message.field`) or methods (`Service.Method`) that it does not have.
    """
    messages = {
        name: [
            field
            for field in (*fields, *(_NEWER.get(name, ()) if newer else ()))
            if f"{name}.{field.partition('=')[0]}" not in without
        ]
        for name, fields in rows(_MESSAGES).items()
    }
    services = {
        name: [method for method in methods if f"{name}.{method[0]}" not in without]
        for name, methods in SERVICES.items()
    }
    enums = _NEWER_ENUMS if newer else ENUMS
    return pool_of_table("nvidia/dcpower/v1/dcpower.proto", PACKAGE, messages, services, enums)
