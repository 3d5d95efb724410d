"""A small gRPC server with reflection that can be told how to fail, and a clock for its client."""

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import grpc
import grpc.aio
from google.protobuf import descriptor_pb2 as pb
from google.protobuf import struct_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from interlock_tools.clock import ManualClock


class WakefulClock(ManualClock):
    """Sleeping takes no time, and is remembered."""

    def __init__(self) -> None:
        super().__init__(datetime.datetime(2026, 9, 1, tzinfo=datetime.UTC))
        self.slept_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Move the clock on."""
        self.slept_s.append(seconds)
        self.advance(seconds)


def valve_pool() -> DescriptorPool:
    """One service, three methods."""
    file = pb.FileDescriptorProto(name="valve.proto", package="test", syntax="proto3")
    file.dependency.append("google/protobuf/struct.proto")
    kinds = pb.FieldDescriptorProto
    ask = file.message_type.add(name="Ask")
    ask.field.add(name="name", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    ask.field.add(name="degrees", number=2, type=kinds.TYPE_DOUBLE, label=kinds.LABEL_REPEATED)
    answer = file.message_type.add(name="Answer")
    answer.oneof_decl.add(name="_open")
    answer.field.add(
        name="open",
        number=1,
        type=kinds.TYPE_BOOL,
        label=kinds.LABEL_OPTIONAL,
        proto3_optional=True,
        oneof_index=0,
    )
    answer.field.add(name="flow", number=2, type=kinds.TYPE_DOUBLE, label=kinds.LABEL_OPTIONAL)
    answer.field.add(
        name="extra",
        number=3,
        type=kinds.TYPE_MESSAGE,
        type_name=".google.protobuf.Struct",
        label=kinds.LABEL_OPTIONAL,
    )
    tag = file.message_type.add(name="Tag")
    tag.field.add(name="note", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    entry = answer.nested_type.add(name="TagsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    entry.field.add(
        name="value",
        number=2,
        type=kinds.TYPE_MESSAGE,
        type_name=".test.Tag",
        label=kinds.LABEL_OPTIONAL,
    )
    answer.field.add(
        name="tags",
        number=4,
        type=kinds.TYPE_MESSAGE,
        type_name=".test.Answer.TagsEntry",
        label=kinds.LABEL_REPEATED,
    )
    service = file.service.add(name="Valve")
    for name, streams in (("Read", False), ("Watch", True), ("Turn", False)):
        service.method.add(
            name=name, input_type=".test.Ask", output_type=".test.Answer", server_streaming=streams
        )
    pool = DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return pool


class Valve:
    """A server that answers, or fails with the codes that it was given, one for each call."""

    def __init__(self, *codes: grpc.StatusCode) -> None:
        self.codes = list(codes)
        self.details = "because"
        self.holds = False  # whether calls hang once they have come in
        self.came_in = anyio.Event()
        self.calls: list[str] = []
        self.tokens: list[str | None] = []
        self.pool = valve_pool()
        self.address = ""

    async def _begin(self, name: str, context: Any) -> Any:
        self.calls.append(name)
        self.tokens.append(dict(context.invocation_metadata()).get("authorization"))
        self.came_in.set()
        if self.holds:
            await anyio.sleep_forever()
        if self.codes:
            await context.abort(self.codes.pop(0), self.details)
        return GetMessageClass(self.pool.FindMessageTypeByName("test.Answer"))()

    async def single(self, request: Any, context: Any) -> Any:
        """Read or Turn."""
        answer = await self._begin("turn" if request.degrees else "read", context)
        answer.extra.update({"deep": {"list": [1, "two", None, True]}})
        return answer

    async def watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Two answers."""
        del request
        answer = await self._begin("watch", context)
        for note in ("first", "second"):
            answer.tags["key"].note = note
            yield answer

    def serve(self, server: grpc.aio.Server, *, generation: str = "v1alpha") -> None:
        """Register everything on a server."""
        service = self.pool.FindServiceByName("test.Valve")
        codec: dict[str, Any] = {
            "request_deserializer": GetMessageClass(service.methods[0].input_type).FromString,
            "response_serializer": GetMessageClass(
                service.methods[0].output_type
            ).SerializeToString,
        }
        handlers = {
            "Read": grpc.unary_unary_rpc_method_handler(self.single, **codec),
            "Turn": grpc.unary_unary_rpc_method_handler(self.single, **codec),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, **codec),
        }
        own = grpc.method_handlers_generic_handler("test.Valve", handlers)
        server.add_generic_rpc_handlers((own,))
        if generation == "v1alpha":
            reflection.enable_server_reflection(["test.Valve"], server, pool=self.pool)
            return
        servicer = reflection.aio.ReflectionServicer(["test.Valve"], pool=self.pool)
        info = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=ServerReflectionRequest.FromString,
            response_serializer=ServerReflectionResponse.SerializeToString,
        )
        name = f"grpc.reflection.{generation}.ServerReflection"
        handler = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": info})
        server.add_generic_rpc_handlers((handler,))


@asynccontextmanager
async def running(
    valve: Valve, *, generation: str = "v1alpha", tls: grpc.ServerCredentials | None = None
) -> AsyncIterator[Valve]:
    """The valve on a loopback port."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    valve.serve(server, generation=generation)
    where = "127.0.0.1:0"
    port = server.add_secure_port(where, tls) if tls else server.add_insecure_port(where)
    await server.start()
    valve.address = f"127.0.0.1:{port}"
    try:
        yield valve
    finally:
        with anyio.move_on_after(5, shield=True):
            await server.stop(grace=None)
