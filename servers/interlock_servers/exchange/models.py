"""The BMS messages of DSX Exchange as they must be read: topics, values, metadata.

It is liberal in what it takes and says each liberty; what it cannot trust it rejects by name.
"""

import json
import math
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, NoReturn

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError
from pydantic.alias_generators import to_camel

from interlock_servers.plant_text import plant_text

BMS = "PUB"  # the publisher segment of the BMS; every other one is an integration's id

_ELECTRICAL = {"PowerMeter", "BESS", "UPS", "ATS", "Generator", "Shunt", "Breaker"}
_PLANT_ROOM = {"CDU", "CoolingTower", "HX", "CRAH", "CRAC", "AHU", "Chiller", "Tank"}
_PARTS = {"Valve", "Pump", "Fan", "Damper", "Sensor", "GenericObject"}
OBJECT_TYPES = frozenset(_ELECTRICAL | _PLANT_ROOM | _PARTS | {"Rack", "System"})

MAX_TOPIC_CHARS = 1024
MAX_VALUE_BYTES = 4096
MAX_METADATA_BYTES = 65_536
MAX_DETAIL_CHARS = 160

# Epoch milliseconds passed 10^11 in 1973 and epoch seconds will in 5138: below it are seconds.
SECONDS_BELOW = 10**11
_LAST_MS = 10**14


class TopicKind(StrEnum):
    """What a message on a topic is."""

    VALUE = "Value"
    METADATA = "Metadata"


class Reason(StrEnum):
    """Why a message was rejected."""

    NOT_BMS = "not_bms"
    TOPIC_GRAMMAR = "topic_grammar"
    UNKNOWN_OBJECT_TYPE = "unknown_object_type"
    FOREIGN_METADATA = "foreign_metadata"
    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    DUPLICATE_FIELD = "duplicate_field"
    MISSING_FIELD = "missing_field"
    NOT_FINITE = "not_finite"
    BAD_VALUE = "bad_value"
    BAD_TIMESTAMP = "bad_timestamp"
    BAD_QUALITY = "bad_quality"
    BAD_METADATA = "bad_metadata"
    TYPE_MISMATCH = "type_mismatch"
    OUT_OF_ORDER = "out_of_order"
    STORE_FULL = "store_full"


class Deviation(StrEnum):
    """Where an accepted message departs from the specification."""

    QUALITY_AS_STRING = "quality_as_string"
    TIMESTAMP_IN_SECONDS = "timestamp_in_seconds"
    EXTRA_FIELD = "extra_field"
    VALUE_RETAINED = "value_retained"
    OLD_RACK_NAME = "old_rack_name"
    MISSING_IDENTITY = "missing_identity"
    UNIT_AND_STATES = "unit_and_states"
    NO_UNIT = "no_unit"
    FOREIGN_VALUE = "foreign_value"


class RejectedError(ValueError):
    """A message that says nothing we may use; `reason` names why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = plant_text(detail, MAX_DETAIL_CHARS)
        super().__init__(f"{reason}: {self.detail}")


class Compatibility(BaseModel):
    """Which habits of deployed clients are accepted although the specification has others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    string_quality: bool = True
    seconds: bool = True
    old_rack_names: bool = False


TOLERANT = Compatibility()


class Topic(NamedTuple):
    """A topic taken apart. `tag_path` is opaque: nothing may be read out of it."""

    cpc: str | None
    publisher: str
    kind: TopicKind
    object_type: str
    point_type: str
    tag_path: str

    @property
    def prefix(self) -> str:
        """`cpc/{id}/` in the common services cluster, otherwise empty."""
        return f"cpc/{self.cpc}/" if self.cpc else ""

    @property
    def key(self) -> str:
        """The point's identity, the same in its values and in its metadata."""
        return f"{self.prefix}{self.object_type}/{self.point_type}/{self.tag_path}"


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


Text = Annotated[str, Field(strict=True, min_length=1, max_length=256)]
Texts = Annotated[tuple[Text, ...], Field(max_length=4096)]


class StateLabel(BaseModel):
    """What one number of a state point means."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    value: StrictInt
    text: Text


class PointMetadata(BaseModel):
    """What the BMS says a point is; the only source of its meaning."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True
    )

    object_type: Text
    point_type: Text
    eng_unit: Text | None = None
    state_text: Annotated[tuple[StateLabel, ...], Field(max_length=256)] | None = None
    rack_location_name: Text | None = None
    rack_location_id: Text | None = None
    object_name: Text | None = None
    object_id: Text | None = None
    serves_id: Texts = ()
    associate_id: Text | None = None
    process_area: Texts = ()
    is_setpoint: StrictBool = False
    phase: Text | None = None
    scope: Text | None = None
    integration: Text | None = None
    deviations: tuple[Deviation, ...] = ()

    @property
    def owner(self) -> str:
        """The publisher whose values count for this point."""
        return self.integration or BMS

    def label(self, value: float) -> str | None:
        """The text of a state, or None where the point does not list it."""
        labels = self.state_text or ()
        return next((label.text for label in labels if label.value == value), None)


_FIELDS = frozenset(to_camel(name) for name in PointMetadata.model_fields if name != "deviations")
_VALUE_FIELDS = frozenset({"value", "timestamp", "quality"})
_OLD_RACK_NAMES = {
    "rackName": "rackLocationName",
    "rackId": "rackLocationId",
    "rackID": "rackLocationId",
}

_TOPIC = re.compile(
    r"(?:cpc/(?P<cpc>[^/]+)/)?BMS/v1/(?P<publisher>[^/]+)/(?P<kind>Value|Metadata)"
    r"/(?P<object_type>[^/]+)/(?P<point_type>[^/]+)/(?P<tag_path>[^/]+(?:/[^/]+)*)"
)
_BMS_SPACE = re.compile(r"(?:cpc/[^/]+/)?BMS/v1/")
_NEVER_IN_TOPIC = re.compile(r"[+#\x00-\x1f\x7f]")
_INTEGER = re.compile(r"-?[0-9]{1,9}")


def moment(timestamp_ms: int) -> datetime:
    """The aware UTC moment of epoch milliseconds."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)


def parse_topic(topic: str) -> Topic:
    """Take a BMS topic apart, with or without the prefix of a control plane cluster.

    Raises:
        RejectedError: it is of another space, or breaks the grammar.
    """
    if len(topic) > MAX_TOPIC_CHARS:
        raise RejectedError(Reason.TOO_LARGE, f"a topic of {len(topic)} characters")
    found = _TOPIC.fullmatch(topic)
    if found is None or _NEVER_IN_TOPIC.search(topic):
        ours = _BMS_SPACE.match(topic)
        raise RejectedError(Reason.TOPIC_GRAMMAR if ours else Reason.NOT_BMS, "no point topic")
    cpc, publisher, kind, object_type, point_type, tag_path = found.groups()
    parsed = Topic(cpc, publisher, TopicKind(kind), object_type, point_type, tag_path)
    if parsed.object_type not in OBJECT_TYPES:
        raise RejectedError(Reason.UNKNOWN_OBJECT_TYPE, repr(parsed.object_type))
    if parsed.kind is TopicKind.METADATA and parsed.publisher != BMS:
        raise RejectedError(Reason.FOREIGN_METADATA, f"only the BMS may, not {parsed.publisher!r}")
    return parsed


def parse_value(payload: bytes, compatibility: Compatibility = TOLERANT) -> PointValue:
    """Read a value payload.

    Raises:
        RejectedError: anything that could make a wrong number look right.
    """
    if len(payload) > MAX_VALUE_BYTES:
        raise RejectedError(Reason.TOO_LARGE, f"a value of {len(payload)} bytes")
    fields = _read_object(payload)
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
    fields = _read_object(payload)
    deviations: list[Deviation] = []
    if compatibility.old_rack_names:
        for old, name in _OLD_RACK_NAMES.items():
            if old in fields:
                fields.setdefault(name, fields.pop(old))
                deviations.append(Deviation.OLD_RACK_NAME)
    if not _FIELDS.issuperset(fields):
        deviations.append(Deviation.EXTRA_FIELD)
    known = {name: fields[name] for name in fields if name in _FIELDS}
    try:
        metadata = PointMetadata.model_validate(known)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RejectedError(Reason.BAD_METADATA, f"{where}: {first['msg']}") from None
    if (metadata.object_type, metadata.point_type) != (topic.object_type, topic.point_type):
        raise RejectedError(
            Reason.TYPE_MISMATCH, f"it describes {metadata.object_type}/{metadata.point_type}"
        )
    deviations += _departures(metadata)
    return metadata.model_copy(update={"deviations": tuple(dict.fromkeys(deviations))})


def _departures(metadata: PointMetadata) -> list[Deviation]:
    """What the specification requires of such a point and it does not have."""
    found = []
    identified = metadata.object_id or metadata.associate_id
    if metadata.object_type == "Rack":
        identified = metadata.rack_location_id
    if not identified:
        found.append(Deviation.MISSING_IDENTITY)
    if metadata.eng_unit and metadata.state_text:
        found.append(Deviation.UNIT_AND_STATES)
    unitless = metadata.point_type == "PowerFactor" or metadata.point_type.startswith("Heartbeat")
    if not (metadata.eng_unit or metadata.state_text or unitless):
        found.append(Deviation.NO_UNIT)
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


def _read_object(payload: bytes) -> dict[str, Any]:
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
