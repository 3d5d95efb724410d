"""Where DPS is, who we are to it, and which site it serves."""

from pydantic import Field

from interlock_servers.transports.grpc_settings import GrpcSettings


class MaxlpsSettings(GrpcSettings):
    """Settings of the component `maxlps`; address, TLS and token are those of any gRPC server."""

    site_id: str = Field(min_length=1, max_length=200)
