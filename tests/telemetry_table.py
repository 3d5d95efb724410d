"""`docs/telemetry.md`: every metric, span and attribute of ours, from the code; never by hand."""

from pathlib import Path

from interlock_tools.measures import ATTRIBUTES, MEASURES, SPANS
from interlock_tools.telemetry import Histogram, Measure

FILE = Path(__file__).parents[1] / "docs" / "telemetry.md"
SUFFIX_OF_UNIT = {"s": "_seconds"}
HEAD = """\
# Telemetry

Written by `make golden` from `tools/interlock_tools/measures.py`; `make check` fails where it is
stale.

Traces and metrics leave over OTLP, HTTP with protobuf. They are off until somebody asks:

```toml
[telemetry]
enabled = true                        # left out: on where a variable names an OTLP endpoint
endpoint = "http://localhost:4318"    # where no variable names one
contents = false                      # arguments and results of tools in the server's spans
```

The standard variables go before the file: `OTEL_EXPORTER_OTLP_ENDPOINT` (and `_HEADERS`,
`_CERTIFICATE`, `_TIMEOUT`, each also for `_TRACES_` and `_METRICS_`), `OTEL_SERVICE_NAME`,
`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_BSP_*`,
`OTEL_TRACES_EXPORTER` and `OTEL_METRICS_EXPORTER` (`otlp` or `none`). `OTEL_SDK_DISABLED=true` ends
it all. `interlock serve --stdio` and `interlock demo` without settings go by the variables alone.

Where it is off no SDK is imported, and no record of the ledger names a trace.

[`dashboards/`](dashboards/) has a Grafana dashboard over these names as a collector gives them to
Prometheus, and the configuration of such a collector.

## What is not in it

No arguments, no results, no text of an error of ours, and no topic of the bus in a metric. With
`contents = true` the server's spans hold arguments and results as the ledger would: what looks like
a secret is masked, and 8,000 characters are kept. Two things come from the MCP SDK and are not ours
to leave out: the message of a protocol error on its server span, and the trace of a crash.

## One change, two traces

`traceparent` goes with every request in `params._meta`. So an agent's round, its use of the tool,
the request, the server and the guard's `interlock.propose` are one trace, and the ledger's
`requested` and `decided` records carry its id.

Approval may take hours, and a span that waits for it would be lost with the process. So the change
row keeps the `traceparent` of its proposal (optional; no digest covers it and nothing is decided by
it), and the worker opens a trace of its own, `interlock.carry_out`, with a link back to it. The
`intent`, `outcome` and `verified` records carry the ids of that one. A vote links back likewise. A
change that is held is looked at every second, each time in a trace of its own; one that waits for
its moment is not.
"""


def prometheus_name(measure: Measure) -> str:
    """What an OpenTelemetry collector calls it for Prometheus."""
    name = measure.name.replace(".", "_") + SUFFIX_OF_UNIT.get(measure.unit, "")
    return f"{name}_total" if measure.kind == "counter" else name


def series_of(measure: Measure) -> set[str]:
    """The series that Prometheus has of it."""
    name = prometheus_name(measure)
    if isinstance(measure, Histogram):
        return {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return {name}


def is_stale() -> bool:
    """Whether the page says something else than the code."""
    return not FILE.is_file() or FILE.read_text("utf-8") != as_markdown()


def as_markdown() -> str:
    """The whole page."""
    lines = [HEAD, "## Metrics", "", "| metric | kind | unit | attributes | in Prometheus |"]
    lines.append("|---|---|---|---|---|")
    for measure in MEASURES:
        attributes = ", ".join(f"`{name}`" for name in measure.attributes) or "none"
        lines.append(
            f"| `{measure.name}`: {measure.says} | {measure.kind} | `{measure.unit}` | "
            f"{attributes} | `{prometheus_name(measure)}` |"
        )
    lines += ["", "Bounds of the buckets, in seconds:", ""]
    for measure in MEASURES:
        if isinstance(measure, Histogram):
            bounds = ", ".join(f"{bound:g}" for bound in measure.buckets)
            lines.append(f"- `{measure.name}`: {bounds}")
    lines += ["", "## Spans", "", "| span | kind | what it is |", "|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {says} |" for name, kind, says in SPANS]
    lines += ["", "## Attributes of ours", "", "| attribute | what it says |", "|---|---|"]
    lines += [f"| `{name}` | {says} |" for name, says in ATTRIBUTES.items()]
    lines += [
        "",
        "All others are those of the OpenTelemetry conventions for MCP, GenAI, RPC and messaging.",
    ]
    return "\n".join(lines) + "\n"
