"""Who may ask an agent for what: by certificate, by bearer token, or by both, and then the less."""

import hmac
from enum import IntEnum
from pathlib import Path
from typing import Any

import grpc

from interlock_servers.devices.settings import AgentSettings
from interlock_tools.errors import InvalidRequestError


class Role(IntEnum):
    """What somebody may do; each may also do what stands before it."""

    NOBODY = 0
    READER = 1
    WRITER = 2


class Access:
    """The rule of one agent."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings

    def role(self, context: Any) -> Role:
        """What this caller may do. Where certificate and token are both asked for, the less."""
        roles = []
        if self._settings.needs_certificate:
            roles.append(self._by_certificate(context))
        if self._settings.needs_token:
            roles.append(self._by_token(context))
        return min(roles, default=Role.NOBODY)

    def credentials(self) -> grpc.ServerCredentials | None:
        """Who we are, and who vouches for the others; None on this machine alone.

        Raises:
            InvalidRequestError: a file cannot be read.
        """
        settings = self._settings
        if settings.cert_file is None or settings.key_file is None:
            return None
        vouches = None if settings.client_ca_file is None else read(settings.client_ca_file)
        return grpc.ssl_server_credentials(
            [(read(settings.key_file), read(settings.cert_file))],
            root_certificates=vouches,
            require_client_auth=vouches is not None,
        )

    def _by_certificate(self, context: Any) -> Role:
        """By the common name of a certificate that TLS has verified."""
        names = {
            name.decode("utf-8", "replace")
            for name in context.auth_context().get("x509_common_name", ())
        }
        if names & self._settings.writers:
            return Role.WRITER
        return Role.READER if names & self._settings.readers else Role.NOBODY

    def _by_token(self, context: Any) -> Role:
        shown = b""
        for name, value in context.invocation_metadata() or ():
            if name == "authorization" and isinstance(value, str):
                scheme, _, token = value.partition(" ")
                shown = token.strip().encode() if scheme == "Bearer" else b""
        for file, role in (
            (self._settings.writer_token_file, Role.WRITER),
            (self._settings.reader_token_file, Role.READER),
        ):
            if file is None or not shown:
                continue
            try:
                wanted = read(file).strip()
            except InvalidRequestError:
                continue  # a token that cannot be read lets nobody in
            if wanted and hmac.compare_digest(shown, wanted):
                return role
        return Role.NOBODY


def read(file: Path) -> bytes:
    """A file of a certificate, a key or a token.

    Raises:
        InvalidRequestError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{file} cannot be read: {error}") from error
