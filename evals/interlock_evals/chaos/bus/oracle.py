"""What may be shown after each message: the rules of the contract once more, in other words.

It shares no code with the reader. What a message says it knows from whoever made the message; only
one that was mangled on its way it reads by itself, with a grammar of its own.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from interlock_evals.chaos.bus.shots import (
    BMS,
    Machine,
    Mangled,
    Meaning,
    Metadata,
    Refused,
    Shot,
    Value,
    Withdrawn,
    refused,
)

FRESH_MS, AHEAD_MS = 250_000, 5_000
STRANGERS = 7  # of one point, beside its owner
EDGE_MS = 2  # so near to a limit of age either answer is right
ANY_REASON = frozenset({"not_json", "not_an_object", "duplicate_field", "missing_field"}) | {
    "not_finite",
    "bad_value",
    "bad_timestamp",
    "bad_quality",
}
LIVES_MS = 250_000  # how long words that were said outweigh words that were kept


class Verdict(NamedTuple):
    """Whether a message must be taken, and otherwise which reasons may be named."""

    taken: bool
    reasons: frozenset[str] = frozenset()


class Shown(NamedTuple):
    """What must be shown of a point; `number` None is nothing; `either`: both are right."""

    number: float | None
    unit: str | None = None
    label: str | None = None
    at_ms: int = 0
    either: bool = False


NOTHING = Shown(None)


@dataclass
class _Point:
    owner: str = BMS
    meaning: Meaning | None = None  # None where it is not described
    meant: Meaning | None = None  # the last that it had
    lies: bool = False
    payload: bytes = b""
    live_ms: int | None = None
    since_ms: int = 0
    said: dict[str, Value] = field(default_factory=dict)
    where: Metadata | None = None


class Oracle:
    """The model of a bus, told every message in turn."""

    def __init__(self, max_points: int) -> None:
        self._max_points = max_points
        self._points: dict[str, _Point] = {}
        self._machines: dict[str, Machine] = {}

    def __len__(self) -> int:
        return len(self._points)

    def hear(self, shot: Shot, now_ms: int) -> Verdict:
        """What must happen to a message that comes at this moment."""
        meant = shot.meant
        if isinstance(meant, Mangled):
            meant = _unmangled(shot.payload, meant)
        match meant:
            case Refused():
                return self._refuse(meant, shot, now_ms)
            case Value():
                return self._value(meant, now_ms)
            case Metadata():
                return self._metadata(meant, shot, now_ms)
            case Withdrawn():
                return self._withdrawn(meant)
            case Machine():
                return self._machine(meant)
            case _:
                return Verdict(taken=True)

    def shown(self, key: str, now_ms: int) -> Shown:
        """What must be shown of a point at this moment."""
        point = self._points.get(key)
        if point is None or point.meaning is None or point.lies:
            return NOTHING
        value = point.said.get(point.owner)
        if value is None or value.number is None or not value.trusted:
            return NOTHING
        states = dict(point.meaning.states)
        if states and value.number not in states:
            return NOTHING
        age_ms = now_ms - value.at_ms
        near = min(abs(age_ms + AHEAD_MS), abs(age_ms - FRESH_MS)) <= EDGE_MS
        if not near and not -AHEAD_MS <= age_ms <= FRESH_MS:
            return NOTHING
        label = states.get(int(value.number)) if states else None
        return Shown(value.number, point.meaning.unit, label, value.at_ms, either=near)

    def relations(self) -> dict[str, dict[str, set[str]]]:
        """What belongs to whom, and what serves what."""
        found: dict[str, dict[str, set[str]]] = {
            name: defaultdict(set) for name in ("rack", "thing", "part_of", "serves", "served_by")
        }
        for key, point in self._points.items():
            if (where := point.where) is None:
                continue
            for name in ("rack", "thing", "part_of"):
                if (whose := getattr(where, name)) is not None:
                    found[name][whose].add(key)
            if where.thing is not None:
                for served in where.serves:
                    found["serves"][where.thing].add(served)
                    found["served_by"][served].add(where.thing)
        return found

    def machine(self, machine_id: str) -> str | None:
        """The state that must be shown of a machine."""
        found = self._machines.get(machine_id)
        return None if found is None else found.state

    def _place(self, key: str) -> _Point | None:
        """The point, known or new; None where there is no room."""
        if key in self._points:
            return self._points[key]
        return _Point() if len(self._points) < self._max_points else None

    def _refuse(self, meant: Refused, shot: Shot, now_ms: int) -> Verdict:
        reasons = meant.reasons
        if meant.key is not None:
            point = self._place(meant.key)
            if point is None:
                reasons |= {"store_full"}
            elif meant.describes and _outweighed(point, shot, now_ms):
                reasons |= {"retained_conflict"}
        return Verdict(taken=False, reasons=reasons)

    def _value(self, value: Value, now_ms: int) -> Verdict:
        point = self._place(value.key)
        if point is None:
            return Verdict(taken=False, reasons=frozenset({"store_full"}))
        reasons: set[str] = set()
        before = point.said.get(value.publisher)
        strangers = len(point.said.keys() - {point.owner})
        if before is None and value.publisher != point.owner and strangers >= STRANGERS:
            reasons.add("store_full")
        if before is not None and value.at_ms < before.at_ms <= now_ms + AHEAD_MS:
            reasons.add("out_of_order")
        if value.at_ms < point.since_ms:
            reasons.add("out_of_order")
        if reasons:
            return Verdict(taken=False, reasons=frozenset(reasons))
        self._points[value.key] = point
        point.said[value.publisher] = value
        return Verdict(taken=True)

    def _metadata(self, said: Metadata, shot: Shot, now_ms: int) -> Verdict:
        point = self._place(said.key)
        if point is None:
            return Verdict(taken=False, reasons=frozenset({"store_full"}))
        if _outweighed(point, shot, now_ms):
            return Verdict(taken=False, reasons=frozenset({"retained_conflict"}))
        self._points[said.key] = point
        if point.meant is not None and point.meant != said.meaning:
            point.said.clear()
            point.since_ms = now_ms
        self._own(point, said.owner)
        point.meaning = point.meant = said.meaning
        point.lies, point.payload, point.where = said.lies, shot.payload, said
        if not shot.retained:
            point.live_ms = now_ms
        return Verdict(taken=True)

    def _own(self, point: _Point, owner: str) -> None:
        """The one who owned it before is a stranger now, if there is room for one more."""
        before, point.owner = point.owner, owner
        if before != owner and len(point.said.keys() - {owner}) > STRANGERS:
            del point.said[before]

    def _withdrawn(self, said: Withdrawn) -> Verdict:
        if (point := self._place(said.key)) is None:
            return Verdict(taken=False, reasons=frozenset({"store_full"}))
        if point.meaning is not None:
            self._own(point, BMS)
            point.meaning, point.payload, point.live_ms, point.where = None, b"", None, None
        return Verdict(taken=True)

    def _machine(self, said: Machine) -> Verdict:
        before = self._machines.get(said.machine_id)
        if before is not None and said.at_ms < before.at_ms:
            return Verdict(taken=False, reasons=frozenset({"out_of_order"}))
        self._machines[said.machine_id] = said
        return Verdict(taken=True)


def _outweighed(point: _Point, shot: Shot, now_ms: int) -> bool:
    """Whether it is kept of another time than what was said lately."""
    lives = point.live_ms is not None and now_ms - point.live_ms <= LIVES_MS
    return shot.retained and shot.payload != point.payload and lives


# --- what happened on the way ---

_SPACE = rb"[ \t\n\r]*"
_NUMBER = rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_MEMBER = rb'"(value|timestamp|quality)"' + _SPACE + rb":" + _SPACE + rb"(null|" + _NUMBER + rb")"
_PAYLOAD = re.compile(
    _SPACE
    + rb"\{"
    + _SPACE
    + (_SPACE + rb"," + _SPACE).join([_MEMBER] * 3)
    + _SPACE
    + rb"\}"
    + _SPACE
)
_WHOLE = re.compile(rb"-?(?:0|[1-9][0-9]*)")


def _unmangled(payload: bytes, meant: Mangled) -> Value | Refused:
    """What it still says; what is not to the letter must be refused."""
    wrong = refused(*ANY_REASON, key=meant.key)
    found = _PAYLOAD.fullmatch(payload)
    if found is None:
        return wrong
    parts = found.groups()
    members = dict(zip(parts[::2], parts[1::2], strict=True))
    if len(members) < 3 or b"null" in (members[b"timestamp"], members[b"quality"]):
        return wrong
    stamp, quality = float(members[b"timestamp"]), float(members[b"quality"])
    if _WHOLE.fullmatch(members[b"timestamp"]):
        stamp = int(members[b"timestamp"])
    if not quality.is_integer() or not 0 < stamp <= 10**14:
        return wrong
    if stamp < 10**11:  # seconds; a part of one is cut
        stamp = int(stamp) * 1000
    if stamp != int(stamp) or stamp == 0:
        return wrong
    number = None if members[b"value"] == b"null" else float(members[b"value"])
    if number is not None and abs(number) > 1.7e308:
        return wrong
    if number is not None and _WHOLE.fullmatch(members[b"value"]) and abs(number) > 2.0**63:
        return wrong
    return Value(meant.key, meant.publisher, number, int(stamp), quality == 1)
