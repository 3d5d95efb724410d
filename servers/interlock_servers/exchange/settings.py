"""What a deployment says about its bus."""

from pydantic import BaseModel, ConfigDict, Field

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
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mqtt: MqttSettings
    site_id: str = Field(min_length=1, max_length=200)
    clusters: bool = False
    integration_values: bool = True
    compatibility: Compatibility = Compatibility()
    fresh_s: float = Field(default=FRESH_S, gt=0)
    max_points: int = Field(default=MAX_POINTS, ge=1)

    def subscriptions(self) -> tuple[tuple[str, int], ...]:
        """The filters to listen to, with their QoS; none of them overlaps another."""
        publisher = "+" if self.integration_values else "PUB"
        prefixes = ("", "cpc/+/") if self.clusters else ("",)
        return tuple(
            (f"{prefix}BMS/v1/{space}", qos)
            for prefix in prefixes
            for space, qos in (("PUB/Metadata/#", 1), (f"{publisher}/Value/#", 0))
        )
