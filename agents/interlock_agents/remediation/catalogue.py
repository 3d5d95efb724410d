"""What a fault calls for: XIDs by NVIDIA's catalogue, checks of health monitors by their kind.

Only codes and names of checks count here. What a message says besides is text of the plant.
Sources: NVIDIA's XID catalogue (its buckets for Ampere and newer, in our words); DCGM's error
severities; NVSentinel's default checks.
"""

from enum import IntEnum
from typing import Final, NamedTuple


class Remedy(IntEnum):
    """What helps, the mildest first."""

    NOTHING = 0  # the job that met it starts again; the GPU is well
    WAIT = 1  # known to pass, or to be a false alarm
    COOLING = 2  # the cause is outside of the node
    RESET = 3
    REBOOT = 4
    REPAIR = 5  # hands, or an investigation


class Call(NamedTuple):
    """What is called for, and what it means, in a few words."""

    remedy: Remedy
    means: str


_R = Remedy
XIDS: Final[dict[int, Call]] = {
    13: Call(_R.NOTHING, "a program used the GPU wrongly"),
    31: Call(_R.NOTHING, "a program touched memory that is not its own"),
    43: Call(_R.NOTHING, "a program's channel was stopped"),
    45: Call(_R.NOTHING, "a program's channels were cleaned up"),
    48: Call(_R.RESET, "memory error of two bits"),
    54: Call(_R.REPAIR, "the extra power cable is not connected"),
    62: Call(_R.RESET, "the GPU's own controller stopped"),
    63: Call(_R.NOTHING, "a memory row is to be replaced at the next reset"),
    64: Call(_R.RESET, "a memory row could not be replaced"),
    74: Call(_R.RESET, "an NVLink failed"),
    79: Call(_R.REBOOT, "the GPU is gone from the bus"),
    94: Call(_R.NOTHING, "memory error that stayed within one program"),
    95: Call(_R.RESET, "memory error that reached beyond one program"),
    109: Call(_R.RESET, "the GPU did not change between programs in time"),
    119: Call(_R.RESET, "the GPU's system processor did not answer"),
    120: Call(_R.RESET, "the GPU's system processor failed"),
    136: Call(_R.RESET, "an NVLink could not be trained"),
    140: Call(_R.RESET, "memory error that was not recovered"),
    143: Call(_R.RESET, "the GPU did not start"),
}
UNKNOWN_XID: Final = Call(_R.REPAIR, "an XID without a bucket of its own here")

XID_CHECK: Final = "SysLogsXIDError"
CHECKS: Final[dict[str, Call]] = {
    "SysLogsGPUFallenOff": Call(_R.REBOOT, "a GPU is gone from the bus"),
    "GpuMemWatch": Call(_R.RESET, "memory errors"),
    "GpuNvlinkWatch": Call(_R.RESET, "NVLink errors"),
    "GpuSmWatch": Call(_R.RESET, "errors of the multiprocessors"),
    "GpuMcuWatch": Call(_R.RESET, "the GPU's own controller failed"),
    "GpuPmuWatch": Call(_R.RESET, "the power controller failed"),
    "GpuPcieWatch": Call(_R.REBOOT, "PCIe errors"),
    "GpuThermalWatch": Call(_R.COOLING, "GPUs slow down for heat"),
    "GpuThermalMarginWatch": Call(_R.COOLING, "GPUs are near the heat at which they slow down"),
    "GpuDcgmConnectivityFailure": Call(_R.WAIT, "DCGM does not answer"),
    "GpuDcgmUnresponsive": Call(_R.WAIT, "DCGM does not answer"),
}
UNKNOWN_CHECK: Final = Call(_R.REPAIR, "a check for which there is no rule here")
