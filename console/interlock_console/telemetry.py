"""Telemetry on or off: `[telemetry]` and the standard OTEL_* variables. Off, no SDK is imported."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict

from interlock_servers.offer import VERSION
from interlock_tools.errors import InvalidRequestError
from interlock_tools.telemetry import Contents

ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
PROTOCOLS = (
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
)
PROTOCOL = "http/protobuf"
EXPORTERS = ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER")


class TelemetrySettings(BaseModel):
    """The table `[telemetry]`.

    `enabled` left out: on exactly where a variable names an OTLP endpoint. `endpoint` is the base
    address where none does. `contents` puts arguments and results of tools into the server's spans.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool | None = None
    endpoint: str | None = None
    contents: bool = False

    def is_on(self, environment: Mapping[str, str]) -> bool:
        """Whether anything is recorded; OTEL_SDK_DISABLED goes before everything."""
        if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return False
        if self.enabled is not None:
            return self.enabled
        return any(environment.get(name) for name in ENDPOINTS)


OFF = TelemetrySettings()


@contextmanager
def telemetry(settings: TelemetrySettings = OFF, site_id: str | None = None) -> Iterator[bool]:
    """Record and export for as long as the block lasts, once in a process; gives whether it is on.

    Raises:
        InvalidRequestError: a variable asks for what is not spoken here.
    """
    if not settings.is_on(os.environ):
        yield False
        return
    _check(os.environ)
    from interlock_console import otel  # the SDK; it costs some 100 ms and 20 MB

    pipeline = otel.over_otlp(VERSION, site_id, settings.endpoint)
    Contents.recorded = settings.contents
    try:
        yield True
    finally:
        Contents.recorded = False
        pipeline.close()


def _check(environment: Mapping[str, str]) -> None:
    for name in PROTOCOLS:
        if environment.get(name, PROTOCOL) not in {"", PROTOCOL}:
            raise InvalidRequestError(f"{name} is {environment[name]}; only {PROTOCOL} is spoken")
    for name in EXPORTERS:
        if environment.get(name, "otlp") not in {"", "otlp", "none"}:
            raise InvalidRequestError(f"{name} is {environment[name]}; there is otlp, and none")
