"""The dashboard asks for what there is: each series, each label, in queries that hold together."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from interlock_tools import measures
from interlock_tools.measures import ATTRIBUTES, MEASURES
from interlock_tools.telemetry import Measure
from tests import telemetry_table
from tests.telemetry_table import prometheus_name, series_of

FOLDER = Path(__file__).parents[2] / "docs" / "dashboards"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "interlock.json").read_text("utf-8"))
SERIES = {series: measure for measure in MEASURES for series in series_of(measure)}
FUNCTIONS = {"histogram_quantile", "increase", "max", "min", "rate", "sum", "topk", "vector"}
OF_PROMETHEUS = {"le", "job"}
TOKEN = re.compile(
    r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<range>\[(?:\$__rate_interval|\d+[smhd])\])'
    r"|(?P<name>[a-z_][a-z0-9_]*)|(?P<number>\d+(?:\.\d+)?)|(?P<mark>!=|=~|!~|[=,(){}]))"
)


def queries() -> Iterator[tuple[str, str]]:
    """Each query, with the title of its panel."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


class Query:
    """A query read by the small grammar that ours keep to."""

    def __init__(self, text: str) -> None:
        self.series: list[str] = []
        self.labels: set[str] = set()
        self._tokens = self._split(text)
        self._at = 0
        self._expression()
        assert self._at == len(self._tokens), f"left over: {self._tokens[self._at :]}"

    @staticmethod
    def _split(text: str) -> list[tuple[str, str]]:
        found, at = [], 0
        while at < len(text):
            match = TOKEN.match(text, at)
            assert match is not None, f"not a query from here on: {text[at:]!r}"
            kind = match.lastgroup or ""
            found.append((kind, match[kind]))
            at = match.end()
        return found

    def _next(self, *wanted: str) -> str:
        kind, text = self._tokens[self._at]
        assert kind in wanted or text in wanted, f"{text!r} where {wanted} should be"
        self._at += 1
        return text

    def _is(self, *texts: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at][1] in texts

    def _expression(self) -> None:
        self._term()
        while self._is("or"):
            self._next("or")
            self._term()

    def _term(self) -> None:
        if self._tokens[self._at][0] == "number":
            self._next("number")
            return
        name = self._next("name")
        if name not in FUNCTIONS:
            self._selector(name)
            return
        if self._is("by"):
            self._next("by")
            self._next("(")
            self.labels.add(self._next("name"))
            while self._is(","):
                self._next(",")
                self.labels.add(self._next("name"))
            self._next(")")
        self._next("(")
        self._expression()
        while self._is(","):
            self._next(",")
            self._expression()
        self._next(")")

    def _selector(self, name: str) -> None:
        self.series.append(name)
        self._next("{")
        while True:
            self.labels.add(self._next("name"))
            self._next("=", "!=", "=~", "!~")
            self._next("text")
            if not self._is(","):
                break
            self._next(",")
        self._next("}")
        if self._at < len(self._tokens) and self._tokens[self._at][0] == "range":
            self._next("range")


@pytest.mark.parametrize(("title", "text"), list(queries()))
def test_a_panel_asks_for_series_and_labels_that_there_are(title: str, text: str) -> None:
    """A renamed metric would leave an empty panel, which looks like a quiet plant."""
    query = Query(text)

    assert query.series, title
    for series in query.series:
        assert series in SERIES, f"{title}: no metric of ours is {series}"
        known = {name.replace(".", "_") for name in SERIES[series].attributes} | OF_PROMETHEUS
        assert query.labels <= known, f"{title}: {query.labels - known} of {series}"


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    """What nobody looks at need not be measured."""
    shown = {SERIES[series].name for _, text in queries() for series in Query(text).series}
    assert {measure.name for measure in MEASURES} == shown


@pytest.mark.parametrize(
    "text",
    ['sum(rate(a{b="c"}[5m])', "rate(a[5m])", 'sum by le (a{b="c"})', 'a{b="c"} nonsense'],
)
def test_a_query_that_does_not_hold_together_is_seen(text: str) -> None:
    """The check itself is checked."""
    with pytest.raises((AssertionError, IndexError)):
        Query(text)


def test_legends_and_places_are_sound() -> None:
    """A legend names a label that its query keeps; no two panels lie on one another."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", []):
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert named <= Query(target["expr"]).labels, panel["title"]


def test_the_page_lists_what_the_code_has() -> None:
    """`make golden` writes it."""
    assert not telemetry_table.is_stale()


def test_the_catalogue_is_sound() -> None:
    """Each name once; what is ours under our prefix, and every attribute of ours explained."""
    assert len({prometheus_name(measure) for measure in MEASURES}) == len(MEASURES)
    used = {name for measure in MEASURES for name in measure.attributes}
    assert {name for name in used if name.startswith("interlock.")} <= set(ATTRIBUTES)
    constants = [value for name, value in vars(measures).items() if name.isupper()]
    assert all(isinstance(one, Measure) for one in MEASURES)
    assert set(ATTRIBUTES) <= {value for value in constants if isinstance(value, str)}


def test_the_collector_takes_what_is_sent_and_gives_what_is_asked() -> None:
    """OTLP over HTTP in; Prometheus with units in its names out."""
    collector = yaml.safe_load((FOLDER / "otel-collector.yaml").read_text("utf-8"))
    assert set(collector["receivers"]["otlp"]["protocols"]) == {"http"}
    assert collector["exporters"]["prometheus"]["add_metric_suffixes"] is True
    for pipeline in collector["service"]["pipelines"].values():
        for part in ("receivers", "processors", "exporters"):
            assert set(pipeline[part]) <= set(collector[part])
