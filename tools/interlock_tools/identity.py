"""Who asks and what they ask about: principals and targets."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class PrincipalKind(StrEnum):
    """What kind of thing acts."""

    AGENT = "agent"
    PERSON = "person"
    SERVICE = "service"


class Principal(BaseModel):
    """An authenticated actor. It is built from the channel's authentication, never from arguments.

    `owner` is the person who answers for an agent: that person cannot approve what it asks for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1, max_length=200)
    kind: PrincipalKind
    authenticated_by: str
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    owner: str | None = None
    on_behalf_of: str | None = None


class Target(BaseModel):
    """One thing of the plant, by kind and id: `node/node-001`, `site/lab`, `cdu/cdu-1`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(pattern=r"^[a-z][a-z_]{0,39}$")
    id: str = Field(min_length=1, max_length=200)

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}"
