"""NVSentinel: which nodes are quarantined, why, and how far their repair has come."""

from typing import Final

COMPONENT: Final = "nvsentinel"
