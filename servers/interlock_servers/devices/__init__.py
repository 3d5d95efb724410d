"""GPUs as their own drivers show them: one contract over NVML, AMD SMI and Redfish."""

from typing import Final

COMPONENT: Final = "devices"
