"""A facility whose points say what they mean, and what goes wrong with that; all from one seed."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from interlock_evals.chaos.bus.shots import BMS, Meaning, Metadata, Shot, Withdrawn, refused

Json = dict[str, Any]
States = tuple[tuple[int, str], ...]

DRY: States = ((0, "NoLeak"), (1, "Leak"))
ASKED: States = ((0, "NoIsolationRequested"), (1, "IsolationRequested"), (-1, "Unknown"))
RUNS: States = ((0, "stopped"), (1, "running"), (2, "starting"))
INTEGRATIONS = ("NICO", "MEPAI", "AIOPS")
PREFIXES = ("", "", "", "cpc/east/", "cpc/PUB/", "cpc/Value/")


@dataclass(frozen=True)
class Kind:
    """A type of point: its unit or its states, and whether the specification fixes them."""

    object_type: str
    point_type: str
    unit: str | None = None
    states: States = ()
    fixed: bool = False
    integration: str | None = None


KINDS = (
    Kind("Rack", "RackPower", "kW", fixed=True),
    Kind("Rack", "RackLiquidFlow", "LPM", fixed=True),
    Kind("Rack", "RackLeakDetect", states=DRY, fixed=True),
    Kind("Rack", "RackLiquidIsolationRequest", states=ASKED, fixed=True, integration="NICO"),
    Kind("CDU", "LiquidTemperature", "C", fixed=True),
    Kind("CDU", "LiquidTemperatureSpRequest", "C", fixed=True, integration="MEPAI"),
    Kind("PowerMeter", "ActivePower", "kW"),
    Kind("Breaker", "Status", states=RUNS),
    Kind("Sensor", "Sound", "dB"),
    Kind("Sensor", "LeakDetect", states=DRY),
    Kind("System", "HeartbeatTimestampBms"),
)
SPELT = {"C": "°C", "LPM": "L/min"}
WRONG_UNIT = {"kW": "W", "LPM": "GPM", "C": "F"}
OTHER_UNIT = {"kW": "MW", "dB": "dBA"}


@dataclass(frozen=True)
class Point:
    """One point as its BMS describes it at the moment."""

    kind: Kind
    key: str
    prefix: str
    whose: str
    unit: str | None
    integration: str | None
    serves: tuple[str, ...] = ()

    @property
    def metadata_topic(self) -> str:
        """Where it is described."""
        return f"{self.prefix}BMS/v1/{BMS}/Metadata/{self.key.removeprefix(self.prefix)}"

    def value_topic(self, publisher: str) -> str:
        """Where its readings come."""
        return f"{self.prefix}BMS/v1/{publisher}/Value/{self.key.removeprefix(self.prefix)}"

    @property
    def owner(self) -> str:
        """Whose readings count."""
        return self.integration or BMS

    @property
    def document(self) -> Json:
        """Its description in JSON."""
        said: Json = {"objectType": self.kind.object_type, "pointType": self.kind.point_type}
        if self.unit is not None:
            said["engUnit"] = self.unit
        if self.kind.states:
            said["stateText"] = [{"value": n, "text": text} for n, text in self.kind.states]
        if self.kind.object_type == "Rack":
            said |= {"rackLocationId": self.whose, "rackLocationName": self.whose.upper()}
        else:
            said |= {"objectId": self.whose, "objectName": self.whose.upper()}
        if self.serves:
            said["servesId"] = list(self.serves)
        if self.integration is not None:
            said["integration"] = self.integration
        return said

    def said(
        self, lies: bool = False, states: States | None = None, part_of: str | None = None
    ) -> Metadata:
        """What a description of it is to be taken for."""
        is_rack = self.kind.object_type == "Rack"
        unit = self.kind.unit if self.kind.fixed and not lies else self.unit
        states = self.kind.states if states is None else states
        return Metadata(
            self.key,
            Meaning(unit, states, (is_rack, self.whose, part_of)),
            lies,
            self.owner,
            rack=self.whose if is_rack else None,
            thing=None if is_rack or part_of else self.whose,
            part_of=part_of,
            serves=self.serves,
        )


class Facility:
    """The points, and a BMS that describes them rightly, again, anew and wrongly."""

    def __init__(self, chance: random.Random, points: int) -> None:
        self._chance = chance
        self.points = [self._point(number) for number in range(points)]
        self._ways: tuple[tuple[Callable[[Point], Shot], int], ...] = (
            (self._again, 40),
            (self._otherwise_written, 8),
            (self._new_unit, 4),
            (self._new_place, 4),
            (self._new_owner, 3),
            (self._lie, 6),
            (self._circle, 8),
            (self._twice_claimed, 3),
            (self._taken_back, 3),
            (self._unreadable, 14),
            (self._of_another, 4),
            (self._by_a_stranger, 3),
        )

    def describe_all(self) -> list[Shot]:
        """What a BMS says first."""
        return [self._shot("described", point) for point in self.points]

    def describe(self) -> Shot:
        """A description of one of the points, or something that looks like one."""
        ways, weights = zip(*self._ways, strict=True)
        (way,) = self._chance.choices(ways, weights)
        point = self._chance.choice(self.points)
        return way(point)  # type: ignore[no-any-return]

    def _point(self, number: int) -> Point:
        kind = self._chance.choice(KINDS)
        prefix = self._chance.choice(PREFIXES)
        tail = f"{kind.object_type}/{kind.point_type}/hall 1/Value/{number}"
        whose = f"thing-{number % 40}"
        return Point(kind, prefix + tail, prefix, whose, kind.unit, kind.integration)

    def _shot(self, name: str, point: Point, document: Json | None = None, **other: Any) -> Shot:
        payload = json.dumps(point.document if document is None else document).encode()
        retained = other.pop("retained", self._chance.random() < 0.5)
        meant = other.pop("meant", None) or point.said()
        return Shot(f"metadata_{name}", point.metadata_topic, payload, retained, meant)

    def _change(self, point: Point, **parts: Any) -> Point:
        changed = replace(point, **parts)
        self.points[self.points.index(point)] = changed
        return changed

    def _again(self, point: Point) -> Shot:
        return self._shot("again", point)

    def _otherwise_written(self, point: Point) -> Shot:
        document = dict(reversed(point.document.items()))
        if point.unit in SPELT:
            document["engUnit"] = SPELT[point.unit]
        if self._chance.random() < 0.5:
            document["vendor"] = {"of": ["no", "concern"]}
        return self._shot("otherwise_written", point, document)

    def _new_unit(self, point: Point) -> Shot:
        if point.kind.fixed or point.unit is None:
            return self._again(point)
        other = OTHER_UNIT[point.kind.unit or ""]
        unit = point.kind.unit if point.unit == other else other
        return self._shot("new_unit", self._change(point, unit=unit), retained=False)

    def _new_place(self, point: Point) -> Shot:
        whose = f"thing-{self._chance.randrange(40)}"
        return self._shot("new_place", self._change(point, whose=whose), retained=False)

    def _new_owner(self, point: Point) -> Shot:
        owner = self._chance.choice((None, *INTEGRATIONS))
        return self._shot("new_owner", self._change(point, integration=owner), retained=False)

    def _lie(self, point: Point) -> Shot:
        """A description under which a number could mean two things."""
        document = point.document
        if point.kind.states:
            texts = [text for _, text in point.kind.states]
            said = [0, 0, *range(2, len(texts))]
            if point.kind.fixed and self._chance.random() < 0.5:
                said, texts[:2] = [0, 1, -1][: len(texts)], texts[1::-1]
            states = tuple(zip(said, texts, strict=True))
            document["stateText"] = [{"value": n, "text": text} for n, text in states]
            return self._shot("lie", point, document, meant=point.said(lies=True, states=states))
        if point.unit in WRONG_UNIT and point.kind.fixed:
            wrong = replace(point, unit=WRONG_UNIT[point.unit])
            return self._shot("lie", wrong, meant=wrong.said(lies=True))
        return self._again(point)

    def _circle(self, point: Point) -> Shot:
        """It serves whoever comes next, itself too, and what nobody describes."""
        served = {f"thing-{self._chance.randrange(44)}" for _ in range(self._chance.randrange(4))}
        return self._shot("circle", self._change(point, serves=tuple(sorted(served))))

    def _twice_claimed(self, point: Point) -> Shot:
        """Part of one thing and another thing too, or named as a rack is."""
        document = point.document | {"associateId": f"thing-{self._chance.randrange(40)}"}
        meant = point.said(part_of=document["associateId"])
        return self._shot("twice_claimed", point, document, meant=meant)

    def _taken_back(self, point: Point) -> Shot:
        meant = Withdrawn(point.key)
        return Shot("metadata_taken_back", point.metadata_topic, b"", False, meant)

    def _unreadable(self, point: Point) -> Shot:
        """Not metadata at all, or with a part of another type than it must have."""
        document = point.document
        wrong: tuple[tuple[str, Any], ...] = (
            ("objectType", None),
            ("pointType", 7),
            ("pointType", ""),
            ("engUnit", ["kW"]),
            ("engUnit", "k" * 257),
            ("stateText", "0=dry"),
            ("stateText", [{"value": True, "text": "Leak"}]),
            ("stateText", [{"value": 0.5, "text": "Leak"}]),
            ("stateText", [{"value": n, "text": "x"} for n in range(257)]),
            ("servesId", "thing-1"),
            ("servesId", [1]),
            ("isSetpoint", "false"),
            ("isSetpoint", 0),
            ("objectId", {"a": 1}),
            ("integration", ""),
            ("rackLocationId", "\ud800"),
        )
        name, part = self._chance.choice(wrong)
        document[name] = part
        meant = refused("bad_metadata", "type_mismatch", key=point.key, describes=True)
        shot = self._shot("unreadable", point, document, meant=meant)
        match self._chance.randrange(8):
            case 0:
                return _with(shot, b'{"objectType":', "not_json")
            case 1:
                return _with(shot, b"[" * 30_000, "not_json")
            case 2:
                return _with(shot, b'{"a":NaN}', "not_finite")
            case 3:
                return _with(shot, b'{"objectType":"Rack","objectType":"CDU"}', "duplicate_field")
            case 4:
                return _with(shot, b'{"a":"%s"}' % (b"x" * 70_000), "too_large")
            case 5:
                return _with(shot, b"[]", "not_an_object")
            case _:
                return shot

    def _of_another(self, point: Point) -> Shot:
        """A description of another type than its topic."""
        other = self._chance.choice([kind for kind in KINDS if kind != point.kind])
        document = point.document
        document |= {"objectType": other.object_type, "pointType": other.point_type}
        meant = refused("type_mismatch", key=point.key, describes=True)
        return self._shot("of_another", point, document, meant=meant)

    def _by_a_stranger(self, point: Point) -> Shot:
        """Described by an integration, which must not."""
        topic = point.metadata_topic.replace("/PUB/Metadata/", "/NICO/Metadata/")
        payload = json.dumps(point.document).encode()
        return Shot("metadata_by_a_stranger", topic, payload, False, refused("foreign_metadata"))


def _with(shot: Shot, payload: bytes, *reasons: str) -> Shot:
    meant = refused(*reasons, key=shot.meant.key, describes=True)  # type: ignore[union-attr]
    return shot._replace(payload=payload, meant=meant)
