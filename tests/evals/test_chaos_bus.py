"""A bus that lies: a slice of the million, and readers without a rule, each of which is caught."""

import base64
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws

from interlock_evals.chaos.bus.__main__ import NONE_OF, report_of, run
from interlock_evals.chaos.bus.found import Found
from interlock_evals.chaos.bus.grid import GridRun
from interlock_evals.chaos.bus.points import PointRun
from interlock_servers.exchange import catalogue, columns, models, points, slot, store
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.flex import replays
from interlock_servers.transports.mqtt import Message

SEED = 2026
SLICE = 6_000
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Each refused message is a line of the log."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def test_of_thousands_of_lies_none_is_shown_as_good_none_crashes_and_each_has_its_name() -> None:
    """The same messages as `make chaos`, fewer of them; all good values are shown, too."""
    found = run(SEED, SLICE)
    assert all(one.clean for one in found.values()), [one.sentences for one in found.values()]
    report = report_of(found, SLICE, 1.0)
    assert {key: promise.held for key, promise in report.promises.items()} == dict.fromkeys(
        ("messages", *NONE_OF), True
    )
    points_found = found["points"]
    assert points_found.shown > SLICE / 2
    assert len(points_found.rejected) > 15
    assert len(found["grid"].rejected) > 15


def test_the_same_seed_tells_the_same_lies() -> None:
    """So that what was found once can be found again."""
    first, second = PointRun(7).run(500), PointRun(7).run(500)
    assert (first.messages, first.rejected) == (second.messages, second.rejected)
    assert PointRun(8).run(500).messages != first.messages


# Readers that are wrong. Each must be caught, or the million above proves nothing.


class Rewriting(ExchangeClient):
    """Takes a bad quality for a good one."""

    def hear(self, message: Message) -> None:
        """With another payload than came."""
        payload = message.payload.replace(b'"quality": 0', b'"quality": 1')
        super().hear(message._replace(payload=payload))


class Falling(ExchangeClient):
    """Raises on what it does not like."""

    def hear(self, message: Message) -> None:
        """Only objects, please."""
        super().hear(message)
        json.loads(message.payload)["value"]


class Deaf(ExchangeClient):
    """Never wrong, because it hears nothing."""

    def hear(self, message: Message) -> None:
        """Not at all."""


class Late(ExchangeClient):
    """Thinks that each message came a minute before."""

    def hear(self, message: Message) -> None:
        """With another moment."""
        at = message.received_at - timedelta(minutes=1)
        super().hear(message._replace(received_at=at))


class Forgetful(ExchangeClient):
    """Takes what was kept for what is said."""

    def hear(self, message: Message) -> None:
        """Never retained."""
        super().hear(message._replace(retained=False))


@pytest.mark.parametrize("reader", [Rewriting, Falling, Deaf, Late, Forgetful])
def test_a_reader_that_breaks_a_rule_is_caught(reader: type[ExchangeClient]) -> None:
    """Wrong, deaf or fragile: each shows."""
    assert not PointRun(SEED, reader).run(SLICE).clean


def _owner_is_anybody(patch: Patch) -> None:
    patch.setattr(models.PointMetadata, "owner", property(lambda said: "NICO"))


def _nothing_is_forgotten(patch: Patch) -> None:
    patch.setattr(slot.Slot, "forget", lambda self, at: None)


def _meaning_has_no_beginning(patch: Patch) -> None:
    forget = slot.Slot.forget

    def forgets(self: slot.Slot, at: datetime) -> None:
        forget(self, at)
        self.remeant_ms = 1

    patch.setattr(slot.Slot, "forget", forgets)


def _json_of_any_kind(patch: Patch) -> None:
    patch.setattr(models, "_decode", json.loads)


def _values_of_any_age(patch: Patch) -> None:
    patch.setattr(points.Point, "age_s", lambda self, now: 0.0 if self.latest else None)


def _clocks_may_be_ahead(patch: Patch) -> None:
    patch.setattr(points, "AHEAD_S", 3600.0)


def _lies_are_believed(patch: Patch) -> None:
    patch.setattr(models, "_contradiction", lambda metadata: None)


def _older_is_newer(patch: Patch) -> None:
    patch.setattr(store, "AHEAD_S", -1e12)


def _any_state_has_a_text(patch: Patch) -> None:
    patch.setattr(models.PointMetadata, "label", lambda self, value: "NoLeak")


def _units_are_as_they_come(patch: Patch) -> None:
    patch.setattr(models, "unit_as_specified", lambda point_type, unit: (unit, True))


def _the_search_has_holes(patch: Patch) -> None:
    judge = columns.Columns.judge
    patch.setattr(
        columns.Columns,
        "judge",
        lambda self, number, standing, at_ms: judge(self, number % 7 and number, standing, at_ms),
    )


def _nothing_new_is_listed(patch: Patch) -> None:
    patch.setattr(catalogue.Index, "_settle", lambda self: None)


def _room_for_anybody(patch: Patch) -> None:
    patch.setattr(store, "MAX_PUBLISHERS", 1000)


RULES: tuple[Callable[[Patch], None], ...] = (
    _owner_is_anybody,
    _nothing_is_forgotten,
    _meaning_has_no_beginning,
    _json_of_any_kind,
    _values_of_any_age,
    _clocks_may_be_ahead,
    _lies_are_believed,
    _older_is_newer,
    _any_state_has_a_text,
    _units_are_as_they_come,
    _the_search_has_holes,
    _nothing_new_is_listed,
    _room_for_anybody,
)


@pytest.mark.parametrize("remove", RULES, ids=lambda rule: rule.__name__.strip("_"))
def test_a_reader_without_one_of_its_rules_is_caught(
    remove: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    """Each rule is the only one of its kind: without it, something is shown or taken wrongly."""
    remove(monkeypatch)
    assert not PointRun(SEED).run(SLICE).clean


def _any_signature(patch: Patch) -> None:
    class Unverified:
        def __init__(self, payload: bytes) -> None:
            self.payload = payload

    def deserialize(compact: str, *_: Any, **__: Any) -> Unverified:
        part = compact.split(".")[1]
        return Unverified(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))

    patch.setattr(jws, "deserialize_compact", deserialize)


def _any_replay(patch: Patch) -> None:
    patch.setattr(replays.ReplayGuard, "take", lambda *_: None)


def _twins_are_two(patch: Patch) -> None:
    patch.setattr(replays, "fingerprint", lambda compact: compact.encode())


def _any_moment(patch: Patch) -> None:
    patch.setattr(replays.ReplayGuard, "check_time", lambda *_: None)


GRID_RULES = (_any_signature, _any_replay, _twins_are_two, _any_moment)


@pytest.mark.parametrize("remove", GRID_RULES, ids=lambda rule: rule.__name__.strip("_"))
def test_a_listener_without_one_of_its_rules_is_caught(
    remove: Callable[[Patch], None], monkeypatch: Patch, tmp_path: Path
) -> None:
    """Forged, replayed, respelt, or of another time."""
    remove(monkeypatch)
    assert not GridRun(SEED, tmp_path).run(400).clean


def test_a_promise_that_does_not_hold_says_what_was_shown() -> None:
    """The report keeps it."""
    found = Found()
    found.note("wrong", "7 is shown")
    promise = report_of({"points": found}, 1, 1.0).promises["wrong"]
    assert (promise.held, promise.why_not) == (False, "wrong: 7 is shown")
