"""What NVSentinel's twin can be told to do wrong, for one node or for all."""

from collections.abc import Iterable
from enum import StrEnum


class TwinFault(StrEnum):
    """What users of NVSentinel have reported; the number is that of the upstream issue."""

    NEVER_UNCORDONED = "never_uncordoned"  # what recovers is not told to be well (458, 363)
    NO_ACTION = "no_action"  # a fatal check that recommends nothing: cordoned for ever (911)
    CANCELLED_DRAIN_REBOOTS = "cancelled_drain_reboots"  # an uncordon by hand is not heeded (121)
    PROVIDER_SILENT = "provider_silent"  # takes the signal and does nothing, for ever (1808)
    FORCE_IGNORED = "force_ignored"  # `force` does not reach the provider (1818)
    REMEDIATION_LOOPS = "remediation_loops"  # a reboot cures nothing, and the next follows (1543)
    DCGM_AT_BOOTSTRAP = "dcgm_at_bootstrap"  # a node that comes back is called sick (1423)
    RESET_REFUSED = "reset_refused"  # persistence mode is on (1692)
    REVERTS = "reverts"  # another controller puts `unschedulable` back as it was
    REPEAT_OFFENDER = "repeat_offender"  # breaks again some minutes after every repair


class Faults:
    """Which of them are on."""

    def __init__(self) -> None:
        self._on: dict[TwinFault, set[str]] = {}

    def inject(self, fault: TwinFault, nodes: Iterable[str] = ()) -> None:
        """Switch one on, for some nodes or, where none is named, for all."""
        self._on.setdefault(fault, set()).update(nodes)

    def repair(self, fault: TwinFault) -> None:
        """Switch it off."""
        self._on.pop(fault, None)

    def has(self, fault: TwinFault, node: str) -> bool:
        """Whether a node has it now."""
        nodes = self._on.get(fault)
        return nodes is not None and (not nodes or node in nodes)

    def nodes(self, fault: TwinFault) -> set[str]:
        """The nodes that were named for it."""
        return set(self._on.get(fault, ()))
