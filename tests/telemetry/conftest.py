"""Telemetry that stays in this process's memory; OpenTelemetry can be set up once in a process."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from interlock_console.otel import Pipeline
from tests.guardrails import conftest as guardrails

house = guardrails.house  # the guard over one valve


class Told:
    """What was told since the test began."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self._pipeline = Pipeline(Resource({}), [SimpleSpanProcessor(self._spans)], [self._reader])

    def forget(self) -> None:
        """Begin anew; metrics go on counting."""
        self._spans.clear()

    def close(self) -> None:
        """Tell no more."""
        self._pipeline.close()

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """The spans that have ended, in that order."""
        return [span for span in self._spans.get_finished_spans() if name in {None, span.name}]

    def span(self, name: str, kind: str | None = None) -> ReadableSpan:
        """The one span of this name."""
        found = [s for s in self.spans(name) if kind is None or s.kind.name == kind]
        assert len(found) == 1, [(span.name, span.kind.name) for span in self.spans()]
        return found[0]

    def points(self) -> dict[str, list[Any]]:
        """The data points now, by metric."""
        data = self._reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        if data is None:
            return found
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(metric.data.data_points)
        return found

    def count(self, name: str, **attributes: object) -> int:
        """How often this was counted or recorded with these attributes, `__` for a dot."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        return sum(
            point.count if isinstance(point, HistogramDataPoint) else point.value
            for point in self.points().get(name, [])
            if wanted.items() <= dict(point.attributes).items()
        )


@pytest.fixture(scope="session")
def telling() -> Iterator[Told]:
    """The one pipeline of this process."""
    told = Told()
    yield told
    told.close()


@pytest.fixture
def told(telling: Told) -> Told:
    """What is told in this test."""
    telling.forget()
    return telling
