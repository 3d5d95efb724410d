"""The functions and numbers of NVML that we use, from nvidia-ml-py 13.615.71; no I/O.

They stand here and not in the library so that a stand-in of it needs functions only. A test
compares each with the library where that is installed.
"""

from typing import Final

from interlock_servers.devices.models import Violation, Why

SUCCESS: Final = 0
NOT_SUPPORTED: Final = 3
NO_PERMISSION: Final = 4
DRIVER_NOT_LOADED: Final = 9
TIMEOUT: Final = 10
LIBRARY_NOT_FOUND: Final = 12
FUNCTION_NOT_FOUND: Final = 13
GPU_IS_LOST: Final = 15
RESET_REQUIRED: Final = 16
INVALID_ARGUMENT: Final = 2

# What an error says of a value; every other one is `failed`.
WHY_OF_ERROR: Final = {
    NOT_SUPPORTED: Why.NOT_SUPPORTED,
    FUNCTION_NOT_FOUND: Why.NOT_SUPPORTED,  # an older driver
    25: Why.NOT_SUPPORTED,  # version of an argument
    26: Why.NOT_SUPPORTED,  # deprecated
    NO_PERMISSION: Why.NO_PERMISSION,
    GPU_IS_LOST: Why.LOST,
    RESET_REQUIRED: Why.LOST,
}

POWER_AVERAGE: Final = 185
POWER_INSTANT: Final = 186
POWER_REQUESTED_LIMIT: Final = 192
MEMORY_TEMPERATURE: Final = 82

# Time counters in nanoseconds. 74 and 76 are also CLOCKS_EVENT_REASON_SW_POWER_CAP and _SYNC_BOOST.
VIOLATION_FIELDS: Final = {
    74: Violation.POWER,
    75: Violation.THERMAL,
    76: Violation.SYNC_BOOST,
    77: Violation.BOARD_LIMIT,
    78: Violation.LOW_UTILIZATION,
    79: Violation.RELIABILITY,
    80: Violation.BELOW_APPLICATION_CLOCKS,
    81: Violation.BELOW_BASE_CLOCKS,
    269: Violation.SW_THERMAL,
    270: Violation.HW_THERMAL,
    271: Violation.HW_POWER_BRAKE,
}
FIELDS: Final = (
    POWER_AVERAGE,
    POWER_INSTANT,
    POWER_REQUESTED_LIMIT,
    MEMORY_TEMPERATURE,
    *VIOLATION_FIELDS,
)

# Member of the union by valueType; any other type is not guessed.
VALUE_MEMBERS: Final = {
    0: "dVal",
    1: "uiVal",
    2: "ulVal",
    3: "ullVal",
    4: "sllVal",
    5: "siVal",
    6: "usVal",
}

CORRECTED: Final = 0
UNCORRECTED: Final = 1
VOLATILE_ECC: Final = 0
AGGREGATE_ECC: Final = 1
TEMPERATURE_GPU: Final = 0
CURRENT_PROFILES: Final = "c_nvmlWorkloadPowerProfileCurrentProfiles_v1_t"
XID_EVENT: Final = 0x8
MAX_LINKS: Final = 36

# Every function that we call. None of clocks, modes or MIG writes is among them.
READS: Final = frozenset(
    {
        "nvmlInit",
        "nvmlShutdown",
        "nvmlSystemGetDriverVersion",
        "nvmlSystemGetNVMLVersion",
        "nvmlDeviceGetCount",
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetIndex",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetSerial",
        "nvmlDeviceGetName",
        "nvmlDeviceGetPciInfo",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetPowerManagementLimit",
        "nvmlDeviceGetPowerManagementDefaultLimit",
        "nvmlDeviceGetPowerManagementLimitConstraints",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetEccMode",
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetNvLinkState",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceWorkloadPowerProfileGetCurrentProfiles",
        "nvmlEventSetCreate",
        "nvmlEventSetFree",
        "nvmlDeviceGetSupportedEventTypes",
        "nvmlDeviceRegisterEvents",
        "nvmlEventSetWait_v2",
    }
)
WRITES: Final = frozenset({"nvmlDeviceSetPowerManagementLimit"})
