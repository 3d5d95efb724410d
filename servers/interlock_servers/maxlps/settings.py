"""Where DPS is, who we are to it, and which site it serves."""

from pydantic import BaseModel, ConfigDict, Field

from interlock_servers.transports.grpc_settings import GrpcSettings


class Loop(BaseModel):
    """A cooling loop: the racks on it, and the heat that it takes in watts (at the meter)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    rack_ids: tuple[str, ...] = Field(min_length=1)
    heat_w: float = Field(gt=0)


class MaxlpsSettings(GrpcSettings):
    """Settings of the component `maxlps`; address, TLS and token are those of any gRPC server.

    `loops` and `tenants_least_w` (GPU watts by tenant) are limits that DPS does not know.
    """

    site_id: str = Field(min_length=1, max_length=200)
    loops: tuple[Loop, ...] = ()
    tenants_least_w: dict[str, float] = Field(default_factory=dict)
