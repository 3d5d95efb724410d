"""The OpenTelemetry SDK, set up: the one module that imports it, and only where telemetry is on.

Endpoints, headers, sampling, intervals and resources are the standard OTEL_* variables, read by the
SDK itself.
"""

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Tracer

from interlock_tools.telemetry import SCOPE

MCP_SCOPE = "mcp-python-sdk"
MCP_SENDS = "MCP send "
SERVICE = "interlock"
FLUSH_WITHIN_MS = 5_000


class Tracers(TracerProvider):
    """A provider whose client spans of the MCP SDK are named as the conventions say."""

    def get_tracer(self, instrumenting_module_name: str, *args: Any, **kwargs: Any) -> Tracer:
        """The tracer of this scope."""
        tracer = super().get_tracer(instrumenting_module_name, *args, **kwargs)
        return McpTracer(tracer) if instrumenting_module_name == MCP_SCOPE else tracer


class McpTracer(Tracer):
    """The MCP SDK's tracer, corrected: what it sends is named by method and tool alone.

    Where the span around it is our own of the same request, that one is it: one request, one span.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start_span(self, name: str, *args: Any, **kwargs: Any) -> Span:
        """As the SDK does."""
        return self._tracer.start_span(name, *args, **kwargs)

    @contextmanager
    def start_as_current_span(  # type: ignore[override]  # a context manager, as theirs is
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Any = None,
        **kwargs: Any,
    ) -> Iterator[Span]:
        """A span under the conventions' name, or ours, which then has the attributes too."""
        if kind is SpanKind.CLIENT and name.startswith(MCP_SENDS):
            name = name.removeprefix(MCP_SENDS)
            around = trace.get_current_span()
            if _is_ours_of(around, name):
                around.set_attributes(attributes or {})
                yield around
                return
            attributes = {**(attributes or {}), **_named(name)}
        with self._tracer.start_as_current_span(
            name, context=context, kind=kind, attributes=attributes, **kwargs
        ) as span:
            yield span


def _is_ours_of(span: Span, name: str) -> bool:
    return (
        isinstance(span, SdkSpan)
        and span.kind is SpanKind.CLIENT
        and span.name == name
        and span.instrumentation_scope is not None
        and span.instrumentation_scope.name == SCOPE
    )


def _named(name: str) -> dict[str, str]:
    """What the SDK leaves out on the client's side."""
    method, _, target = name.partition(" ")
    if method == "tools/call" and target:
        return {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": target}
    if method == "prompts/get" and target:
        return {"gen_ai.prompt.name": target}
    return {}


class Pipeline:
    """The providers of this process, until it is closed."""

    def __init__(
        self,
        resource: Resource,
        processors: Sequence[SpanProcessor],
        readers: Sequence[MetricReader],
    ) -> None:
        self.tracers = Tracers(resource=resource, shutdown_on_exit=False)
        for processor in processors:
            self.tracers.add_span_processor(processor)
        self.meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        trace.set_tracer_provider(self.tracers)
        metrics.set_meter_provider(self.meters)

    def close(self) -> None:
        """Send what waits, within some seconds, and end the threads."""
        self.tracers.force_flush(FLUSH_WITHIN_MS)
        self.tracers.shutdown()
        self.meters.shutdown(FLUSH_WITHIN_MS)


def resource(version: str, site_id: str | None) -> Resource:
    """Who speaks. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES add to it and go before."""
    ours = {
        "service.name": SERVICE,
        "service.version": version,
        "service.instance.id": str(uuid.uuid4()),
    }
    if site_id is not None:
        ours["interlock.site_id"] = site_id
    return Resource.create(ours).merge(OTELResourceDetector().detect())


def over_otlp(version: str, site_id: str | None, endpoint: str | None) -> Pipeline:
    """Traces and metrics over OTLP, HTTP with protobuf, to `endpoint` where no variable names one.

    OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER may each be `none`.
    """
    processors: list[SpanProcessor] = []
    readers: list[MetricReader] = []
    if _wanted("OTEL_TRACES_EXPORTER"):
        exporter = OTLPSpanExporter(endpoint=_signal(endpoint, "TRACES", "v1/traces"))
        processors.append(BatchSpanProcessor(exporter))
    if _wanted("OTEL_METRICS_EXPORTER"):
        metric = OTLPMetricExporter(endpoint=_signal(endpoint, "METRICS", "v1/metrics"))
        readers.append(PeriodicExportingMetricReader(metric))
    return Pipeline(resource(version, site_id), processors, readers)


def _wanted(variable: str) -> bool:
    return os.environ.get(variable, "otlp").strip().lower() != "none"


def _signal(endpoint: str | None, signal: str, path: str) -> str | None:
    """The address of one signal; None leaves it to the variables."""
    named = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    if endpoint is None or any(os.environ.get(variable) for variable in named):
        return None
    return f"{endpoint.rstrip('/')}/{path}"
