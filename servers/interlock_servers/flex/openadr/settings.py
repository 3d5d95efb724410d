"""The settings of OpenADR: which VTN, which programs, and what its words mean here."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from interlock_servers.flex.openadr.callbacks import CallbackSettings
from interlock_servers.transports.mqtt_token import OAuthSettings
from interlock_servers.transports.rest import encrypted_url


class VtnLogin(OAuthSettings):
    """How we log in to a VTN; its token address reads the form and not the header."""

    scope: str = "read_all write_reports"
    credentials_in_form: bool = True


class OpenAdrSettings(BaseModel):
    """One VTN.

    Attributes:
        vtn_url: its base address, such as `https://vtn.example.com/openadr3/3.0.1`.
        version: whose report format it takes.
        login: how to get a token; a VTN on this machine may need none.
        ca_file: the authorities to trust for it, where they are not the machine's.
        programs: the programs that bind us, by name; events of others are not read.
        ven_name: who we are in reports, and what our random start is drawn from.
        feeds_of: per target of an event (a resource, a group) the feeds that it means here; an
            event that names targets and none of these is not for us.
        simple_levels_w: what the site may draw at the levels 1, 2 and 3 of SIMPLE; a level that
            is not here is refused.
        poll_s: how often events are asked for, whether or not the VTN calls.
        callback: where the VTN may call when something changed; None: we only ask.
        stale_after_s: after so long without a whole answer nothing counts as known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vtn_url: str
    version: Literal["3.0", "3.1"] = "3.0"
    login: VtnLogin | None = None
    ca_file: Path | None = None
    programs: tuple[str, ...] = Field(min_length=1)
    ven_name: str = Field(default="interlock", min_length=1, max_length=128)
    feeds_of: dict[str, tuple[str, ...]] = {}
    simple_levels_w: dict[int, float] = {}
    poll_s: float = Field(default=30.0, ge=5.0, le=900.0)
    stale_after_s: float = Field(default=120.0, ge=10.0, le=3600.0)
    callback: CallbackSettings | None = None

    @field_validator("vtn_url")
    @classmethod
    def _is_encrypted(cls, url: str) -> str:
        return encrypted_url(url)

    @model_validator(mode="after")
    def _may_subscribe(self) -> Self:
        """Else a VTN with logins would refuse us, and nobody would know why it never calls."""
        login = self.login
        lacks = login is not None and "write_subscriptions" not in login.scope.split()
        if self.callback is not None and lacks:
            raise ValueError("callback: the scope of login needs write_subscriptions")
        return self

    @field_validator("simple_levels_w")
    @classmethod
    def _levels_are_limits(cls, levels: dict[int, float]) -> dict[int, float]:
        ordered = [levels[level] for level in sorted(levels)]
        if not levels.keys() <= {1, 2, 3}:
            raise ValueError("SIMPLE has the levels 1, 2 and 3")
        if any(not watts > 0 for watts in ordered) or ordered != sorted(ordered, reverse=True):
            raise ValueError("a higher level must not leave more watts, and each leaves some")
        return levels
