"""What a deployment says about its bus."""

from pydantic import BaseModel, ConfigDict, Field

from interlock_servers.exchange.history import MAX_SAMPLES
from interlock_servers.exchange.models import Compatibility
from interlock_servers.exchange.store import FRESH_S, MAX_POINTS
from interlock_servers.transports.mqtt import MqttSettings


class ExchangeSettings(BaseModel):
    """Where the bus is, whose site it carries, and how it departs from the specification.

    Attributes:
        mqtt: the brokers and our identity; ask the operator for one that may not publish.
        site_id: the id of the site, which is also the `objectId` of its main meter.
        clusters: also read `cpc/{id}/...`, in a common services cluster.
        integration_values: also read what integrations write, where the ACL lets us.
        compatibility: which habits of deployed clients are accepted.
        fresh_s: how old a reading may be and still be used.
        max_points: how many points are kept at most.
        max_samples: how many past readings are kept at most, of all points together.
        nico, grid: also hear the machine states of NICo and the traffic of DSX Flex.
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
