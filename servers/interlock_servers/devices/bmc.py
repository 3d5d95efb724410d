"""JSON over HTTP with one BMC: bounded, on one connection, and never in the clear on a network."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import httpx2
from pydantic import BaseModel, ConfigDict, Field, model_validator

from interlock_servers.transports.grpc_settings import is_loopback
from interlock_tools.errors import InvalidRequestError, UnavailableError

ROOT = "/redfish/v1"
MAX_BYTES = 1_048_576  # of one answer


class BmcSettings(BaseModel):
    """Where a BMC is and who we are to it. The password is named, never held.

    Attributes:
        url: `https://host`; plain `http` on this machine only.
        ca_file: who vouches for its certificate, where that is not a public issuer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(min_length=8, max_length=300)
    ca_file: Path | None = None
    username: str | None = None
    password_env: str | None = None
    password_file: Path | None = None
    deadline_s: float = Field(default=10.0, gt=0, le=120)

    @model_validator(mode="after")
    def _is_a_bmc_that_we_may_talk_to(self) -> Self:
        url = httpx2.URL(self.url)
        if url.scheme not in ("http", "https") or not url.host or url.path not in ("", "/"):
            raise ValueError(f"url: {self.url!r} must be https://host, without a path")
        if url.userinfo:
            raise ValueError("url: name the user by username, never in the address")
        if url.scheme == "http" and not is_loopback(url.host):
            raise ValueError(f"url: {url.host} is not this machine, so it needs https")
        if self.password_env and self.password_file:
            raise ValueError("name password_env or password_file, not both")
        if bool(self.username) != bool(self.password_env or self.password_file):
            raise ValueError("username and a password belong together")
        return self

    def auth(self) -> tuple[str, str] | None:
        """User and password of this moment.

        Raises:
            InvalidRequestError: the variable or the file is not there, or is empty.
        """
        if self.username is None:
            return None
        if self.password_env is not None:
            password = os.environ.get(self.password_env, "")
        else:
            try:
                password = Path(self.password_file or "").read_text("utf-8").strip()
            except OSError as error:
                raise InvalidRequestError(f"password_file cannot be read: {error}") from error
        if not password:
            raise InvalidRequestError("the password of the BMC is empty or not there")
        return self.username, password


class Answer(NamedTuple):
    """One answer: status, `ETag` where there is one, and the JSON object; empty where none."""

    status: int
    etag: str | None
    body: dict[str, Any]


class Bmc(Protocol):
    """What Redfish is read from and written to."""

    def get(self, path: str) -> Answer:
        """One resource.

        Raises:
            UnavailableError: no answer, or one that is no JSON object.
        """
        ...

    def patch(self, path: str, body: dict[str, Any], etag: str | None) -> Answer:
        """Change one resource; sent once.

        Raises:
            UnavailableError: no answer; it may have been done.
        """
        ...

    def close(self) -> None:
        """Let the connection go."""
        ...


class HttpBmc:
    """A real BMC. It has few connections to give, so one is used and kept."""

    def __init__(self, settings: BmcSettings) -> None:
        import ssl

        verify: Any = True
        if settings.ca_file is not None:
            verify = ssl.create_default_context(cafile=str(settings.ca_file))
        self._http = httpx2.Client(
            base_url=settings.url,
            auth=settings.auth(),
            verify=verify,
            timeout=settings.deadline_s,
            follow_redirects=False,
            trust_env=False,
            limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1),
            headers={"OData-Version": "4.0", "Accept": "application/json"},
        )
        self._name = settings.url

    def get(self, path: str) -> Answer:
        """As the protocol says."""
        return self._send("GET", path, None, {})

    def patch(self, path: str, body: dict[str, Any], etag: str | None) -> Answer:
        """As the protocol says."""
        return self._send("PATCH", path, body, {} if etag is None else {"If-Match": etag})

    def close(self) -> None:
        """As the protocol says."""
        self._http.close()

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]
    ) -> Answer:
        check_path(path)
        try:
            with self._http.stream(method, path, json=body, headers=headers) as response:
                text = bytearray()
                for part in response.iter_bytes():
                    text += part
                    if len(text) > MAX_BYTES:
                        raise UnavailableError(f"{self._name}{path} answers without end")
        except httpx2.HTTPError as error:
            said = str(error) or type(error).__name__
            raise UnavailableError(f"{self._name} does not answer {path}: {said}") from None
        return Answer(response.status_code, response.headers.get("etag"), _object(bytes(text)))


def check_path(path: str) -> None:
    """A link of an answer may lead to another resource of this BMC and nowhere else.

    Raises:
        UnavailableError: it leads elsewhere.
    """
    if not path.startswith(f"{ROOT}/") and path != ROOT:
        raise UnavailableError(f"a link leads out of Redfish: {path[:200]!r}")


def _object(text: bytes) -> dict[str, Any]:
    """The object; what is none is empty, and the status says the rest."""
    try:
        value = json.loads(text) if text.strip() else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
