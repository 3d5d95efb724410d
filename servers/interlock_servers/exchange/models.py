"""The BMS messages of DSX Exchange as they must be read: topics, values, metadata.

It is liberal in what it takes and says each liberty; what it cannot trust it rejects by name.
"""

import json
import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple, NoReturn

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError
from pydantic.alias_generators import to_camel

from interlock_servers.exchange.grammar import (
    OBJECT_TYPES,
    OLD_POINT_NAMES,
    UNITLESS,
    knows,
    states_are_swapped,
    unit_as_specified,
    written_by_integrations_only,
)
from interlock_servers.exchange.reasons import (
    TOLERANT,
    Compatibility,
    Deviation,
    Reason,
    RejectedError,
)
from interlock_servers.exchange.topics import BMS, Topic, TopicKind, parse_topic

__all__ = [
    "BMS",
    "OBJECT_TYPES",
    "TOLERANT",
    "Compatibility",
    "Deviation",
    "PointMetadata",
    "PointValue",
    "Reason",
    "RejectedError",
    "StateLabel",
    "Topic",
    "TopicKind",
    "moment",
    "parse_metadata",
    "parse_topic",
    "parse_value",
    "read_object",
]

MAX_VALUE_BYTES = 4096
MAX_METADATA_BYTES = 65_536

# Epoch milliseconds passed 10^11 in 1973 and epoch seconds will in 5138: below it are seconds.
SECONDS_BELOW = 10**11
_LAST_MS = 10**14


class PointValue(NamedTuple):
    """One reading; usable only when a rule about quality, value and age says so."""

    value: float | None
    timestamp_ms: int
    quality: int
    deviations: tuple[Deviation, ...]

    @property
    def measured_at(self) -> datetime:
        """When the source saw it, by its own clock."""
        return moment(self.timestamp_ms)


class StateLabel(NamedTuple):
    """What one number of a state point means."""

    value: int
    text: str


class PointMetadata(NamedTuple):
    """What the BMS says a point is; the only source of its meaning."""

    object_type: str
    point_type: str
    eng_unit: str | None = None
    state_text: tuple[StateLabel, ...] | None = None
    rack_location_name: str | None = None
    rack_location_id: str | None = None
    object_name: str | None = None
    object_id: str | None = None
    serves_id: tuple[str, ...] = ()
    associate_id: str | None = None
    process_area: tuple[str, ...] = ()
    is_setpoint: bool = False
    phase: str | None = None
    scope: str | None = None
    integration: str | None = None
    deviations: tuple[Deviation, ...] = ()
    contradiction: str | None = None  # why its numbers may not be used, whatever their quality

    @property
    def owner(self) -> str:
        """The publisher whose values count for this point."""
        return self.integration or BMS

    @property
    def meaning(self) -> tuple[object, ...]:
        """What a number of this point says; a reading counts only under the one it came under."""
        return (
            self.object_type,
            self.point_type,
            self.eng_unit,
            self.state_text,
            self.is_setpoint,
            self.process_area,
            self.phase,
            self.object_id,
            self.associate_id,
            self.rack_location_id,
        )

    def label(self, value: float) -> str | None:
        """The text of a state, or None where the point does not list it."""
        labels = self.state_text or ()
        return next((label.text for label in labels if label.value == value), None)


_Text = Annotated[str, Field(strict=True, min_length=1, max_length=256)]
_Texts = Annotated[tuple[_Text, ...], Field(max_length=4096)]


class _SaidLabel(BaseModel):
    model_config = ConfigDict(extra="ignore")

    value: StrictInt
    text: _Text


class _Said(BaseModel):
    """A metadata payload as it must be to be read: the fields of `PointMetadata`, checked."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)

    object_type: _Text
    point_type: _Text
    eng_unit: _Text | None = None
    state_text: Annotated[tuple[_SaidLabel, ...], Field(max_length=256)] | None = None
    rack_location_name: _Text | None = None
    rack_location_id: _Text | None = None
    object_name: _Text | None = None
    object_id: _Text | None = None
    serves_id: _Texts = ()
    associate_id: _Text | None = None
    process_area: _Texts = ()
    is_setpoint: StrictBool = False
    phase: _Text | None = None
    scope: _Text | None = None
    integration: _Text | None = None


_FIELDS = frozenset(to_camel(name) for name in _Said.model_fields)
_VALUE_FIELDS = frozenset({"value", "timestamp", "quality"})
_OLD_RACK_NAMES = {
    "rackName": "rackLocationName",
    "rackId": "rackLocationId",
    "rackID": "rackLocationId",
}

_INTEGER = re.compile(r"-?[0-9]{1,9}")


def moment(timestamp_ms: int) -> datetime:
    """The aware UTC moment of epoch milliseconds."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)


def parse_value(payload: bytes, compatibility: Compatibility = TOLERANT) -> PointValue:
    """Read a value payload.

    Raises:
        RejectedError: anything that could make a wrong number look right.
    """
    if len(payload) > MAX_VALUE_BYTES:
        raise RejectedError(Reason.TOO_LARGE, f"a value of {len(payload)} bytes")
    fields = read_object(payload)
    try:
        raw, stamp, quality = fields["value"], fields["timestamp"], fields["quality"]
    except KeyError as error:
        raise RejectedError(Reason.MISSING_FIELD, f"no {error.args[0]}") from None
    deviations: tuple[Deviation, ...] = ()
    value = None if raw is None else _number(raw)
    if type(stamp) is not int:
        stamp = _whole_milliseconds(stamp)
    if stamp < SECONDS_BELOW:
        if not compatibility.seconds or stamp <= 0:
            raise RejectedError(Reason.BAD_TIMESTAMP, f"{stamp} is not epoch milliseconds")
        stamp *= 1000
        deviations = (Deviation.TIMESTAMP_IN_SECONDS,)
    if stamp > _LAST_MS:
        raise RejectedError(Reason.BAD_TIMESTAMP, "later than any plausible moment")
    if type(quality) is not int:
        quality, as_string = _whole_quality(quality)
        if as_string and not compatibility.string_quality:
            raise RejectedError(Reason.BAD_QUALITY, "a string, not an integer")
        if as_string:
            deviations += (Deviation.QUALITY_AS_STRING,)
    if len(fields) > len(_VALUE_FIELDS):
        deviations += (Deviation.EXTRA_FIELD,)
    return PointValue(value, stamp, quality, deviations)


def parse_metadata(
    payload: bytes, topic: Topic, compatibility: Compatibility = TOLERANT
) -> PointMetadata:
    """Read a metadata payload that came on `topic`.

    Raises:
        RejectedError: it cannot be read, or describes another point than its topic.
    """
    if len(payload) > MAX_METADATA_BYTES:
        raise RejectedError(Reason.TOO_LARGE, f"metadata of {len(payload)} bytes")
    fields = read_object(payload)
    deviations: list[Deviation] = []
    if compatibility.old_rack_names:
        for old, name in _OLD_RACK_NAMES.items():
            if old in fields:
                fields.setdefault(name, fields.pop(old))
                deviations.append(Deviation.OLD_RACK_NAME)
    if not _FIELDS.issuperset(fields):
        deviations.append(Deviation.EXTRA_FIELD)
    known = {name: fields[name] for name in fields if name in _FIELDS}
    if topic.older:
        deviations += _modernised(known)
    metadata = _checked(known)
    described = (metadata.object_type, metadata.point_type)
    if topic.older and metadata.object_type not in OBJECT_TYPES:
        raise RejectedError(Reason.UNKNOWN_OBJECT_TYPE, repr(metadata.object_type))
    if not topic.older and described != (topic.object_type, topic.point_type):
        raise RejectedError(Reason.TYPE_MISMATCH, f"it describes {'/'.join(described)}")
    deviations += _departures(metadata)
    unit, contradiction = metadata.eng_unit, _contradiction(metadata)
    if unit is not None and contradiction is None:
        unit, _ = unit_as_specified(metadata.point_type, unit)
        if unit != metadata.eng_unit:
            deviations.append(Deviation.UNIT_SPELLING)
    if contradiction is not None:
        deviations.append(Deviation.CONTRADICTS_SPEC)
    return metadata._replace(
        deviations=tuple(dict.fromkeys(deviations)), eng_unit=unit, contradiction=contradiction
    )


def _checked(known: dict[str, Any]) -> PointMetadata:
    try:
        said = _Said.model_validate(known)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RejectedError(Reason.BAD_METADATA, f"{where}: {first['msg']}") from None
    fields = dict(said)
    if said.state_text is not None:
        fields["state_text"] = tuple(StateLabel(one.value, one.text) for one in said.state_text)
    return PointMetadata(**fields)


def _modernised(known: dict[str, Any]) -> list[Deviation]:
    """Give a point of the older grammar the names of today; it has no publisher to belong to."""
    known.pop("integration", None)
    name = known.get("pointType")
    if not isinstance(name, str) or name not in OLD_POINT_NAMES:
        return [Deviation.OLD_TOPIC]
    known["pointType"] = OLD_POINT_NAMES[name]
    known.setdefault("objectType", "Rack")
    return [Deviation.OLD_TOPIC, Deviation.OLD_POINT_NAME]


def _contradiction(metadata: PointMetadata) -> str | None:
    """Why a number of this point could mean two things."""
    if metadata.eng_unit and not unit_as_specified(metadata.point_type, metadata.eng_unit)[1]:
        return f"its unit is {metadata.eng_unit!r}, and the specification fixes another"
    texts: dict[int, str] = {}
    for label in metadata.state_text or ():
        if texts.setdefault(label.value, label.text) != label.text:
            return f"its metadata has two texts for {label.value}"
    if states_are_swapped(metadata.point_type, texts):
        return "its metadata swaps the states that the specification gives 0 and 1"
    return None


def _departures(metadata: PointMetadata) -> list[Deviation]:
    """What the specification requires of such a point and it does not have."""
    found = []
    object_type, point_type = metadata.object_type, metadata.point_type
    identified = metadata.object_id or metadata.associate_id
    if object_type == "Rack":
        identified = metadata.rack_location_id
    if not identified:
        found.append(Deviation.MISSING_IDENTITY)
    if metadata.eng_unit and metadata.state_text:
        found.append(Deviation.UNIT_AND_STATES)
    if not (metadata.eng_unit or metadata.state_text or point_type in UNITLESS):
        found.append(Deviation.NO_UNIT)
    if not knows(object_type, point_type):
        found.append(Deviation.UNKNOWN_POINT_TYPE)
    elif written_by_integrations_only(object_type, point_type) and not metadata.integration:
        found.append(Deviation.MISSING_REQUIRED)
    if (point_type == "PhaseCurrent" and not metadata.phase) or (
        point_type == "GenericPoint" and not metadata.process_area
    ):
        found.append(Deviation.MISSING_REQUIRED)
    if metadata.associate_id and (metadata.object_id or metadata.serves_id):
        found.append(Deviation.ASSOCIATE_AND_NAMED)
    return found


class _DuplicateFieldError(ValueError):
    pass


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):  # two qualities: which one is true?
        raise _DuplicateFieldError
    return fields


def _not_finite(name: str) -> NoReturn:
    raise RejectedError(Reason.NOT_FINITE, name)


_decode = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_not_finite).decode


def read_object(payload: bytes) -> dict[str, Any]:
    """The object that a payload is in JSON, without duplicate names and without NaN.

    Raises:
        RejectedError: it is none.
    """
    try:
        fields = _decode(payload.decode())
    except RejectedError:
        raise
    except _DuplicateFieldError:
        raise RejectedError(Reason.DUPLICATE_FIELD, "a field occurs twice") from None
    except (ValueError, RecursionError) as error:
        raise RejectedError(Reason.NOT_JSON, type(error).__name__) from None
    if type(fields) is not dict:
        raise RejectedError(Reason.NOT_AN_OBJECT, type(fields).__name__)
    return fields


def _number(raw: object) -> float:
    if type(raw) is float:
        if not math.isfinite(raw):
            raise RejectedError(Reason.NOT_FINITE, "the number overflows")
        return raw
    if type(raw) is int:
        if abs(raw) > 2**63:
            raise RejectedError(Reason.BAD_VALUE, "the integer is too large to be a reading")
        return float(raw)
    raise RejectedError(Reason.BAD_VALUE, f"{type(raw).__name__}, not a number")


def _whole_milliseconds(stamp: object) -> int:
    # A fraction of a second is cut: the reading looks older than it is, which is the safe side.
    if type(stamp) is float and (stamp.is_integer() or 0 < stamp < SECONDS_BELOW):
        return int(stamp)
    raise RejectedError(Reason.BAD_TIMESTAMP, f"{type(stamp).__name__}, not an integer")


def _whole_quality(quality: object) -> tuple[int, bool]:
    if type(quality) is float and quality.is_integer():
        return int(quality), False
    if type(quality) is str and _INTEGER.fullmatch(quality):
        return int(quality), True
    raise RejectedError(Reason.BAD_QUALITY, f"{type(quality).__name__}, not an integer")
