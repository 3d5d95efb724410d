"""Questions to one HTTP server: encrypted, within a time and a size, and to nobody else.

A redirect is never followed: what a server sends elsewhere could go, with our token, to anyone.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

import anyio
import httpx2

from interlock_servers.transports.bounded_http import bounded
from interlock_servers.transports.mqtt_token import is_loopback
from interlock_tools.errors import ComponentError, InvalidRequestError, UnavailableError

TIMEOUT_S: Final = 10.0
MAX_BYTES: Final = 4 * 1024 * 1024
_NOTHING: Mapping[str, str] = {}
_PLAIN: Mapping[str, str] = {"Accept": "application/json", "Accept-Encoding": "identity"}


class Answer(NamedTuple):
    """What the server said; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def encrypted_url(url: str) -> str:
    """The URL, where it is https, or http to this machine, and holds no credentials.

    Raises:
        ValueError: it is not; credentials in it are not repeated.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc or not parts.hostname:
        raise ValueError("the URL must name a host and hold no credentials")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError("the URL must begin with https://; http:// is for this machine alone")
    return url


class RestClient:
    """One server; every answer is whole, in time and not too large, or it is an error."""

    def __init__(
        self,
        base_url: str,
        *,
        component: str,
        ca_file: Path | None = None,
        timeout_s: float = TIMEOUT_S,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Describe the server.

        Args:
            base_url: paths are added to it; see `encrypted_url`.
            component: whose errors these are.
            ca_file: the authorities to trust; those of the machine where none is named.
            timeout_s: for the whole of one question, however slowly its answer trickles.
            max_bytes: of one answer.
        """
        self._base_url = base_url.rstrip("/")
        self._component = component
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._http: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        """Make ready; nothing is sent.

        Raises:
            InvalidRequestError: the file of authorities cannot be read.
        """
        try:
            trust = ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:
            raise InvalidRequestError(f"{self._ca_file} cannot be read: {error}") from error
        self._http = httpx2.AsyncClient(
            verify=trust, timeout=self._timeout_s, follow_redirects=False
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def ask(
        self,
        method: str,
        path: str = "",
        *,
        query: Mapping[str, str] = _NOTHING,
        headers: Mapping[str, str] = _NOTHING,
        json: Any = None,
    ) -> Answer:
        """One question and its answer, whatever status it has.

        Raises:
            UnavailableError: no whole answer came in time; after a write the state is unknown.
            ComponentError: `REDIRECT`, it sends us elsewhere; `TOO_LARGE`.
        """
        if self._http is None:
            raise UnavailableError(f"the connection to {self._base_url} is not open")
        try:
            with anyio.fail_after(self._timeout_s):
                async with self._http.stream(
                    method,
                    f"{self._base_url}{path}",
                    params=dict(query) or None,
                    headers={**_PLAIN, **headers},
                    json=json,
                ) as got:
                    parts = bounded(got.aiter_bytes(), self._max_bytes)
                    body = b"".join([part async for part in parts])
        except httpx2.StreamError as error:
            raise ComponentError(self._component, "TOO_LARGE", str(error)) from error
        except (httpx2.HTTPError, OSError, TimeoutError) as error:
            raise UnavailableError(
                f"{self._base_url}{path} gave no answer: {type(error).__name__}"
            ) from error
        if 300 <= got.status_code < 400 and got.status_code != 304:
            raise ComponentError(
                self._component, "REDIRECT", f"{path or 'it'} sends us elsewhere; name that address"
            )
        return Answer(got.status_code, {k.lower(): v for k, v in got.headers.items()}, body)
