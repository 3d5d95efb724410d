"""`interlock.toml`: one file, a table per component, frozen at start; secrets by reference."""

import getpass
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from interlock_console.telemetry import TelemetrySettings
from interlock_guardrails.rules import EVERY_AGENT, SiteRules
from interlock_servers.alerts import AlertSettings
from interlock_servers.checkpoint_sink import SinkSettings
from interlock_servers.entrance import EntranceSettings
from interlock_servers.exchange.settings import ExchangeSettings
from interlock_servers.federation.settings import FederatedServers
from interlock_servers.flex.settings import FlexSettings
from interlock_servers.maxlps.node_settings import PowerTables
from interlock_servers.nvsentinel.settings import NvsentinelSettings
from interlock_servers.site import SiteSettings
from interlock_tools.errors import InvalidRequestError
from interlock_tools.identity import Principal, PrincipalKind

DEFAULT_FILE = Path("interlock.toml")


class HttpSettings(EntranceSettings):
    """Where the servers listen, and who comes in. Loopback unless told otherwise."""

    host: str = "127.0.0.1"
    port: int = Field(default=8470, ge=1, le=65535)

    @property
    def base_url(self) -> str:
        """The address that clients use."""
        return f"http://{self.host}:{self.port}"


class InterlockSettings(PowerTables):
    """The whole file.

    `people` maps a user of this machine to the roles that the user votes with at the CLI; `agents`
    an agent that may log in to the person who answers for it, and who cannot approve for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: SiteRules
    bundle: str = "observe"
    data_dir: Path = Path("interlock-data")
    store_url: str | None = None
    store_url_env: str | None = None
    http: HttpSettings = HttpSettings()
    people: dict[str, frozenset[str]] = Field(default_factory=dict)
    agents: dict[str, str] = Field(default_factory=dict)
    sinks: SinkSettings = SinkSettings()
    alerts: AlertSettings | None = None
    exchange: ExchangeSettings | None = None
    flex: FlexSettings | None = None
    nvsentinel: NvsentinelSettings | None = None
    federated: FederatedServers = ()
    telemetry: TelemetrySettings = TelemetrySettings()

    @model_validator(mode="after")
    def _budgets_are_of_agents_that_may_log_in(self) -> Self:
        """A budget of a misspelt agent would bind nobody, and nobody would know."""
        known = {EVERY_AGENT, *(f"agent:{name}" for name in self.agents)}
        for budget in self.site.agent_budgets:
            if budget.agent_id not in known:
                raise ValueError(
                    f"site.agent_budgets: {budget.agent_id} may not log in; there is: "
                    + ", ".join(sorted(known))
                )
        return self

    def for_site(self) -> SiteSettings:
        """The part that makes a site."""
        return SiteSettings(
            rules=self.site,
            bundle=self.bundle,
            data_dir=self.data_dir,
            store_url=self.store_url,
            store_url_env=self.store_url_env,
            sinks=self.sinks,
            alerts=self.alerts,
            exchange=self.exchange,
            maxlps=self.maxlps,
            devices=self.devices,
            flex=self.flex,
            nvsentinel=self.nvsentinel,
            federated=self.federated,
        )


def load(path: Path) -> InterlockSettings:
    """The settings in this file.

    Raises:
        InvalidRequestError: it cannot be read, is no TOML, or a key is unknown, missing or wrong;
            the message names the file, the table and the key.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InvalidRequestError(f"{path}: there is no such settings file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequestError(f"{path}: is not TOML: {error}") from error
    return parse(document, str(path))


def parse(document: dict[str, Any], name: str) -> InterlockSettings:
    """The settings in this document; `name` is what errors call it.

    Raises:
        InvalidRequestError: names each key that is unknown, missing or wrong.
    """
    try:
        return InterlockSettings.model_validate(document)
    except ValidationError as error:
        wrong = "; ".join(
            f"[{'.'.join(str(part) for part in item['loc'])}] {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise InvalidRequestError(f"{name}: {wrong}") from None


def local_person(roles: frozenset[str]) -> Principal:
    """The user of this machine, as a person who votes with these roles."""
    return Principal(
        id=f"person:{getpass.getuser()}",
        kind=PrincipalKind.PERSON,
        authenticated_by="cli:local-user",
        roles=roles,
        scopes=frozenset({"interlock:read", "interlock:propose"}),
    )


def roles_of_user(settings: InterlockSettings) -> frozenset[str]:
    """The roles that the settings give the user of this machine."""
    return settings.people.get(getpass.getuser(), frozenset())
