"""A Kubernetes API server of our own inside the event loop, for the demo, the evals and the tests.

It keeps objects and rules as the real one does, over HTTP on loopback with a token for each
persona, and runs no container. It does not evaluate CEL, call webhooks, or serve protobuf.
"""

import secrets
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from interlock_servers.transports.embedded import EmbeddedServer
from interlock_servers.transports.kube.embedded.access import Access, first_roles
from interlock_servers.transports.kube.embedded.answers import Answers, Parts
from interlock_servers.transports.kube.embedded.controllers import Controllers
from interlock_servers.transports.kube.embedded.personas import (
    ADMIN,
    PERSONAS,
    Persona,
    write_kubeconfig,
)
from interlock_servers.transports.kube.embedded.registry import Registry
from interlock_servers.transports.kube.embedded.resources import built_in
from interlock_servers.transports.kube.embedded.store import Store
from interlock_servers.transports.kube.embedded.writes import Writer
from interlock_tools.clock import Clock, SystemClock
from interlock_tools.errors import InvalidRequestError

START_TIMEOUT_S: Final = 20.0
NAMESPACES: Final = ("default", "kube-node-lease", "kube-public", "kube-system")
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


class EmbeddedKube:
    """One API server; use it as a context, in which it listens.

    Args:
        folder: where it writes a kubeconfig for each persona.
        personas: who may call, and what RBAC lets them do.
        clock: what timestamps are taken from.
        policy_versions: the versions of group `policy` that it serves; `v1beta1` as before 1.25.

    Attributes:
        url: where it listens; "" before and afterwards.
        tokens: of each persona.
        watches: how many are open, by the plural of what they watch and the field selector.
    """

    def __init__(
        self,
        folder: Path,
        *,
        personas: Sequence[Persona] = PERSONAS,
        clock: Clock | None = None,
        policy_versions: tuple[str, ...] = ("v1",),
    ) -> None:
        self.url = ""
        self.watches: Counter[str] = Counter()
        self.tokens = {persona.name: secrets.token_hex(16) for persona in personas}
        self._folder = folder
        self._store = Store()
        self._registry = Registry(built_in(policy_versions))
        self._writer = Writer(self._store, self._registry, clock or SystemClock())
        self._controllers = Controllers(self._store, self._registry, self._writer)
        by_token = {self.tokens[persona.name]: persona for persona in personas}
        self._access = Access(self._store, by_token)
        self._running: AbstractAsyncContextManager[None] | None = None
        self.load({"kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES)
        self.load(first_roles())
        for persona in personas:
            self.load(persona.rbac_objects())

    def load(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Store objects as they are given, status included; what watches is told.

        Raises:
            InvalidRequestError: a kind that is not served; a definition has to come first.
            ApiError: an object breaks a rule, as it would over HTTP.
        """
        for value in objects:
            version, kind = value.get("apiVersion", "v1"), value.get("kind", "")
            resource = self._registry.of_kind(version, kind)
            if resource is None:
                raise InvalidRequestError(
                    f"no {kind!r} of {version!r} is served: load its CRD first"
                )
            self._writer.load(resource, dict(value))

    def compact(self) -> None:
        """Forget every state but the present one, as etcd does after minutes."""
        self._store.compact()

    def kubeconfig(self, persona: str = ADMIN.name) -> Path:
        """A kubeconfig with this persona's token, for as long as the server listens.

        Raises:
            InvalidRequestError: there is no such persona, or the server does not listen.
        """
        if persona not in self.tokens:
            raise InvalidRequestError(f"persona {persona!r} is none of {', '.join(self.tokens)}")
        if not self.url:
            raise InvalidRequestError("the server does not listen yet: enter it first")
        path = self._folder / f"{persona}.kubeconfig"
        return write_kubeconfig(path, self.url, self.tokens[persona])

    async def __aenter__(self) -> Self:
        self._running = self._listening()
        await self._running.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._running is not None:
            await self._running.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        closing = anyio.Event()
        parts = Parts(
            self._store, self._registry, self._writer, self._access, closing, self.watches
        )
        answers = Answers(parts)
        app = Starlette(routes=[Route("/{path:path}", answers.answer, methods=list(_METHODS))])
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        server = EmbeddedServer(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            # Connections inherit it; asyncio sets it only where a socket names its protocol, and
            # without it a small answer waits 40 ms for the caller's acknowledgement.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._serve, server, listener, tasks.cancel_scope)
                tasks.start_soon(self._controllers.run)
                with anyio.fail_after(START_TIMEOUT_S):
                    await server.ready.wait()
                self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                try:
                    yield
                finally:
                    self.url = ""
                    closing.set()
                    for table in self._store.tables.values():
                        table.wake()
                    server.should_exit = True

    async def _serve(
        self, server: EmbeddedServer, listener: socket.socket, scope: anyio.CancelScope
    ) -> None:
        """Serve until told to end; then the controllers end too."""
        await server.serve([listener])
        scope.cancel()
