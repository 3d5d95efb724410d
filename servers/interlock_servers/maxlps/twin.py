"""DPS on the wire over the plant: its gRPC services with reflection, raw, and failing on request.

It is written from the contract alone and shares nothing with our client, so that a misread contract
cannot agree with itself.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection

from interlock_plant.plant import Plant
from interlock_servers.maxlps.twin_answers import DpsAnswers, TwinFault
from interlock_servers.maxlps.twin_group_answers import GroupAnswers, GrpcRefusalError
from interlock_servers.maxlps.twin_groups import Groups
from interlock_servers.maxlps.twin_schema import PACKAGE, SERVICES, build_pool
from interlock_tools.clock import Clock

__all__ = ["DpsTwin", "TwinFault"]

AT_START = frozenset({TwinFault.NO_REFLECTION, TwinFault.EXTRA_FIELDS})


class DpsTwin:
    """DPS for one plant, on a loopback port that the system chooses.

    Resource groups are at first the plant's jobs; the topology is its site, with ratings as limits.

    Attributes:
        calls: how often each method was called, failed calls included.
        asked: the last request of each method, as it came.
        groups: the resource groups, for tests to look at and to prepare.
    """

    def __init__(
        self,
        plant: Plant,
        clock: Clock,
        *,
        faults: Iterable[TwinFault] = (),
        without: Iterable[str] = (),
    ) -> None:
        """Describe the twin.

        Args:
            plant: what it reads and caps.
            clock: of the times that it reports.
            faults: on from the start.
            without: `Message.field` or `Service.Method` that this version does not have.
        """
        self._faults: dict[TwinFault, int | None] = dict.fromkeys(faults)
        newer = TwinFault.EXTRA_FIELDS in self._faults
        self._pool = build_pool(newer=newer, without=frozenset(without))
        self.groups = Groups(plant)
        wrong = self._goes_wrong
        answers = DpsAnswers(plant, clock, self._pool, self.groups, newer=newer, goes_wrong=wrong)
        self.of_groups = GroupAnswers(answers, self.groups, newer=newer, goes_wrong=wrong)
        self._answers: dict[str, Callable[[Any], Any]] = {
            "ResourceGroupList": self.of_groups.resource_group_list,
            "ResourceGroupCreate": self.of_groups.create,
            "ResourceGroupAddResources": self.of_groups.add,
            "ResourceGroupRemoveResources": self.of_groups.remove,
            "ActivateResourceGroup": self.of_groups.activate,
            "ResourceGroupUpdate": self.of_groups.update,
            "ResourceGroupUpdateResources": self.of_groups.update_resources,
            "ResourceGroupDelete": self.of_groups.delete,
            "AsyncOperationStatus": self.of_groups.operation_status,
            "ListPolicies": answers.list_policies,
            "ListDevices": answers.list_devices,
            "UpdateGPUPolicies": answers.update_gpu_policies,
            "ListTopologies": answers.list_topologies,
            "GetTopologyModel": answers.get_topology_model,
            "GetNodesStatus": answers.get_nodes_status,
            "ValidateAllocation": answers.validate_allocation,
            "MetricsQuery": answers.metrics_query,
        }
        self._server: grpc.aio.Server | None = None
        self.calls: Counter[str] = Counter()
        self.asked: dict[str, Any] = {}
        self.address = ""

    def inject(self, fault: TwinFault, *, times: int | None = None) -> None:
        """Let every call, or the next `times` calls, go wrong.

        Raises:
            ValueError: the fault can only be there from the start.
        """
        if fault in AT_START:
            raise ValueError(f"{fault} must be given to the constructor")
        self._faults[fault] = times

    def repair(self, fault: TwinFault) -> None:
        """End a fault."""
        self._faults.pop(fault, None)

    async def __aenter__(self) -> Self:
        options = (("grpc.so_reuseport", 0), ("grpc.http2.min_ping_interval_without_data_ms", 5000))
        self._server = grpc.aio.server(options=options)
        names = []
        for service in SERVICES:
            names.append(f"{PACKAGE}.{service}")
            self._server.add_generic_rpc_handlers((self._handlers(service),))
        if TwinFault.NO_REFLECTION not in self._faults:
            reflection.enable_server_reflection(names, self._server, pool=self._pool)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.address = f"127.0.0.1:{port}"
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

    # ── the wire ──────────────────────────────────────────────────────────────────────────────

    def _handlers(self, service: str) -> grpc.GenericRpcHandler:
        described = self._pool.FindServiceByName(f"{PACKAGE}.{service}")
        handlers = {}
        for method in described.methods:
            reply = GetMessageClass(method.output_type)
            if method.server_streaming:
                make, handle = grpc.unary_stream_rpc_method_handler, self._streaming(method.name)
            else:
                make, handle = grpc.unary_unary_rpc_method_handler, self._single(method.name, reply)
            handlers[method.name] = make(
                handle,
                request_deserializer=GetMessageClass(method.input_type).FromString,
                response_serializer=reply.SerializeToString,
            )
        return grpc.method_handlers_generic_handler(described.full_name, handlers)

    def _single(self, name: str, empty: Any) -> Any:
        has_status = "status" in empty.DESCRIPTOR.fields_by_name

        async def handle(request: Any, context: Any) -> Any:
            self.asked[name] = request
            await self._before(name, context)
            if has_status and self._goes_wrong(TwinFault.OK_FALSE):
                reply = empty()
                reply.status.diag_msg = "the twin was told to refuse"
                return reply
            try:
                reply = self._answers[name](request)
            except GrpcRefusalError as error:
                await context.abort(error.code, str(error))
            except LookupError as error:
                await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            if has_status and self._goes_wrong(TwinFault.MISSING_STATUS):
                reply.ClearField("status")
            await self._after()
            return reply

        return handle

    def _streaming(self, name: str) -> Any:
        async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
            await self._before(name, context)
            try:
                replies = self._answers[name](request)
            except LookupError as error:
                await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
                return
            await self._after()
            for reply in replies:
                yield reply

        return handle

    async def _before(self, name: str, context: Any) -> None:
        self.calls[name] += 1
        if self._goes_wrong(TwinFault.UNAVAILABLE):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the twin was told to be unavailable")

    async def _after(self) -> None:
        if self._goes_wrong(TwinFault.HANG):
            await asyncio.Event().wait()  # gRPC cancels it when the caller's deadline has passed

    def _goes_wrong(self, fault: TwinFault) -> bool:
        """Whether this call is one of those that go wrong; counts it."""
        if fault not in self._faults:
            return False
        left = self._faults[fault]
        if left is not None:
            self._faults[fault] = left - 1
            if left <= 1:
                self.repair(fault)
        return True
