"""Values, good and bad in every way that the contract or a broken publisher knows."""

import json
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from interlock_evals.chaos.bus.facility import INTEGRATIONS, Facility, Point
from interlock_evals.chaos.bus.shots import BMS, Mangled, Meant, Shot, Value, refused

REMEMBERED = 500  # messages that may come again
CROWD = 30  # publishers of one point
FLOODED = 2000  # points that do not exist

BAD_QUALITIES: tuple[tuple[Any, bool], ...] = (
    (0, False),
    (2, False),
    (192, False),
    (-1, False),
    (2**80, False),
    ("0", False),
    ("192", False),
    (0.0, False),
    ("1", True),
    (1.0, True),
)
NO_QUALITIES: tuple[Any, ...] = (True, None, "good", "1.0", " 1", [1], {}, 0.5, "")
NO_NUMBERS: tuple[Any, ...] = (
    True,
    False,
    "47.7",
    "",
    [],
    {},
    [1.0],
    {"value": 1},
    2**70,
    -(2**70),
)
NO_MOMENTS: tuple[Any, ...] = (None, True, "1788220800000", [], 0, -1, 10**15, 1.5e12 + 0.5, -0.5)
NOT_FINITE = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e400")
NO_JSON = (
    b"",
    b"{",
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    b"{'value':1}",
    b"[" * 4000,
    b'{"value":1,}',
)
NO_OBJECTS = (b"[]", b"1", b'"x"', b"null", b"true", b'[{"value":1,"timestamp":1,"quality":1}]')
TWICE = (
    b'{"value":%d,"value":%d,"timestamp":%d,"quality":1}',
    b'{"value":%d,"quality":0,"timestamp":%d,"timestamp":%d,"quality":1}',
    b'{"value":%d,"qu\\u0061lity":%d,"timestamp":%d,"quality":1}',
)


class Readings:
    """What publishers say at one moment after the other."""

    def __init__(self, chance: random.Random, facility: Facility) -> None:
        self._chance = chance
        self._facility = facility
        self._sent: deque[Shot] = deque(maxlen=REMEMBERED)
        self._ways: tuple[tuple[Callable[[Point, int], Shot], int], ...] = (
            (self._good, 420),
            (self._quality, 60),
            (self._no_quality, 25),
            (self._none, 20),
            (self._late, 30),
            (self._early, 20),
            (self._otherwise_written, 40),
            (self._not_finite, 20),
            (self._no_number, 30),
            (self._no_moment, 30),
            (self._lacking, 25),
            (self._twice, 25),
            (self._no_json, 25),
            (self._no_object, 15),
            (self._too_large, 5),
            (self._mangled, 90),
            (self._replayed, 50),
            (self._foreign, 30),
            (self._crowded, 10),
            (self._retained, 15),
            (self._flooded, 15),
        )

    def say(self, now_ms: int) -> Shot:
        """What comes next."""
        ways, weights = zip(*self._ways, strict=True)
        (way,) = self._chance.choices(ways, weights)
        shot: Shot = way(self._chance.choice(self._facility.points), now_ms)
        if isinstance(shot.meant, Value):
            self._sent.append(shot)
        return shot

    def _number(self, point: Point) -> float:
        if point.kind.states:
            return self._chance.choice((0, 0, 1, 1, -1, 2, 7, 0.5))
        exact = self._chance.randrange(-1000, 5000)
        return exact if self._chance.random() < 0.3 else exact / 7

    def _shot(self, name: str, point: Point, fields: dict[str, Any], meant: Meant) -> Shot:
        publisher = meant.publisher if isinstance(meant, Value) else point.owner
        return Shot(
            f"value_{name}", point.value_topic(publisher), json.dumps(fields).encode(), False, meant
        )

    def _value(self, name: str, point: Point, at_ms: int, **other: Any) -> Shot:
        """A reading to the letter, but for what is other."""
        number = other.get("number", self._number(point))
        quality, trusted = other.get("quality", (1, True))
        publisher = other.get("publisher", point.owner)
        fields = {"value": number, "timestamp": at_ms, "quality": quality}
        said = None if number is None else float(number)
        return self._shot(name, point, fields, Value(point.key, publisher, said, at_ms, trusted))

    def _wrong(self, name: str, point: Point, payload: bytes, *reasons: str) -> Shot:
        meant = refused(*reasons, key=point.key)
        return Shot(f"value_{name}", point.value_topic(point.owner), payload, False, meant)

    def _with(self, point: Point, now_ms: int, **parts: Any) -> bytes:
        fields = {"value": self._number(point), "timestamp": now_ms, "quality": 1}
        return json.dumps(fields | parts).encode()

    def _good(self, point: Point, now_ms: int) -> Shot:
        return self._value("good", point, now_ms - self._chance.randrange(1500))

    def _quality(self, point: Point, now_ms: int) -> Shot:
        quality = self._chance.choice(BAD_QUALITIES)
        return self._value("quality", point, now_ms, quality=quality)

    def _no_quality(self, point: Point, now_ms: int) -> Shot:
        payload = self._with(point, now_ms, quality=self._chance.choice(NO_QUALITIES))
        return self._wrong("no_quality", point, payload, "bad_quality")

    def _none(self, point: Point, now_ms: int) -> Shot:
        return self._value("none", point, now_ms, number=None)

    def _late(self, point: Point, now_ms: int) -> Shot:
        return self._value("late", point, now_ms - self._chance.randrange(600_000))

    def _early(self, point: Point, now_ms: int) -> Shot:
        far = self._chance.choice((4_000, 20_000, 3_600_000, 10**14 - now_ms))
        return self._value("early", point, now_ms + self._chance.randrange(far) + 1)

    def _otherwise_written(self, point: Point, now_ms: int) -> Shot:
        """The same reading, as deployed clients write it."""
        number = self._number(point)
        second = now_ms // 1000
        said = Value(point.key, point.owner, float(number), second * 1000, trusted=True)
        fields: dict[str, Any] = {"quality": 1, "timestamp": second * 1000, "value": number}
        match self._chance.randrange(4):
            case 0:
                fields["timestamp"] = second
            case 1:
                fields["timestamp"] = second + 0.25
            case 2:
                fields["timestamp"] = float(second * 1000)
            case _:
                fields["unit"] = {"value": [1, 2]}
        return self._shot("otherwise_written", point, fields, said)

    def _not_finite(self, point: Point, now_ms: int) -> Shot:
        number = self._chance.choice(NOT_FINITE)
        payload = b'{"value":%s,"timestamp":%d,"quality":1}' % (number, now_ms)
        return self._wrong("not_finite", point, payload, "not_finite")

    def _no_number(self, point: Point, now_ms: int) -> Shot:
        payload = self._with(point, now_ms, value=self._chance.choice(NO_NUMBERS))
        return self._wrong("no_number", point, payload, "bad_value")

    def _no_moment(self, point: Point, now_ms: int) -> Shot:
        payload = self._with(point, now_ms, timestamp=self._chance.choice(NO_MOMENTS))
        return self._wrong("no_moment", point, payload, "bad_timestamp")

    def _lacking(self, point: Point, now_ms: int) -> Shot:
        fields = json.loads(self._with(point, now_ms))
        del fields[self._chance.choice(tuple(fields))]
        return self._wrong("lacking", point, json.dumps(fields).encode(), "missing_field")

    def _twice(self, point: Point, now_ms: int) -> Shot:
        """Two readers could see two readings."""
        payload = self._chance.choice(TWICE) % (1, self._chance.randrange(2), now_ms)
        return self._wrong("twice", point, payload, "duplicate_field")

    def _no_json(self, point: Point, _: int) -> Shot:
        payload = self._chance.choice((*NO_JSON, self._chance.randbytes(40)))
        return self._wrong("no_json", point, payload, "not_json", "not_an_object")

    def _no_object(self, point: Point, _: int) -> Shot:
        return self._wrong("no_object", point, self._chance.choice(NO_OBJECTS), "not_an_object")

    def _too_large(self, point: Point, now_ms: int) -> Shot:
        payload = self._with(point, now_ms) + b" " * 4096
        return self._wrong("too_large", point, payload, "too_large")

    def _mangled(self, point: Point, now_ms: int) -> Shot:
        """A byte is changed, lost, doubled or cut off with all that follows."""
        payload = bytearray(self._with(point, now_ms))
        at = self._chance.randrange(len(payload))
        match self._chance.randrange(5):
            case 0:
                payload[at] ^= 1 << self._chance.randrange(8)
            case 1:
                payload[at] = self._chance.choice(b'0123456789eE+-.,:"{} ')
            case 2:
                del payload[at]
            case 3:
                payload.insert(at, payload[at])
            case _:
                del payload[at:]
        meant = Mangled(point.key, point.owner)
        return Shot("value_mangled", point.value_topic(point.owner), bytes(payload), False, meant)

    def _replayed(self, point: Point, now_ms: int) -> Shot:
        """Said before, and once more after a failover."""
        if not self._sent:
            return self._good(point, now_ms)
        return self._chance.choice(self._sent)._replace(kind="value_replayed")

    def _foreign(self, point: Point, now_ms: int) -> Shot:
        publisher = self._chance.choice((BMS, *INTEGRATIONS))
        return self._value("foreign", point, now_ms, publisher=publisher)

    def _crowded(self, _: Point, now_ms: int) -> Shot:
        """One of many who write one point."""
        point = self._facility.points[0]
        publisher = f"X{self._chance.randrange(CROWD)}"
        return self._value("crowded", point, now_ms, publisher=publisher)

    def _retained(self, point: Point, now_ms: int) -> Shot:
        at_ms = now_ms - self._chance.randrange(3_600_000)
        return self._value("retained", point, at_ms)._replace(retained=True)

    def _flooded(self, point: Point, now_ms: int) -> Shot:
        """A point that nobody has described, one of thousands."""
        tail = f"Rack/RackPower/flood/{self._chance.randrange(FLOODED)}"
        said = Value(tail, BMS, 1.0, now_ms, trusted=True)
        payload = self._with(point, now_ms, value=1)
        return Shot("value_flooded", f"BMS/v1/PUB/Value/{tail}", payload, False, said)
