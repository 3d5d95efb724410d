"""A gRPC client without compiled stubs: it learns the server's messages by reflection.

It does not know what the messages mean. What a caller needs of them it declares beforehand, and a
server that lacks any of it is refused at connect, before anything could be written.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import anyio
import grpc
import grpc.aio
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from interlock_servers.plant_text import plant_quote
from interlock_servers.transports.grpc_descriptors import (
    MethodNeed,
    add_well_known,
    pool_of,
    why_absent,
)
from interlock_servers.transports.grpc_record import Record
from interlock_servers.transports.grpc_settings import GrpcSettings
from interlock_servers.transports.spans import rpc_call
from interlock_tools.clock import Clock
from interlock_tools.errors import (
    ComponentError,
    ConflictError,
    FactoryError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)

READ_RETRY_AFTER_S = 1.0
CLOSE_TIMEOUT_S = 2.0
MAX_QUOTED_CHARS = 200

# The two generations of reflection have the same messages on the wire.
_REFLECTION = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),  # gRPC would retry writes too, if a service config told it to
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.initial_reconnect_backoff_ms", 500),  # shorter than our retry, so that it can work
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)


M = TypeVar("M", bound=Message)


class _Method(NamedTuple):
    need: MethodNeed
    request: type[Message]
    response: type[Message]


class ReflectedChannel:
    """A connection to one server; entering it learns and checks what the server speaks.

    Calls give `Record`s and raise our errors. After a write without an answer the state is unknown
    and the error says so.
    """

    def __init__(
        self,
        settings: GrpcSettings,
        clock: Clock,
        *,
        component: str,
        needs: Iterable[MethodNeed],
        wants: Iterable[MethodNeed] = (),
    ) -> None:
        """Describe the connection.

        Args:
            settings: where, and who we are.
            clock: of the pause before a read is sent again.
            component: whose errors these are.
            needs: what the server must have, or it is refused at connect.
            wants: what it may lack, of services that are needed anyway; see `require`.
        """
        self._settings = settings
        self._clock = clock
        self._component = component
        self._needs = tuple(needs)
        self._wants = tuple(wants)
        self._lacks: dict[MethodNeed, str] = {}
        self._methods: dict[str, _Method] = {}
        self._pool = DescriptorPool()
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        """Connect and check.

        Raises:
            UnavailableError: nobody answers.
            ComponentError: no reflection, or a service or field that we need is absent.
        """
        credentials = self._settings.credentials()
        if credentials is None:
            # A proxy would carry what is meant for this machine over a network in the clear.
            options = (*_OPTIONS, ("grpc.enable_http_proxy", 0))
            self._channel = grpc.aio.insecure_channel(self._settings.address, options=options)
        else:
            self._channel = grpc.aio.secure_channel(
                self._settings.address, credentials, options=_OPTIONS
            )
        try:
            self._pool = self._pooled(await self._learn())
            self._methods = {need.path: self._bind(need) for need in self._needs}
            self._bind_wanted()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await channel.close()

    def message_class(self, full_name: str) -> type[Message]:
        """The class of one of the server's messages.

        Raises:
            ComponentError: the server has no such message.
        """
        try:
            return GetMessageClass(self._pool.FindMessageTypeByName(full_name))
        except KeyError:
            raise self._missing(f"message {full_name}") from None

    def require(self, want: MethodNeed) -> None:
        """Make sure that something wanted is there, before any of it is sent.

        Raises:
            ComponentError: the server lacks it; what it lacks is named.
        """
        if want in self._lacks:
            raise ComponentError(self._component, "UNSUPPORTED", self._lacks[want])

    # ── calls ─────────────────────────────────────────────────────────────────────────────────

    async def unary(self, path: str, fields: Mapping[str, object], *, deadline_s: float) -> Record:
        """Call a method that answers once.

        Args:
            path: of a declared need.
            fields: of the request, as in its JSON form with the names of the contract.
            deadline_s: of the whole call, in real seconds; a read may be sent twice.

        Raises:
            InvalidRequestError: the fields do not fit the message, or the server says so.
            FactoryError: as the class says.
        """
        answers = await self._call(path, fields, deadline_s)
        return answers[0]

    async def stream(
        self, path: str, fields: Mapping[str, object], *, deadline_s: float
    ) -> list[Record]:
        """Call a method that answers with a stream; gives the whole of it, or raises as `unary`."""
        return await self._call(path, fields, deadline_s)

    async def _call(
        self, path: str, fields: Mapping[str, object], deadline_s: float
    ) -> list[Record]:
        method = self._methods[path]
        request = method.request()
        try:
            json_format.ParseDict(dict(fields), request)
        except json_format.ParseError as error:
            raise InvalidRequestError(f"{method.need.name}: {error}") from error
        answers = await self._exchange(method.need, request, method.response, deadline_s)
        return [Record(answer) for answer in answers]

    async def _exchange(
        self, need: MethodNeed, request: Message, response: type[M], deadline_s: float
    ) -> list[M]:
        """Send a request; a read that met nobody is sent once more, a write never."""
        try:
            return await self._send(need, request, response, deadline_s)
        except UnansweredError as error:
            if not (need.is_read and error.code is grpc.StatusCode.UNAVAILABLE):
                raise
        await self._clock.sleep(READ_RETRY_AFTER_S)
        return await self._send(need, request, response, deadline_s)

    async def _send(
        self, need: MethodNeed, request: Message, response: type[M], deadline_s: float
    ) -> list[M]:
        with rpc_call(need.path, self._settings.address):
            return await self._sent(need, request, response, deadline_s)

    async def _sent(
        self, need: MethodNeed, request: Message, response: type[M], deadline_s: float
    ) -> list[M]:
        if self._channel is None:
            raise UnavailableError(f"{self._component}: the connection is closed; nothing was sent")
        make = self._channel.unary_stream if need.streams else self._channel.unary_unary
        call = make(
            need.path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )(request, timeout=deadline_s, metadata=self._settings.metadata())
        try:
            if isinstance(call, grpc.aio.UnaryStreamCall):
                return [answer async for answer in call]
            return [await call]
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details() or ""
            raise translate(self._component, need, code, details) from error
        except asyncio.CancelledError as error:
            # gRPC raises this when the channel is closed under a call; it must not end our task.
            if _is_being_cancelled():
                raise
            code = grpc.StatusCode.CANCELLED
            raise translate(self._component, need, code, "the connection was closed") from error

    # ── learning what the server speaks ───────────────────────────────────────────────────────

    async def _learn(self) -> dict[str, FileDescriptorProto]:
        services = sorted({need.service for need in self._needs})
        for path in _REFLECTION:
            need = MethodNeed(path, is_read=True, streams=True)
            try:
                return await self._files(need, services)
            except ComponentError as error:
                if error.code != grpc.StatusCode.UNIMPLEMENTED.name:
                    raise
        raise ComponentError(
            self._component, "NO_REFLECTION", "the server offers no gRPC reflection; it is needed"
        )

    async def _files(
        self, need: MethodNeed, services: Sequence[str]
    ) -> dict[str, FileDescriptorProto]:
        """The files of the services and everything that they import."""
        files: dict[str, FileDescriptorProto] = {}
        questions = [ServerReflectionRequest(file_containing_symbol=name) for name in services]
        while questions:
            for question in questions:
                answer = await self._ask(need, question)
                if answer.HasField("error_response"):
                    asked = question.file_containing_symbol or question.file_by_filename
                    if not add_well_known(files, asked):
                        raise self._missing(quoted(asked))
                for raw in answer.file_descriptor_response.file_descriptor_proto:
                    file = self._parsed(raw)
                    files.setdefault(file.name, file)
            absent = {name for file in files.values() for name in file.dependency} - set(files)
            asked_before = {question.file_by_filename for question in questions}
            if absent & asked_before:
                raise self._missing(quoted(min(absent & asked_before)))
            questions = [ServerReflectionRequest(file_by_filename=name) for name in sorted(absent)]
        return files

    async def _ask(
        self, need: MethodNeed, question: ServerReflectionRequest
    ) -> ServerReflectionResponse:
        """One question in one call: gRPC hides why a call failed that was still sending."""
        answers = await self._exchange(
            need, question, ServerReflectionResponse, self._settings.deadline_s
        )
        if len(answers) != 1:
            raise self._missing("an answer to a reflection request")
        return answers[0]

    def _pooled(self, files: Mapping[str, FileDescriptorProto]) -> DescriptorPool:
        try:
            return pool_of(files)
        except ValueError as error:
            raise self._missing(f"readable descriptors: {quoted(str(error))}") from error

    def _parsed(self, raw: bytes) -> FileDescriptorProto:
        try:
            return FileDescriptorProto.FromString(raw)
        except DecodeError as error:
            raise self._missing("a readable descriptor") from error

    def _bind_wanted(self) -> None:
        for want in self._wants:
            try:
                self._methods.setdefault(want.path, self._bind(want))
            except LackedError as error:
                self._lacks[want] = error.what

    def _bind(self, need: MethodNeed) -> _Method:
        """The need against what the server speaks."""
        try:
            service = self._pool.FindServiceByName(need.service)
        except KeyError:
            raise self._missing(f"service {need.service}") from None
        method = service.methods_by_name.get(need.name)
        if method is None:
            raise self._missing(f"method {need.path}")
        if method.client_streaming or method.server_streaming != need.streams:
            raise self._missing(f"method {need.path} with the streaming that we know")
        for message, paths in (
            (method.input_type, need.request),
            (method.output_type, need.response),
        ):
            for path in paths:
                if why := why_absent(message, path):
                    raise self._missing(f"{why} (needed by {need.path})")
        return _Method(
            need, GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        )

    def _missing(self, what: str) -> "LackedError":
        return LackedError(self._component, f"the server lacks {what}; nothing is read or written")


class LackedError(ComponentError):
    """The server lacks something; `what` says what."""

    def __init__(self, component: str, what: str) -> None:
        super().__init__(component, "UNSUPPORTED", what)
        self.what = what


class UnansweredError(UnavailableError):
    """No answer; `code` is gRPC's own."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def translate(
    component: str, need: MethodNeed, code: grpc.StatusCode, details: str
) -> FactoryError:
    """A gRPC failure as our error, with the state that it leaves."""
    said = f"{component} {need.name}: {code.name} {quoted(details)}"
    unknown = "" if need.is_read else "; what it did is unknown: read it back, do not repeat it"
    match code:
        case grpc.StatusCode.NOT_FOUND:
            return NotFoundError(said)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidRequestError(said)
        case grpc.StatusCode.FAILED_PRECONDITION | grpc.StatusCode.ABORTED:
            return ConflictError(said)
        case (
            grpc.StatusCode.UNAVAILABLE
            | grpc.StatusCode.DEADLINE_EXCEEDED
            | grpc.StatusCode.CANCELLED
        ):
            return UnansweredError(code, said + (unknown or "; nothing was changed"))
        case (
            grpc.StatusCode.UNIMPLEMENTED
            | grpc.StatusCode.UNAUTHENTICATED
            | grpc.StatusCode.PERMISSION_DENIED
        ):
            return ComponentError(component, code.name, said)
        case _:
            return ComponentError(component, code.name, said + unknown)


def quoted(text: str) -> str:
    """Text of a server as data: in quotes, without control characters, of bounded length."""
    return plant_quote(text, MAX_QUOTED_CHARS)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
