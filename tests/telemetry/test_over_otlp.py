"""Telemetry as it leaves: over OTLP to a real receiver, set up by the standard variables."""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import anyio
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from interlock_console.settings import parse
from interlock_console.telemetry import TelemetrySettings, telemetry
from interlock_tools.errors import InvalidRequestError
from tests.telemetry.listening import listening

PATIENCE_S = 60.0
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
IS_THE_SDK_THERE = """\
import sys
import interlock_console.cli
from interlock_console.telemetry import telemetry
with telemetry() as on:
    print(on, any(name.startswith("opentelemetry.sdk") for name in sys.modules))
"""


class Receiver:
    """What a collector is to an exporter: two addresses that take protobuf."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics: set[str] = set()
        self.resource: dict[str, str] = {}
        self.headers: list[Mapping[str, str]] = []

    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/v1/traces", self._traces, methods=["POST"]),
                Route("/v1/metrics", self._metrics, methods=["POST"]),
            ]
        )

    def span(self, name: str) -> Span:
        """The one span of this name."""
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, sorted(span.name for span in self.spans)
        return found[0]

    async def _traces(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        for batch in ExportTraceServiceRequest.FromString(await request.body()).resource_spans:
            self.resource |= {a.key: a.value.string_value for a in batch.resource.attributes}
            for scope in batch.scope_spans:
                self.spans += scope.spans
        return _answer(ExportTraceServiceResponse().SerializeToString())

    async def _metrics(self, request: Request) -> Response:
        for batch in ExportMetricsServiceRequest.FromString(await request.body()).resource_metrics:
            for scope in batch.scope_metrics:
                self.metrics |= {metric.name for metric in scope.metrics}
        return _answer(ExportMetricsServiceResponse().SerializeToString())


def _answer(body: bytes) -> Response:
    return Response(body, media_type="application/x-protobuf")


async def ran(command: Sequence[str], **variables: str) -> CompletedProcess[bytes]:
    """A process of our own with these variables and no other of OpenTelemetry's."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    with anyio.fail_after(PATIENCE_S):
        return await anyio.run_process(
            [sys.executable, *command],
            env=clean | variables,
            cwd=Path(__file__).parents[2],
            stderr=None,
        )


async def test_a_change_is_seen_from_outside_from_the_agent_to_its_end(tmp_path: Path) -> None:
    """The receiver has the spans that the ledger's records name, and the worker's link to them."""
    receiver = Receiver()
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with listening(receiver.app(), listener):
        process = await ran(
            ["-m", "tests.telemetry.one_change", str(tmp_path)],
            **{
                ENDPOINT: address,
                "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=lab",
                "OTEL_SERVICE_NAME": "valve-site",
                "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            },
        )
    told: dict[str, Any] = json.loads(process.stdout)

    assert told["state"] == "succeeded"
    requested, intent = told["records"]["requested"], told["records"]["intent"]
    agent, proposed = receiver.span("invoke_agent valve"), receiver.span("interlock.propose")
    assert agent.trace_id.hex() == requested["trace_id"]
    assert proposed.span_id.hex() == requested["span_id"]
    carried = receiver.span("interlock.carry_out")
    assert carried.trace_id.hex() == intent["trace_id"] != requested["trace_id"]
    assert [(link.trace_id, link.span_id) for link in carried.links] == [
        (agent.trace_id, proposed.span_id)
    ]
    assert receiver.resource["service.name"] == "valve-site"
    assert receiver.resource["deployment.environment.name"] == "test"
    assert {headers["x-tenant"] for headers in receiver.headers} == {"lab"}
    assert receiver.metrics >= {
        "mcp.server.operation.duration",
        "mcp.client.operation.duration",
        "interlock.decisions",
        "interlock.change.transitions",
        "interlock.change.time_to_verified",
    }


async def test_a_receiver_that_is_not_there_costs_nobody_a_change(tmp_path: Path) -> None:
    """Telemetry is never in the way."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    process = await ran(
        ["-m", "tests.telemetry.one_change", str(tmp_path)],
        **{ENDPOINT: nobody, "OTEL_EXPORTER_OTLP_TIMEOUT": "1", "OTEL_PYTHON_LOG_LEVEL": "error"},
    )

    assert json.loads(process.stdout)["state"] == "succeeded"


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "False False"),
        ({ENDPOINT: "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, "False False"),
    ],
    ids=["nothing said", "disabled"],
)
async def test_off_no_sdk_is_imported(variables: dict[str, str], says: str) -> None:
    """What is off costs no memory and no start."""
    process = await ran(["-c", IS_THE_SDK_THERE], **variables)

    assert process.stdout.decode().strip() == says


@pytest.mark.parametrize(
    ("settings", "environment", "on"),
    [
        ({}, {}, False),
        ({}, {ENDPOINT: "http://collector:4318"}, True),
        ({"enabled": True}, {}, True),
        ({"enabled": False}, {ENDPOINT: "http://collector:4318"}, False),
        ({"enabled": True}, {"OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_it_is_on_where_somebody_asks(
    settings: dict[str, Any], environment: dict[str, str], on: bool
) -> None:
    """The file goes before an address in the environment, and the switch before both."""
    assert TelemetrySettings(**settings).is_on(environment) is on


def test_the_settings_file_has_a_table_for_it() -> None:
    """Off unless it says so."""
    site = {"site": {"site_id": "lab", "gpus": 8, "hosts": 1}}
    assert parse(site, "a file").telemetry.enabled is None
    asked = parse({**site, "telemetry": {"enabled": True, "contents": True}}, "a file").telemetry
    assert (asked.enabled, asked.contents) == (True, True)
    with pytest.raises(InvalidRequestError, match=r"\[telemetry.enable\]"):
        parse({**site, "telemetry": {"enable": True}}, "a file")


def test_what_is_not_spoken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another protocol or exporter would be silence."""
    for name, value in {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_TRACES_EXPORTER": "zipkin",
    }.items():
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            with (
                pytest.raises(InvalidRequestError, match=name),
                telemetry(TelemetrySettings(enabled=True)),
            ):
                pass
