"""Messages of the grid, true and forged: each is a true one with one thing wrong; from one seed."""

import json
import random
import uuid
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from interlock_evals.chaos.bus import jws
from interlock_evals.chaos.bus.jws import Key

Json = dict[str, Any]

ISV, RSA_ISV = "//grid/v1/isv/acme", "//grid/v1/isv/beta"
FEEDS = ("main-a", "main-b")
WINDOW_MS, AHEAD_MS = 300_000, 5_000
FACTOR = {"watt": 1.0, "kilowatt": 1e3, "megawatt": 1e6}
REMEMBERED = 300


class Target(NamedTuple):
    """A limit as its source signed it; `limit_w` None takes that source's limit away."""

    feeds: tuple[str, ...]
    limit_w: float | None
    start_ms: int
    end_ms: int
    sent_ms: int
    source: str = ISV


class Grid(NamedTuple):
    """One message; `target` is what must hold then, and otherwise one of `reasons` is named."""

    kind: str
    topic: str
    payload: bytes
    target: Target | None
    reasons: frozenset[str]


class Keys:
    """Whose keys there are; the forger's is in no key set."""

    def __init__(self, chance: random.Random) -> None:
        self.isv = Key.on_p256("acme-1", chance.getrandbits(256))
        self.other = Key.rsa("beta-1")
        self.forger = Key.on_p256("acme-1", chance.getrandbits(256))
        self.stray = Key.on_p256("stray-1", chance.getrandbits(256))
        self.of = {ISV: self.isv, RSA_ISV: self.other}


class Envelopes:
    """An ISV that sends targets, and whoever would like to be taken for it."""

    def __init__(self, chance: random.Random, keys: Keys) -> None:
        self._chance = chance
        self._keys = keys
        self._sent: deque[tuple[int, Json]] = deque(maxlen=REMEMBERED)
        self._ways: tuple[tuple[Callable[[int], Grid], int], ...] = (
            (self._true, 30),
            (self._wrong_member, 30),
            (self._wrong_text, 8),
            (self._skewed, 8),
            (self._forged, 24),
            (self._replayed, 16),
            (self._wrong_target, 24),
            (self._wrong_topic, 4),
        )

    def send(self, now_ms: int) -> Grid:
        """What comes next."""
        ways, weights = zip(*self._ways, strict=True)
        (way,) = self._chance.choices(ways, weights)
        shot: Grid = way(now_ms)
        return shot

    # --- true ones ---

    def _target(self, now_ms: int, sent_ms: int) -> tuple[Json, Target]:
        feeds = self._chance.choice((FEEDS[:1], FEEDS[1:], FEEDS, ()))
        unit = self._chance.choice(tuple(FACTOR))
        number = self._chance.randrange(1, 10_000) / 8
        end_ms = now_ms + self._chance.randrange(5_000, 60_000)
        start_ms = now_ms - 1_000 if self._chance.random() < 0.5 else None
        said: Json = {"interval": {"end_time": _iso(end_ms)}, "feed_tags": list(feeds)}
        if start_ms is not None:
            said["interval"]["start_time"] = _iso(start_ms)
        if not feeds:
            del said["feed_tags"]
        removes = self._chance.random() < 0.1
        said["load_constraint"] = None if removes else {"value": number, "unit": unit}
        limit_w = None if removes else number * FACTOR[unit]
        begins_ms = now_ms if start_ms is None else start_ms
        return {"targets": [said]}, Target(feeds or FEEDS, limit_w, begins_ms, end_ms, sent_ms)

    def _document(self, sent_ms: int, data: Any, source: str = ISV) -> Json:
        return {
            "specversion": self._chance.choice(("1.0.2", "1.0")),
            "id": self._uuid(),
            "source": source,
            "type": "grid.loadtarget.set.v1",
            "time": _iso(sent_ms),
            "datacontenttype": "application/json",
            "subject": "loadtarget",
            "traceparent": f"00-{self._bits(128)}-{self._bits(64)}-01",
            "correlationid": self._uuid(),
            "data": data,
        }

    def _bits(self, count: int) -> str:
        return f"{self._chance.getrandbits(count):0{count // 4}x}"

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))

    def _true(self, now_ms: int) -> Grid:
        late_ms = self._chance.randrange(-4_000, 200_000) if self._chance.random() < 0.3 else 0
        sent_ms = now_ms - late_ms
        payload, target = self._target(now_ms, sent_ms)
        source = RSA_ISV if self._chance.random() < 0.04 else ISV
        signed = jws.compact(json.dumps(payload).encode(), self._keys.of[source])
        document = self._document(sent_ms, signed, source)
        if source == ISV:
            self._sent.append((sent_ms, document))
        return _grid("true", document, target=target._replace(source=source))

    # --- one thing wrong ---

    def _signed(self, now_ms: int) -> Json:
        payload, _ = self._target(now_ms, now_ms)
        return self._document(now_ms, jws.compact(json.dumps(payload).encode(), self._keys.isv))

    def _wrong_member(self, now_ms: int) -> Grid:
        name, part, reason = self._chance.choice(_WRONG_MEMBERS)
        document = self._document(now_ms, "e30.e30.c2ln") | {name: part}
        if part is _ABSENT:
            del document[name]
        return _grid("wrong_member", document, reason)

    def _wrong_text(self, now_ms: int) -> Grid:
        text = json.dumps(self._document(now_ms, "e30.e30.c2ln"))
        wrong = (
            (text[:-1], "not_json"),
            ("[" * 20_000, "not_json"),
            (f"[{text}]", "not_an_object"),
            (text[:-1] + ',"data":"x"}', "duplicate_member"),
            (text[:-1] + ',"extra":NaN}', "power_not_finite"),
            (text + " " * 262_144, "too_large"),
        )
        chosen, reason = self._chance.choice(wrong)
        return _grid("wrong_text", chosen.encode(), reason)

    def _skewed(self, now_ms: int) -> Grid:
        """True in all, but its clock is hours behind or ahead of ours."""
        by_ms = self._chance.randrange(10, 3_600_000)
        early = self._chance.random() < 0.5
        sent_ms = now_ms + AHEAD_MS + by_ms if early else now_ms - WINDOW_MS - by_ms
        document = self._signed(now_ms) | {"time": _iso(sent_ms)}
        return _grid("skewed", document, "in_the_future" if early else "too_old")

    def _forged(self, now_ms: int) -> Grid:
        """A target that nobody signed who may."""
        payload = json.dumps(self._target(now_ms, now_ms)[0]).encode()
        keys, isv = self._keys, self._keys.isv
        public = json.dumps(isv.public_jwk).encode()
        true = jws.compact(payload, isv)
        wrong: tuple[tuple[Callable[[], str], tuple[str, ...]], ...] = (
            (lambda: jws.unsigned(payload, isv.kid), ("algorithm_refused",)),
            (lambda: jws.unsigned(payload, isv.kid, "NONE"), ("algorithm_refused",)),
            (lambda: jws.unsigned(payload, isv.kid, "ES256"), ("bad_signature",)),
            (lambda: jws.by_hmac(payload, isv.kid, public), ("algorithm_refused",)),
            (lambda: jws.compact(payload, keys.forger), ("bad_signature",)),
            (lambda: jws.compact(payload, keys.stray), ("unknown_key",)),
            (lambda: jws.compact(payload, isv, kid=None), ("no_kid",)),
            (lambda: jws.compact(payload, isv, kid=7), ("no_kid",)),
            (lambda: jws.compact(payload, isv, kid=keys.other.kid), ("key_of_another_source",)),
            (lambda: jws.compact(payload, isv, alg="RS256"), ("algorithm_refused",)),
            (lambda: jws.compact(payload, isv, alg="ES384"), ("algorithm_refused",)),
            (lambda: jws.compact(payload, isv, crit=["b64"], b64=False), ("bad_jws",)),
            (lambda: jws.tampered(true, payload + b" "), ("bad_signature",)),
            (lambda: true[:-12], ("bad_signature",)),
            (lambda: true.rpartition(".")[0], ("bad_jws",)),
            (lambda: true + "=", ("bad_jws",)),
            (lambda: "e30" + true, ("bad_jws", "bad_signature")),
        )
        forge, reasons = self._chance.choice(wrong)
        return _grid("forged", self._document(now_ms, forge()), *reasons)

    def _replayed(self, now_ms: int) -> Grid:
        """A true one once more: as it was, in a new envelope, or with its signature respelt."""
        recent = [d for sent, d in self._sent if now_ms - sent < WINDOW_MS - 1_000]
        if not recent:
            return self._true(now_ms)
        old = self._chance.choice(recent)
        fresh = {"id": self._uuid(), "time": _iso(now_ms)}
        again = (
            old,
            old | fresh,
            old | fresh | {"data": jws.twin(old["data"])},
            old | fresh | {"data": jws.respelt(old["data"])},
            self._signed(now_ms) | {"id": old["id"]},
            self._signed(now_ms) | {"id": old["id"].upper()},
        )
        return _grid("replayed", self._chance.choice(again), "replayed", "bad_jws", "bad_signature")

    def _wrong_target(self, now_ms: int) -> Grid:
        """Signed by the right one, and still nothing that may hold."""
        payload, _ = self._target(now_ms, now_ms)
        part, *reasons = self._chance.choice(_WRONG_TARGETS)
        payload["targets"][0] |= part
        for name in [name for name, value in payload["targets"][0].items() if value is _ABSENT]:
            del payload["targets"][0][name]
        signed = jws.compact(json.dumps(payload).encode(), self._keys.isv)
        return _grid("wrong_target", self._document(now_ms, signed), *reasons)

    def _wrong_topic(self, now_ms: int) -> Grid:
        """A true one on another's topic, or of a source that nobody trusts."""
        document = self._signed(now_ms)
        match self._chance.randrange(3):
            case 0:
                return _grid("wrong_topic", document, "source_mismatch", topic="isv/mallory")
            case 1:
                stranger = document | {"source": "//grid/v1/isv/mallory"}
                return _grid("wrong_topic", stranger, "untrusted_source", topic="isv/mallory")
            case _:
                return _grid("wrong_topic", document, "unknown_topic", topic="utility/acme")


_ABSENT = object()
_OLD = "2020-01-01T00:00:00Z"
_WRONG_MEMBERS: tuple[tuple[str, Any, str], ...] = (
    ("specversion", "2.0", "bad_specversion"),
    ("specversion", None, "bad_specversion"),
    ("id", _ABSENT, "bad_id"),
    ("id", "1", "bad_id"),
    ("id", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "bad_id"),
    ("source", "acme", "bad_source"),
    ("source", "//grid/v1/utility/acme", "bad_source"),
    ("source", RSA_ISV, "source_mismatch"),
    ("source", "//grid/v1/dsx-flex-agent/acme", "source_mismatch"),
    ("type", "grid.powerstate.status.v1", "bad_type"),
    ("type", ["grid.loadtarget.set.v1"], "bad_type"),
    ("subject", "powerstate", "bad_subject"),
    ("time", "now", "bad_time"),
    ("time", "2026-09-01T00:00:00", "bad_time"),
    ("time", "0001-01-01T00:00:00+14:00", "bad_time"),
    ("datacontenttype", "text/plain", "bad_content_type"),
    ("traceparent", "00-1-1-01", "bad_traceparent"),
    ("traceparent", _ABSENT, "bad_traceparent"),
    ("correlationid", "1", "bad_correlation_id"),
    ("data", _ABSENT, "no_data"),
    ("data", 7, "no_data"),
    ("data", {"targets": []}, "unsigned"),
    ("data", "e30", "bad_jws"),
    ("data", "AAAA.AAAA.AAAA", "bad_jws"),
)
_WATT: Json = {"value": 1.0, "unit": "watt"}
_WRONG_TARGETS: tuple[tuple[Any, ...], ...] = (
    ({"load_constraint": _WATT | {"value": 0}}, "power_not_positive"),
    ({"load_constraint": _WATT | {"value": -5}}, "power_negative"),
    ({"load_constraint": _WATT | {"value": float("nan")}}, "power_not_finite"),
    ({"load_constraint": _WATT | {"value": float("inf")}}, "power_not_finite"),
    ({"load_constraint": _WATT | {"value": 10**400}}, "power_not_finite"),
    ({"load_constraint": _WATT | {"value": 1e308, "unit": "megawatt"}}, "power_not_finite"),
    ({"load_constraint": _WATT | {"value": "5"}}, "bad_payload"),
    ({"load_constraint": _WATT | {"value": True}}, "bad_payload"),
    ({"load_constraint": _WATT | {"unit": "horsepower"}}, "unknown_unit"),
    ({"load_constraint": _WATT | {"unit": "kW"}}, "unknown_unit"),
    ({"load_constraint": _ABSENT}, "bad_payload"),
    ({"load_constraint": 5}, "bad_payload"),
    ({"interval": _ABSENT}, "bad_interval"),
    ({"interval": {"start_time": "2030-01-02T00:00:00Z", "end_time": _OLD}}, "bad_interval"),
    ({"interval": {"end_time": _OLD}}, "interval_past"),
    ({"feed_tags": ["elsewhere"]}, "unknown_feed"),
    ({"feed_tags": "main-a"}, "bad_feed_tags"),
    ({"feed_tags": [""]}, "bad_feed_tags"),
    ({"feed_tags": [7]}, "bad_feed_tags"),
    ({"feedTags": ["main-a"]}, "bad_feed_tags"),
    ({"strategy": {"best_effort": "false"}}, "bad_payload"),
)


def _grid(
    kind: str,
    document: Json | bytes,
    *reasons: str,
    target: Target | None = None,
    topic: str | None = None,
) -> Grid:
    sender = "isv/acme"
    if isinstance(document, dict):
        payload = json.dumps(document).encode()
        if kind == "true":
            sender = document["source"].removeprefix("//grid/v1/")
    else:
        payload = document
    name = f"grid/v1/{topic or sender}/loadtarget/set"
    return Grid(f"grid_{kind}", name, payload, target, frozenset(reasons))


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
