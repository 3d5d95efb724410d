"""The settings of the flex component, read once and passed as values."""

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from interlock_servers.transports.mqtt import MqttSettings

_SOURCE = re.compile(r"//grid/v1/(isv|dsx-flex-agent|poweragent|infra)/[^/]+")


class FlexSettings(BaseModel):
    """Where the bus is, whom we believe on it, and which feeds are ours.

    Attributes:
        mqtt: the bus.
        jwks_file: the public keys. No public contract says where they come from, so a person puts
            them there.
        trusted: per source, `//grid/v1/<role>/<identifier>`, the `kid` of each key that may sign
            for it. A source that is not listed is never believed.
        replay_window_s: how old an event's `time` may be.
        site_id: the site whose limit we tell.
        feeds: the feed tags of the site, all of them.
        cpc_id: our Control Plane Cluster, where we are attached to the common bus: its topics then
            count too, those of other clusters do not.
        needs_snapshot: after connecting, what is in force counts as known only once the Flex Agent
            has published its state; without it a limit sent while we were away is missed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mqtt: MqttSettings
    jwks_file: Path
    trusted: dict[str, tuple[str, ...]] = Field(min_length=1)
    replay_window_s: float = Field(default=300.0, gt=0, le=86_400)
    site_id: str = Field(min_length=1, max_length=200)
    feeds: tuple[str, ...] = Field(min_length=1)
    cpc_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    needs_snapshot: bool = True

    @field_validator("trusted")
    @classmethod
    def _sources_are_sources(
        cls, trusted: dict[str, tuple[str, ...]]
    ) -> dict[str, tuple[str, ...]]:
        for source, kids in trusted.items():
            if not _SOURCE.fullmatch(source):
                raise ValueError(f"{source!r} is not //grid/v1/<role>/<identifier>")
            if not kids:
                raise ValueError(f"{source} needs at least one kid")
        return trusted

    @field_validator("feeds")
    @classmethod
    def _feeds_are_distinct(cls, feeds: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(feeds)) != len(feeds) or not all(feed.strip() for feed in feeds):
            raise ValueError("feeds must be distinct names")
        return feeds
