"""One connection to one API server: raw JSON in and out, within a time and a size.

Credentials, certificates and exec plugins are `kubernetes.aio`'s; its typed models are not used,
because decoding 40,000 pods into them costs 20 s.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config
from yaml import YAMLError

from interlock_servers.transports.kube.breaker import CircuitBreaker, pause
from interlock_servers.transports.kube.failures import NOT_NOW, UNDECIDED, failure
from interlock_servers.transports.kube.settings import ClusterSettings
from interlock_tools.clock import Clock
from interlock_tools.errors import (
    ComponentError,
    FactoryError,
    InvalidRequestError,
    UnavailableError,
)

Json = dict[str, Any]
READ_TRIES: Final = 3
PATCH_TYPES: Final = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "apply": "application/apply-patch+yaml",  # JSON is YAML; current servers take this name too
}
_NONE: Mapping[str, str] = {}


class Connection:
    """Asks one API server; every answer is JSON, whole and in time, or it is an error."""

    def __init__(self, settings: ClusterSettings, clock: Clock, *, component: str) -> None:
        self.settings = settings
        self.clock = clock
        self.component = component
        self.breaker = CircuitBreaker(clock, f"the API server of {settings.name}")
        self._api: ApiClient | None = None

    async def __aenter__(self) -> Self:
        """Read the credentials; nothing is sent yet.

        Raises:
            InvalidRequestError: the kubeconfig or the pod's service account cannot be used.
        """
        configuration = Configuration()
        settings = self.settings
        try:
            if settings.in_cluster:
                load_incluster_config(client_configuration=configuration)
            else:
                await load_kube_config(
                    config_file=str(settings.kubeconfig),
                    context=settings.context,
                    client_configuration=configuration,
                    persist_config=False,
                )
        except (ConfigException, YAMLError, OSError, ValueError, KeyError, TypeError) as error:
            where = "the service account" if settings.in_cluster else str(settings.kubeconfig)
            raise InvalidRequestError(f"{where} cannot be used: {error}") from error
        configuration.retries = 0  # what is asked again is ours to say
        configuration.trace_configs = [_no_redirect()]
        self._api = ApiClient(configuration)
        self._api.user_agent = "interlock"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._api is not None:
            await self._api.close()
            self._api = None

    async def read(self, path: str, query: Mapping[str, Any] = _NONE) -> Json:
        """One GET; asked again a few times where nothing answered or the server is overloaded.

        Raises:
            FactoryError: see `failures`; UnavailableError where there was no answer in time.
        """
        doing = f"get {path}"
        for left in range(READ_TRIES - 1, -1, -1):
            try:
                return await self._ask("GET", path, query, None, doing, writes=False)
            except (UnavailableError, ComponentError) as error:
                may_pass = isinstance(error, UnavailableError) or error.code == "NOT_NOW"
                if not left or not may_pass or self.breaker.is_open:
                    raise
            await self.clock.sleep(pause(READ_TRIES - 1 - left) / 4)
        raise AssertionError("unreachable: the last try returns or raises")

    async def write(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] = _NONE,
        body: Any = None,
        *,
        content: str = "application/json",
    ) -> Json:
        """One write, sent once and never again.

        Raises:
            FactoryError: see `failures`; after an UnavailableError the state is unknown.
        """
        doing = f"{method.lower()} {path}"
        return await self._ask(method, path, query, body, doing, writes=True, content=content)

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, Any]
    ) -> AsyncIterator[AsyncGenerator[Json, None]]:
        """The events of one watch, which is open once this is entered.

        They end when the server ends it, or says nothing for `quiet_s`.

        Raises:
            UnavailableError: it could not be opened, broke, or sent what is no JSON.
            ExpiredError: the resource version is forgotten.
            FactoryError: it was refused.
        """
        doing = f"watch {path}"
        patience = aiohttp.ClientTimeout(
            total=None, connect=self.settings.deadline_s, sock_read=self.settings.quiet_s
        )
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(self.settings.deadline_s):
                response = await self._send("GET", path, query, None, doing, patience)
                if response.status >= 300:
                    said = await self._whole(response)
                    status = response.status
                    raise failure(status, said, doing, component=self.component, writes=False)
            async with aclosing(self._events(response, doing)) as events:
                yield events
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnavailableError(f"{doing} broke: {type(error).__name__}") from error
        finally:
            if response is not None:
                response.close()

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Any,
        doing: str,
        *,
        writes: bool,
        content: str = "application/json",
    ) -> Json:
        self.breaker.enter()
        answered = False
        try:
            async with asyncio.timeout(self.settings.deadline_s):
                response = await self._send(method, path, query, body, doing, None, content)
                try:
                    got = await self._whole(response)
                finally:
                    response.release()
            answered = response.status not in UNDECIDED
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.breaker.silent()
            after = "; whether it was done is unknown: read back" if writes else ""
            why = f"no answer within {self.settings.deadline_s:g} s"
            if not isinstance(error, TimeoutError):
                why = f"no answer: {type(error).__name__}"
            raise UnavailableError(f"{doing}: {why}{after}") from error
        except FactoryError:
            self.breaker.answered()
            raise
        except BaseException:
            self.breaker.left()
            raise
        if answered or response.status == NOT_NOW:
            self.breaker.answered()
        else:
            self.breaker.silent()
        if response.status >= 300:
            raise failure(response.status, got, doing, component=self.component, writes=writes)
        return _object(got, doing)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Any,
        doing: str,
        patience: aiohttp.ClientTimeout | None,
        content: str = "application/json",
    ) -> aiohttp.ClientResponse:
        if self._api is None:
            raise UnavailableError(f"{doing}: the connection to {self.settings.name} is not open")
        asked = {key: value for key, value in query.items() if value not in (None, "")}
        url = f"{self._api.configuration.host}{path}"
        if asked:
            url += f"?{urlencode(asked)}"
        headers = {"Accept": "application/json", "Content-Type": content}
        headers["User-Agent"] = self._api.user_agent
        token = (await self._api.configuration.auth_settings()).get("BearerToken")
        if token and token["value"]:
            headers["authorization"] = token["value"]
        answer = await self._api.call_api(
            method,
            url,
            headers,
            body,
            _request_timeout=patience or aiohttp.ClientTimeout(total=None),
        )
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _whole(self, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_any():
            size += len(part)
            if size > self.settings.most_bytes:
                response.close()
                raise ComponentError(
                    self.component, "TOO_LARGE", f"an answer has over {self.settings.most_bytes} B"
                )
            parts.append(part)
        return b"".join(parts)

    async def _events(
        self, response: aiohttp.ClientResponse, doing: str
    ) -> AsyncGenerator[Json, None]:
        """One object a line, however long: aiohttp's own reader of lines stops at its buffer."""
        rest = bytearray()
        while True:
            try:
                part = await response.content.readany()
            except aiohttp.SocketTimeoutError:
                return  # silent for long: whoever opens it anew sees whether it lives
            if not part:
                return
            rest += part
            if len(rest) > self.settings.most_bytes:
                raise UnavailableError(f"an event has over {self.settings.most_bytes} B")
            if b"\n" in part:
                *whole, last = bytes(rest).split(b"\n")
                rest = bytearray(last)
                for line in whole:
                    if line.strip():
                        yield _object(line, doing)


def _object(body: bytes, doing: str) -> Json:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnavailableError(f"{doing}: what came is no JSON: {error}"[:300]) from error
    if not isinstance(found, dict):
        raise UnavailableError(f"{doing}: what came is no object")
    return found


def _no_redirect() -> aiohttp.TraceConfig:
    """An API server does not redirect; whoever does could be after our token."""

    async def refuse(*_: object) -> None:
        raise aiohttp.ClientError("it sends us elsewhere, and is not followed")

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    return trace
