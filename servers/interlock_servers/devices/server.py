"""An agent on the wire: gRPC, with a role for everyone who asks and for nobody else."""

import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, NoReturn, Self

import grpc
import grpc.aio

from interlock_servers.devices import schema
from interlock_servers.devices.access import Access, Role
from interlock_servers.devices.agent import NodeAgent
from interlock_servers.devices.schema import message
from interlock_servers.devices.wire import read_cap, write_gpu, write_held, write_result
from interlock_tools.clock import Clock
from interlock_tools.errors import ConflictError, FactoryError, InvalidRequestError

log = logging.getLogger(__name__)

MOST_REQUEST_BYTES = 65_536
MOST_AT_ONCE = 16
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MOST_REQUEST_BYTES),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
)


class NodeServer:
    """Serves one agent while it is entered.

    Attributes:
        address: where it listens, once it is entered.
    """

    def __init__(self, agent: NodeAgent, clock: Clock) -> None:
        self._agent = agent
        self._clock = clock
        self._access = Access(agent.settings)
        self._server: grpc.aio.Server | None = None
        self.address = ""

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            InvalidRequestError: the address is taken, or a file cannot be read.
        """
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MOST_AT_ONCE)
        server.add_generic_rpc_handlers((self._handlers(),))
        listen = self._agent.settings.listen
        credentials = self._access.credentials()
        try:
            if credentials is None:
                port = server.add_insecure_port(listen)
            else:
                port = server.add_secure_port(listen, credentials)
        except RuntimeError as error:
            raise InvalidRequestError(f"cannot listen on {listen}: {error}") from None
        await server.start()
        self._server = server
        self.address = f"{listen.rpartition(':')[0]}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    # ── the methods ───────────────────────────────────────────────────────────────────────────

    async def _read_node(self, request: Any) -> Any:
        del request
        answer, now = self._agent.answer(), self._clock.now()
        sent = message(
            "NodeReading",
            node_id=answer.node_id,
            boot_id=answer.boot_id,
            sequence=answer.sequence,
            says=answer.says,
            takes_writes=answer.takes_writes,
            failure=answer.failure,
            gpus=[write_gpu(gpu, now) for gpu in answer.gpus],
            held=[write_held(cap) for cap in answer.held],
        )
        if answer.age_s is not None:
            sent.age_s = answer.age_s
        return sent

    async def _set_limits(self, request: Any) -> Any:
        outcomes = await self._agent.set_limits(
            [read_cap(cap) for cap in request.caps],
            controller_id=request.controller_id,
            change_id=request.change_id,
        )
        return message("SetLimitsResponse", results=[write_result(each) for each in outcomes])

    async def _renew_caps(self, request: Any) -> Any:
        held, not_held = self._agent.renew(
            list(request.keys),
            controller_id=request.controller_id,
            expires_in_s=request.expires_in_s,
        )
        return message(
            "RenewCapsResponse", held=[write_held(cap) for cap in held], not_held=not_held
        )

    async def _end_caps(self, request: Any) -> Any:
        outcomes = await self._agent.end(list(request.keys), controller_id=request.controller_id)
        return message("EndCapsResponse", results=[write_result(each) for each in outcomes])

    # ── the wire ──────────────────────────────────────────────────────────────────────────────

    def _handlers(self) -> grpc.GenericRpcHandler:
        does = {
            "ReadNode": self._read_node,
            "SetLimits": self._set_limits,
            "RenewCaps": self._renew_caps,
            "EndCaps": self._end_caps,
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._guarded(name, does[name]),
                request_deserializer=schema.message_class(request).FromString,
                response_serializer=schema.message_class(response).SerializeToString,
            )
            for name, (request, response) in schema.METHODS.items()
        }
        return grpc.method_handlers_generic_handler(f"{schema.PACKAGE}.{schema.SERVICE}", handlers)

    def _guarded(
        self, name: str, does: Callable[[Any], Awaitable[Any]]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        """The method for those who may; every expected failure as a status with its sentence."""
        needed = Role.READER if name in schema.READS else Role.WRITER

        async def handle(request: Any, context: Any) -> Any:
            role = self._access.role(context)
            if role is Role.NOBODY:
                await _abort(context, grpc.StatusCode.UNAUTHENTICATED, "who are you?")
            if role < needed:
                log.warning("not allowed: node=%s method=%s", self._agent.settings.node_id, name)
                await _abort(
                    context, grpc.StatusCode.PERMISSION_DENIED, f"{name} is for writers only"
                )
            try:
                return await does(request)
            except InvalidRequestError as error:
                await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except ConflictError as error:
                await _abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
            except FactoryError as error:
                await _abort(context, grpc.StatusCode.INTERNAL, str(error))

        return handle


async def _abort(context: Any, code: grpc.StatusCode, says: str) -> NoReturn:
    await context.abort(code, says[:1000])
    raise AssertionError("abort does not return")
