"""The settings of the flex component, read once and passed as values."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from interlock_servers.flex.openadr.settings import OpenAdrSettings
from interlock_servers.flex.schedule import Ramp
from interlock_servers.transports.mqtt import MqttSettings
from interlock_servers.transports.rest import encrypted_url

_SOURCE = re.compile(r"//grid/v1/(isv|dsx-flex-agent|poweragent|infra)/[^/]+")


class PublishSettings(BaseModel):
    """Interlock as an ISV that sends load targets; without this table nothing is ever sent.

    Attributes:
        identifier: our name as an ISV; we are `//grid/v1/isv/{identifier}`.
        mqtt: the connection that publishes; ask for one that may publish
            `grid/v1/isv/{identifier}/loadtarget/set` and nothing else.
        key_file: our private key, as a JWK or in PEM; its public half is where every reader's
            JWKS is.
        kid: its name there, which `trusted` must bind to us.
        echo_within_s: how long the Flex Agent may take to echo a target; without an echo it was
            not accepted.
        state_age_s: how old the agent's word on our feeds may be.
        meters: per feed the meter that shows it, where that is not called as the feed is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    identifier: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    mqtt: MqttSettings
    key_file: Path
    kid: str = Field(min_length=1, max_length=200)
    echo_within_s: float = Field(default=30.0, gt=0, le=45.0)
    state_age_s: float = Field(default=120.0, ge=1.0, le=3600.0)
    meters: dict[str, str] = {}

    @property
    def source(self) -> str:
        """Who we are on the bus."""
        return f"//grid/v1/isv/{self.identifier}"


class SettlementSettings(BaseModel):
    """What is kept for the settlement of an event, besides the grid's targets.

    Attributes:
        zone: the site's, such as `America/New_York`: a day is like another by the clock there.
        interval_s: over how long the site's meter is averaged; a whole part of an hour.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    zone: str = Field(min_length=1, max_length=64)
    interval_s: float = Field(default=900.0, ge=60.0, le=3600.0)

    @field_validator("interval_s")
    @classmethod
    def _divides_an_hour(cls, interval_s: float) -> float:
        if 3600.0 % interval_s:
            raise ValueError(f"{interval_s:g} s is no whole part of an hour")
        return interval_s


class FlexSettings(BaseModel):
    """Where the bus is, whom we believe on it, and which feeds are ours.

    Attributes:
        mqtt: the bus; None: the utility's OpenADR alone speaks for the grid.
        jwks_file, jwks_url: where the public keys are, one of the two; no public contract says
            where they come from.
        jwks_ca_file: the authorities to trust for `jwks_url`, where they are not the machine's.
        jwks_refresh_s: how often they are looked at again, or sooner where the answer says so.
        jwks_look_again_s: the least time between two looks, whatever is asked for.
        jwks_kept_s: how long they are believed after they were last confirmed.
        trusted: per source, `//grid/v1/<role>/<identifier>`, the `kid` of each key that may sign
            for it, also of one that is not published yet; `acme-*` binds every kid that begins
            so. A source that is not listed is never believed.
        replay_window_s: how old an event's `time` may be.
        site_id: the site whose limit we tell.
        feeds: the feed tags of the site, all of them.
        cpc_id: our Control Plane Cluster, where we are attached to the common bus: its topics then
            count too, those of other clusters do not.
        needs_snapshot: after connecting, what is in force counts as known only once the Flex Agent
            has published its state; without it a limit sent while we were away is missed.
        ramp: how fast the site moves; without it the schedule has no ramps.
        openadr: a utility's VTN, where there is one.
        notice_s: the notice that the site was promised; a target with less is remarked upon.
        settlement: keep the site's metered intervals; None: a settlement needs a CSV of the meter.
        publish: who we are where we send targets ourselves; None: we only listen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mqtt: MqttSettings | None = None
    jwks_file: Path | None = None
    jwks_url: str | None = None
    jwks_ca_file: Path | None = None
    jwks_refresh_s: float = Field(default=3600.0, ge=60.0, le=86_400.0)
    jwks_look_again_s: float = Field(default=60.0, ge=5.0, le=3600.0)
    jwks_kept_s: float = Field(default=86_400.0, ge=60.0, le=30 * 86_400.0)
    trusted: dict[str, tuple[str, ...]] = {}
    replay_window_s: float = Field(default=300.0, gt=0, le=86_400)
    site_id: str = Field(min_length=1, max_length=200)
    feeds: tuple[str, ...] = Field(min_length=1)
    cpc_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    needs_snapshot: bool = True
    ramp: Ramp | None = None
    openadr: OpenAdrSettings | None = None
    notice_s: float = Field(default=0.0, ge=0.0)
    settlement: SettlementSettings | None = None
    publish: PublishSettings | None = None

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
            for kid in kids:
                if not kid.removesuffix("*"):
                    raise ValueError(f"{source} must name its kids, or at least how they begin")
        _one_key_one_source(trusted)
        return trusted

    @field_validator("jwks_url")
    @classmethod
    def _keys_come_encrypted(cls, url: str | None) -> str | None:
        return None if url is None else encrypted_url(url)

    @model_validator(mode="after")
    def _is_heard_somewhere(self) -> Self:
        """The bus with its keys, or OpenADR alone; nothing of the bus without the bus."""
        if self.mqtt is None:
            if self.openadr is None:
                raise ValueError("name mqtt, openadr, or both: else nothing speaks for the grid")
            of_the_bus = ("trusted", "jwks_file", "jwks_url", "publish", "cpc_id")
            if given := [name for name in of_the_bus if getattr(self, name)]:
                raise ValueError(f"{', '.join(given)}: of the bus, and there is no mqtt")
            return self
        if not self.trusted:
            raise ValueError("trusted names nobody: then nothing on the bus is believed")
        if (self.jwks_file is None) is (self.jwks_url is None):
            raise ValueError("name either jwks_file or jwks_url")
        return self

    @model_validator(mode="after")
    def _our_key_is_ours(self) -> Self:
        """What we sign must be believed here too, or we could not see what became of it."""
        ours = self.publish
        if ours is None:
            return self
        if not any_kid(self.trusted.get(ours.source, ()), ours.kid):
            raise ValueError(f"publish: trusted must bind the kid {ours.kid!r} to {ours.source}")
        if strange := sorted(ours.meters.keys() - set(self.feeds)):
            raise ValueError(f"publish.meters names {', '.join(strange)}, no feed of this site")
        return self

    @field_validator("feeds")
    @classmethod
    def _feeds_are_distinct(cls, feeds: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(feeds)) != len(feeds) or not all(feed.strip() for feed in feeds):
            raise ValueError("feeds must be distinct names")
        return feeds


def any_kid(bound: Sequence[str], kid: str) -> bool:
    """Whether `kid` is one of these, or begins as one of them that ends in `*` does."""
    return any(kid.startswith(name[:-1]) if name.endswith("*") else kid == name for name in bound)


def _one_key_one_source(trusted: dict[str, tuple[str, ...]]) -> None:
    """Else a key's holder could speak as another."""
    bound = [(source, kid) for source, kids in trusted.items() for kid in kids]
    for place, (source, kid) in enumerate(bound):
        for other, taken in bound[:place]:
            if other != source and (
                any_kid([taken], kid.removesuffix("*")) or any_kid([kid], taken.removesuffix("*"))
            ):
                raise ValueError(
                    f"key {kid!r} stands for {other} and for {source}; one key, one source"
                )
