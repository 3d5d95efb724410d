"""Spans and durations of calls to components, by the conventions for RPC and for messaging.

They hold where a call went and how it ended, never what it carried.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import grpc
from opentelemetry.trace import SpanKind

from interlock_servers.transports.mqtt_settings import parse_broker
from interlock_tools.measures import PUBLISHED, RPC_CALL
from interlock_tools.telemetry import Attribute, span

P = ParamSpec("P")
Bus = TypeVar("Bus", bound="HasBroker")


class HasBroker(Protocol):
    """Whatever is connected to a broker, or is not."""

    @property
    def broker(self) -> str | None:
        """Its URL."""
        ...


@contextmanager
def rpc_call(path: str, address: str) -> Iterator[None]:
    """One call of a gRPC method, such as `/package.Service/Method`, of the server at `address`."""
    method = path.removeprefix("/")
    told: dict[str, Attribute] = {
        "rpc.system.name": "grpc",
        "rpc.method": method,
        **_server(address),
    }
    began_s = time.perf_counter()
    status = grpc.StatusCode.OK.name
    with span(method, kind=SpanKind.CLIENT, attributes=told, error_type=_status_of) as call:
        try:
            yield
        except BaseException as error:
            status = _status_of(error)
            told["error.type"] = status
            raise
        finally:
            told["rpc.response.status_code"] = status
            call.set_attribute("rpc.response.status_code", status)
            RPC_CALL.record(time.perf_counter() - began_s, told)


def publishing(
    publish: Callable[Concatenate[Bus, str, P], Awaitable[None]],
) -> Callable[Concatenate[Bus, str, P], Awaitable[None]]:
    """The same method of a bus, each message in a span; what is received is counted elsewhere."""

    @functools.wraps(publish)
    async def published(bus: Bus, topic: str, /, *args: P.args, **kwargs: P.kwargs) -> None:
        told: dict[str, Attribute] = {
            "messaging.system": "mqtt",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            **_broker(bus.broker),
        }
        began_s = time.perf_counter()
        # A topic may be one of thousands, so it stands in no name and in no metric.
        about = {**told, "messaging.destination.name": topic}
        try:
            with span("publish", kind=SpanKind.PRODUCER, attributes=about):
                await publish(bus, topic, *args, **kwargs)
        except Exception as error:
            told["error.type"] = type(error).__qualname__
            raise
        finally:
            PUBLISHED.record(time.perf_counter() - began_s, told)

    return published


def _status_of(error: BaseException) -> str:
    """The gRPC status behind one of our errors; a call that was given up is cancelled."""
    cause = error.__cause__
    if isinstance(cause, grpc.aio.AioRpcError):
        return str(cause.code().name)
    given_up = asyncio.CancelledError
    if isinstance(error, given_up) or isinstance(cause, given_up):
        return grpc.StatusCode.CANCELLED.name
    return grpc.StatusCode.UNKNOWN.name


def _server(address: str) -> dict[str, Attribute]:
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        return {"server.address": host.strip("[]"), "server.port": int(port)}
    return {"server.address": address}


def _broker(url: str | None) -> dict[str, Attribute]:
    if url is None:
        return {}
    address = parse_broker(url)
    return {"server.address": address.host, "server.port": address.port}
