"""The settings of a federated server: how it is reached, and what each of its tools may do here.

What the settings do not say of a tool is unknown, and what is unknown is not offered.
"""

from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from interlock_servers.federation.models import local_name
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.operation import Effect

OURS = frozenset(
    {
        "exchange",
        "dsx_exchange",
        "bms",
        "isolation",
        "maxlps",
        "dps",
        "dps_groups",
        "flex",
        "nvsentinel",
        "remediation",
        "janitor",
        "plan",
        "canary",
        "guard",
        "mcp",
        "federation",
    }
)
TOOL_NAME_CHARS = 128
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class VerifyWith(BaseModel):
    """The read that shows whether a change took effect.

    Attributes:
        tool: a tool of the same server whose effect is `read`.
        arguments: its arguments; a text `{name}` stands for the change's own argument `name`.
        path: where in its structured answer to look, such as `workload.status.phase`.
        equals: what must stand there; `{name}` as above.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tool: str
    arguments: dict[str, Any] = {}
    path: str = Field(min_length=1, max_length=200)
    equals: str | bool | int | float


class ToolSettings(BaseModel):
    """What one tool of the server does, said by the site and not by the server.

    Attributes:
        effect: how hard it is to take back.
        target: the argument that names the thing which is locked; None: the whole server.
        target_kind: what kind of thing that is, where others of ours know it too, such as `node`.
        reach: whom it reaches, at most. None: nobody knows, and that counts as the whole site.
        verify_with: the read that shows its effect; None: it is never called done.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    effect: Effect
    target: str | None = None
    target_kind: str | None = Field(default=None, pattern=r"^[a-z][a-z_]{0,39}$")
    reach: BlastRadius | None = None
    verify_with: VerifyWith | None = None

    @model_validator(mode="after")
    def _only_what_changes_has_a_reach(self) -> Self:
        said = (self.target, self.target_kind, self.reach, self.verify_with)
        if self.effect is Effect.READ and any(each is not None for each in said):
            raise ValueError("a read has neither target nor reach nor verify_with")
        if self.target_kind is not None and self.target is None:
            raise ValueError("target_kind needs target, the argument that names the thing")
        return self


class FederatedSettings(BaseModel):
    """Another MCP server: a command that speaks over stdin and stdout, or a URL.

    Attributes:
        name: the component that it is here; its face is `/{name}/mcp`.
        env: the names of our environment variables that the command is given, and no others.
        bearer_env: the variable that holds the token for the URL.
        forward_caller_token: send the caller's own token to the URL instead, reads only. The server
            can then act as the caller wherever that token is good: switch it on only for one that
            the same people run.
        tools: the tools that may be offered, by the name that the server gives them.
        relist_after_s: a tool list older than this is read again before it is believed.
        read_deadline_s: how long a read may take.
        act_timeout_s: how long a change may take to be answered; then its answer is lost.
        verify_within_s: how long its effect may take to show.
        answer_max_chars: how much of an answer is shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9]{1,15}$")
    command: str | None = Field(default=None, min_length=1)
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    url: str | None = None
    bearer_env: str | None = None
    forward_caller_token: bool = False
    tools: dict[str, ToolSettings] = {}
    relist_after_s: float = Field(default=1.0, ge=0, le=60)
    connect_timeout_s: float = Field(default=10.0, gt=0, le=120)
    read_deadline_s: float = Field(default=9.0, gt=0, lt=10)
    act_timeout_s: float = Field(default=60.0, gt=0, le=600)
    verify_within_s: float = Field(default=120.0, gt=0, le=86_400)
    answer_max_chars: int = Field(default=16_000, ge=200, le=200_000)

    @model_validator(mode="after")
    def _is_reached_in_one_way(self) -> Self:
        if (self.command is None) is (self.url is None):
            raise ValueError(f"{self.name}: name a command or a url, one of them")
        if self.url is None:
            if self.bearer_env or self.forward_caller_token:
                raise ValueError(f"{self.name}: a command is given no token; name its env")
            return self
        if self.args or self.env:
            raise ValueError(f"{self.name}: args and env belong to a command")
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            raise ValueError(f"{self.name}: url must be http(s)://host/path without a password")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ValueError(f"{self.name}: beyond loopback the url must be https://")
        return self

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        if self.name in OURS:
            raise ValueError(f"{self.name} is a name of our own; choose another")
        names: dict[str, str] = {}
        for tool in self.tools:
            if not 0 < len(tool) <= TOOL_NAME_CHARS:
                raise ValueError(f"a tool's name has 1 to {TOOL_NAME_CHARS} characters")
            local = local_name(tool, self.name)
            if local in names:
                raise ValueError(f"tools {names[local]!r} and {tool!r} would both be {local!r}")
            names[local] = tool
        return self

    @model_validator(mode="after")
    def _what_is_referred_to_is_there(self) -> Self:
        for name, tool in self.tools.items():
            if tool.effect is not Effect.READ and self.forward_caller_token:
                raise ValueError(
                    f"{self.name}: with forward_caller_token only reads are offered, for a change "
                    f"is carried out when its caller is gone; {name} is {tool.effect}"
                )
            look = tool.verify_with
            if look is None:
                continue
            if look.tool not in self.tools or self.tools[look.tool].effect is not Effect.READ:
                raise ValueError(f"{name}: verify_with names {look.tool!r}, which is no read here")
        return self


def _distinct(servers: tuple[FederatedSettings, ...]) -> tuple[FederatedSettings, ...]:
    names = [server.name for server in servers]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{names.count(name)} servers are called {name}")
    return servers


FederatedServers = Annotated[tuple[FederatedSettings, ...], AfterValidator(_distinct)]
