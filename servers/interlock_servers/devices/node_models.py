"""What passes between a node agent and its client, as frozen types; no I/O."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from interlock_servers.devices.models import GpuReading

MOST_CAPS: Final = 64  # of one request


class CapState(StrEnum):
    """How a cap that an agent holds stands."""

    HELD = "held"
    REVERTED = "reverted"  # the device says something else: a reset, or another writer
    OVERDUE = "overdue"  # its end has come and its safe value could not be set yet


@dataclass(frozen=True, slots=True)
class Cap:
    """A limit that is asked for: it ends by itself, at a value that is safe without us.

    Attributes:
        key: of the GPU; see `GpuIdentity.key`.
        safe_w: what the agent sets when the time is over and nobody has renewed it.
    """

    key: str
    limit_w: float
    safe_w: float
    expires_in_s: float


@dataclass(frozen=True, slots=True)
class HeldCap:
    """A cap that an agent holds. `left_s` is what remains of it, by the agent's own clock."""

    key: str
    limit_w: float
    safe_w: float
    left_s: float
    state: CapState
    controller_id: str
    change_id: str


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What an agent says of its node.

    Attributes:
        boot_id: new at each start of the agent.
        sequence: grows with each look at the devices.
        age_s: how old that look is, by the agent's own clock; None where it never looked.
        failure: why the devices cannot be read now; empty where they can.
    """

    node_id: str
    boot_id: str
    sequence: int
    age_s: float | None
    says: str
    takes_writes: bool
    failure: str
    gpus: tuple[GpuReading, ...]
    held: tuple[HeldCap, ...]

    def gpu(self, key: str) -> GpuReading | None:
        """The GPU of this key, or None."""
        return next((gpu for gpu in self.gpus if gpu.identity.key == key), None)
