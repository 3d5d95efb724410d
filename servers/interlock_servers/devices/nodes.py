"""What whoever reads the agents of many nodes is told; it loads no driver's names."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from interlock_servers.transports.grpc_settings import GrpcSettings


class NodeSettings(GrpcSettings):
    """Where the agent of one node is; address, TLS and token are those of any gRPC server."""

    node_id: str = Field(min_length=1, max_length=200)


class NodesSettings(BaseModel):
    """The agents of a site.

    Attributes:
        controller_id: who caps through us; an agent lets one at a time.
        deadline_s: how long all nodes together may take to be read.
        fresh_s: how old a node's reading may be and still be used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: tuple[NodeSettings, ...] = Field(min_length=1, max_length=16_384)
    controller_id: str = Field(default="interlock", min_length=1, max_length=200)
    deadline_s: float = Field(default=2.0, gt=0, le=60)
    fresh_s: float = Field(default=10.0, gt=0, le=600)

    @field_validator("nodes")
    @classmethod
    def _each_once(cls, nodes: tuple[NodeSettings, ...]) -> tuple[NodeSettings, ...]:
        for what, values in (
            ("node_id", [node.node_id for node in nodes]),
            ("address", [node.address for node in nodes]),
        ):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"{what} {twice[0]} stands twice")
        return nodes
