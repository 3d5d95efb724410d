"""Where a gRPC server is and who we are to it; a secret is named, never held."""

import ipaddress
import os
from pathlib import Path
from typing import Self

import grpc
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from interlock_tools.errors import InvalidRequestError


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`.

    Raises:
        InvalidRequestError: it is something else, such as a URL.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    known = host and "/" not in host and port.isascii() and port.isdigit()
    if not known or not 0 < int(port) < 65_536 or (":" in host and "[" not in address):
        raise InvalidRequestError(f"address {address!r} must be host:port, without a scheme")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, so that nothing crosses a network."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class GrpcSettings(BaseModel):
    """Where a server listens and how we prove who we are.

    `token_env` or `token_file` names the bearer token; it is read at every call, so that a renewed
    one is used at once. Without TLS a token is sent to this machine only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    address: str = Field(min_length=3, max_length=300)
    tls: bool = True
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    token_env: str | None = None
    token_file: Path | None = None
    deadline_s: float = Field(default=10.0, gt=0, le=600)

    @field_validator("address")
    @classmethod
    def _address_is_host_and_port(cls, address: str) -> str:
        try:
            split_address(address)
        except InvalidRequestError as error:
            raise ValueError(str(error)) from None
        return address

    @model_validator(mode="after")
    def _secrets_travel_encrypted(self) -> Self:
        if self.token_env and self.token_file:
            raise ValueError("name token_env or token_file, not both")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        if self.tls:
            return self
        if self.ca_file or self.cert_file:
            raise ValueError("ca_file, cert_file and key_file need tls")
        if self.has_token and not is_loopback(split_address(self.address)[0]):
            raise ValueError(f"a token is never sent in the clear: {self.address} needs tls")
        return self

    @property
    def has_token(self) -> bool:
        """Whether a bearer token belongs to every call."""
        return bool(self.token_env or self.token_file)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call: the token of this moment, if there is one.

        Raises:
            InvalidRequestError: the variable or the file is not there, or is empty.
        """
        if not self.has_token:
            return ()
        if self.token_env:
            where = f"the environment variable {self.token_env}"
            token = os.environ.get(self.token_env, "").strip()
        else:
            where = f"the file {self.token_file}"
            token = _read(self.token_file, where).decode("ascii", "replace").strip()
        if not token or not token.isascii() or not token.isprintable():
            raise InvalidRequestError(f"{where} should hold a bearer token and does not")
        return (("authorization", f"Bearer {token}"),)

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Trust and identity for TLS, read from the files now; None for a plain channel.

        Raises:
            InvalidRequestError: a file is not there.
        """
        if not self.tls:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca_file, "ca_file") if self.ca_file else None,
            private_key=_read(self.key_file, "key_file") if self.key_file else None,
            certificate_chain=_read(self.cert_file, "cert_file") if self.cert_file else None,
        )


def _read(path: Path | None, what: str) -> bytes:
    try:
        return path.read_bytes() if path else b""
    except OSError as error:
        raise InvalidRequestError(f"{what} cannot be read: {error}") from error
