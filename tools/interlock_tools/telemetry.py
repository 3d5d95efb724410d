"""Spans and instruments of ours over the OpenTelemetry API; what they are named stands in measures.

Where a process sets up no SDK nothing of this is recorded, and it costs next to nothing. It knows
no exporter.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Attribute = str | int | float | bool | tuple[str, ...]
Attributes = Mapping[str, Attribute]
Reading = tuple[float, Attributes]
Read = Callable[[], Iterable[Reading]]

SCOPE = "interlock"
TRACEPARENT = "traceparent"
NO_ATTRIBUTES: Attributes = {}

log = logging.getLogger(__name__)
_tracer = trace.get_tracer(SCOPE)
_meter = metrics.get_meter(SCOPE)
_w3c = TraceContextTextMapPropagator()


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One metric: its name, what it says, and the attributes that it is told apart by."""

    name: str
    unit: str
    says: str
    attributes: tuple[str, ...] = ()
    kind: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class Histogram(Measure):
    """A distribution, such as of durations in seconds."""

    buckets: tuple[float, ...]
    kind = "histogram"
    _instrument: metrics.Histogram = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        made = _meter.create_histogram(
            self.name,
            unit=self.unit,
            description=self.says,
            explicit_bucket_boundaries_advisory=self.buckets,
        )
        object.__setattr__(self, "_instrument", made)

    def record(self, value: float, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Take this value into the distribution."""
        self._instrument.record(value, dict(attributes))


@dataclass(frozen=True, kw_only=True)
class Counter(Measure):
    """A number of events since the process began."""

    kind = "counter"
    _instrument: metrics.Counter = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        made = _meter.create_counter(self.name, unit=self.unit, description=self.says)
        object.__setattr__(self, "_instrument", made)

    def add(self, number: int, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Count so many more."""
        self._instrument.add(number, dict(attributes))


@dataclass(frozen=True, kw_only=True)
class Observed(Measure):
    """A value that is asked for when metrics are collected, of whoever is `watched` then.

    The reading runs in the collector's thread. One that fails is logged and gives no value.
    """

    counts: bool = False  # it only grows, from the start of the process
    kind = "gauge"
    _reads: list[Read] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        create = _meter.create_observable_gauge
        if self.counts:
            object.__setattr__(self, "kind", "counter")
            create = _meter.create_observable_counter  # type: ignore[assignment]  # the same call
        create(self.name, [self._collect], unit=self.unit, description=self.says)

    def _collect(self, _: CallbackOptions) -> list[Observation]:
        found: list[Observation] = []
        for read in tuple(self._reads):
            try:
                found += [Observation(value, dict(attributes)) for value, attributes in read()]
            except Exception:  # whatever it is, the other measures are collected
                log.exception("a measure could not be read", extra={"measure": self.name})
        return found


@contextmanager
def watched(reads: Mapping[Observed, Read]) -> Iterator[None]:
    """Have these readings collected for as long as the block lasts."""
    for measure, read in reads.items():
        measure._reads.append(read)
    try:
        yield
    finally:
        for measure, read in reads.items():
            measure._reads.remove(read)


def type_of(error: BaseException) -> str:
    """The name of its class."""
    return type(error).__qualname__


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Attributes | None = None,
    begins_trace: bool = False,
    follows: str | None = None,
    error_type: Callable[[BaseException], str] = type_of,
) -> Iterator[Span]:
    """The current span for as long as the block lasts.

    What is raised marks it by its `error_type` alone: its text may quote what must not leave. With
    `begins_trace` it is a root; `follows` is the traceparent of another span that it links to.
    """
    with _tracer.start_as_current_span(
        name,
        context=Context() if begins_trace else None,
        kind=kind,
        attributes=attributes,
        links=[Link(origin) for origin in _origin(follows)],
        record_exception=False,
        set_status_on_exception=False,
    ) as started:
        try:
            yield started
        except BaseException as error:
            failed(started, error_type(error))
            raise


def failed(span: Span, error_type: str) -> None:
    """Mark a span as failed."""
    span.set_attribute("error.type", error_type)
    span.set_status(StatusCode.ERROR)


def current_traceparent() -> str | None:
    """The W3C traceparent of the current span; None where nothing is traced."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier)
    return carrier.get(TRACEPARENT)


def link_current_to(traceparent: str | None) -> None:
    """Link the current span to the one of this traceparent."""
    for origin in _origin(traceparent):
        trace.get_current_span().add_link(origin)


def _origin(traceparent: str | None) -> list[trace.SpanContext]:
    if traceparent is None:
        return []
    context = trace.get_current_span(_w3c.extract({TRACEPARENT: traceparent}, Context()))
    origin = context.get_span_context()
    return [origin] if origin.is_valid else []


class Contents:
    """Whether arguments and results are put into spans. Off, unless the settings say otherwise.

    As global as the SDK that it belongs to.
    """

    recorded = False
