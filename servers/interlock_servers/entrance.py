"""Settings of the way in over HTTP: whose tokens, by which names, how much of it, how fast."""

from typing import Self
from urllib.parse import urlsplit

from mcp.server.transport_security import TransportSecuritySettings
from pydantic import BaseModel, ConfigDict, Field, model_validator

from interlock_servers.app import LOOPBACK
from interlock_servers.identity import IssuerSettings
from interlock_servers.surface.limits import HttpLimits
from interlock_servers.surface.toolsets import Narrow


class EntranceSettings(BaseModel):
    """Who comes in over HTTP, and how far. By default: this machine, by tokens of our own.

    `public_url` is the address that clients use, where it is not the one that we listen at: their
    tokens are for it. `allowed_hosts` are other names that requests may come by, such as that of a
    Service behind a gateway; `allowed_origins` are web pages that may call.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    public_url: str | None = None
    authorization: IssuerSettings | None = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    toolsets: tuple[str, ...] | None = Field(default=None, min_length=1)
    read_only: bool = False
    no_destructive: bool = False
    limits: HttpLimits = HttpLimits()

    @model_validator(mode="after")
    def _public_url_is_an_origin(self) -> Self:
        if self.public_url is not None:
            parts = urlsplit(self.public_url)
            origin = f"{parts.scheme}://{parts.netloc}"
            if parts.scheme not in {"http", "https"} or self.public_url != origin:
                raise ValueError(
                    "public_url is scheme and host, such as https://hall-1.example.com"
                )
        return self

    @property
    def narrow(self) -> Narrow:
        """What these settings leave of the tools."""
        return Narrow(
            toolsets=None if self.toolsets is None else frozenset(self.toolsets),
            read_only=self.read_only,
            no_destructive=self.no_destructive,
        )

    @property
    def security(self) -> TransportSecuritySettings:
        """The hosts and origins that requests may name."""
        public = [] if self.public_url is None else [urlsplit(self.public_url).netloc]
        return TransportSecuritySettings(
            allowed_hosts=[*LOOPBACK.allowed_hosts, *public, *self.allowed_hosts],
            allowed_origins=[*LOOPBACK.allowed_origins, *self.allowed_origins],
        )
