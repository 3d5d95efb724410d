"""What an agent of one node is told."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from interlock_servers.devices.bmc import BmcSettings
from interlock_servers.devices.recorded import Way
from interlock_servers.transports.grpc_settings import is_loopback


class AgentSettings(BaseModel):
    """One host's agent. Whoever asks must prove who it is: by certificate, by token, or both.

    Attributes:
        listen: `host:port`; port 0 lets the system choose.
        way: how the GPUs are reached. One agent has one way, so that no GPU has two writers here.
        state_file: where it keeps which caps it holds, over restarts.
        cert_file, key_file: who we are. Without them it serves this machine only.
        client_ca_file: who vouches for those who ask.
        readers, writers: common names of certificates that may read, and read and cap.
        reader_token_file, writer_token_file: a bearer token of each; read at every call.
        sample_s: how often the devices are read.
        driver_timeout_s: how long a driver may take before it counts as hung.
        most_hold_s: the longest that a cap may last without being renewed.
        most_w: a limit that this agent never goes above, whoever asks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_id: str = Field(min_length=1, max_length=200)
    listen: str = Field(default="127.0.0.1:8480", min_length=3, max_length=300)
    way: Way = Way.NVML
    bmc: BmcSettings | None = None
    state_file: Path = Path("interlock-node-caps.json")
    cert_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None
    readers: frozenset[str] = frozenset()
    writers: frozenset[str] = frozenset()
    reader_token_file: Path | None = None
    writer_token_file: Path | None = None
    sample_s: float = Field(default=1.0, ge=0.1, le=60)
    driver_timeout_s: float = Field(default=10.0, gt=0, le=120)
    most_hold_s: float = Field(default=600.0, ge=1, le=86_400)
    most_w: float | None = Field(default=None, gt=0, le=20_000)

    @property
    def needs_certificate(self) -> bool:
        """Whether those who ask must show one."""
        return self.client_ca_file is not None

    @property
    def needs_token(self) -> bool:
        """Whether those who ask must have one."""
        return self.reader_token_file is not None or self.writer_token_file is not None

    @model_validator(mode="after")
    def _nobody_comes_in_unknown(self) -> Self:
        host, _, port = self.listen.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65_535:
            raise ValueError(f"listen: {self.listen!r} must be host:port")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        if not (self.needs_certificate or self.needs_token):
            raise ValueError("name client_ca_file or a token file: an agent answers nobody unknown")
        if self.needs_certificate and not (self.cert_file and (self.readers or self.writers)):
            raise ValueError("client_ca_file needs cert_file, key_file and some readers or writers")
        if self.cert_file is None and not is_loopback(host.strip("[]")):
            raise ValueError(f"{self.listen} is not this machine alone: it needs cert_file")
        if (self.way is Way.REDFISH) != (self.bmc is not None):
            raise ValueError('bmc belongs to way = "redfish", and that to it')
        return self
