"""What a deployment says about its bus."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from interlock_servers.exchange.history import MAX_SAMPLES
from interlock_servers.exchange.models import BMS, Compatibility
from interlock_servers.exchange.store import FRESH_S, MAX_POINTS
from interlock_servers.transports.mqtt import MqttSettings


class SupplyLimits(BaseModel):
    """Our own limits on what is asked of a CDU's supply, before those of the BMS.

    Attributes:
        min_c, max_c: the lowest and highest supply that may be asked for.
        safe_c: what is asked for when a request ends; what the BMS falls back to by itself.
        max_step_c: how far one request may be from the target of the BMS, now and at any moment
            within the last `step_every_s`.
        step_every_s: see there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_c: float = Field(gt=0, lt=100)
    max_c: float = Field(gt=0, lt=100)
    safe_c: float = Field(gt=0, lt=100)
    max_step_c: float = Field(default=2.0, gt=0)
    step_every_s: float = Field(default=600.0, ge=0)

    @model_validator(mode="after")
    def _safe_lies_within(self) -> Self:
        """A safe value that may not be asked for could never be brought back."""
        if not self.min_c <= self.safe_c <= self.max_c:
            raise ValueError(f"safe_c {self.safe_c} is not in {self.min_c} to {self.max_c}")
        return self


class RequestSettings(BaseModel):
    """What may be asked of the BMS, as whom; without this table nothing is ever published.

    Attributes:
        integration: our id, as the BMS writes it into the metadata of points that are ours.
        mqtt: the connection that publishes; ask for one that may publish
            `BMS/v1/{integration}/Value/#` and nothing else.
        supply: None: no setpoint may be asked for.
        isolation: whether the isolation of a rack may be asked for.
        not_ready: the number that means not ready, by point, as the specification of this project
            has it; readiness can be announced on these points only.
        silent: never publish and offer nothing that would; for who only looks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    integration: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    mqtt: MqttSettings
    supply: SupplyLimits | None = None
    isolation: bool = False
    not_ready: dict[Literal["Status", "Available"], int] = {}
    silent: bool = False

    @model_validator(mode="after")
    def _is_not_the_bms(self) -> Self:
        """What goes out under `PUB` would be taken for readings of the plant."""
        if self.integration.upper() == BMS:
            raise ValueError(f"integration must not be {self.integration}: that is the BMS")
        return self


class ExchangeSettings(BaseModel):
    """Where the bus is, whose site it carries, and how it departs from the specification.

    Attributes:
        mqtt: the brokers and the identity that listens; ask for one that may not publish.
        site_id: the id of the site, which is also the `objectId` of its main meter.
        clusters: also read `cpc/{id}/...`, in a common services cluster.
        integration_values: also read what integrations write, where the ACL lets us.
        compatibility: which habits of deployed clients are accepted.
        fresh_s: how old a reading may be and still be used.
        max_points: how many points are kept at most.
        max_samples: how many past readings are kept at most, of all points together.
        nico, grid: also hear the machine states of NICo and the traffic of DSX Flex.
        requests: what may be asked of the BMS; None: it is only listened to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mqtt: MqttSettings
    site_id: str = Field(min_length=1, max_length=200)
    clusters: bool = False
    integration_values: bool = True
    compatibility: Compatibility = Compatibility()
    fresh_s: float = Field(default=FRESH_S, gt=0)
    max_points: int = Field(default=MAX_POINTS, ge=1)
    max_samples: int = Field(default=MAX_SAMPLES, ge=0)
    nico: bool = False
    grid: bool = False
    requests: RequestSettings | None = None

    def subscriptions(self) -> tuple[tuple[str, int], ...]:
        """The filters to listen to, with their QoS; none of them overlaps another."""
        publisher = "+" if self.integration_values else "PUB"
        spaces = [("BMS/v1/PUB/Metadata/#", 1), (f"BMS/v1/{publisher}/Value/#", 0)]
        if self.compatibility.old_topics:  # no filter names what ends in /Value
            spaces = [("BMS/v1/#", 1)]
        if self.nico:
            spaces.append(("NICO/v1/machine/+/state", 0))
        if self.grid:
            spaces.append(("grid/v1/#", 1))
        prefixes = ("", "cpc/+/") if self.clusters else ("",)
        return tuple((prefix + space, qos) for prefix in prefixes for space, qos in spaces)
