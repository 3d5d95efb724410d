"""Why a message was not taken, which liberties were taken with one that was, and which may be."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from interlock_servers.plant_text import plant_text

MAX_DETAIL_CHARS = 160


class Reason(StrEnum):
    """Why a message was rejected."""

    NOT_BMS = "not_bms"
    TOPIC_GRAMMAR = "topic_grammar"
    UNKNOWN_OBJECT_TYPE = "unknown_object_type"
    FOREIGN_METADATA = "foreign_metadata"
    FOREIGN_SUBJECT = "foreign_subject"
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
    RETAINED_CONFLICT = "retained_conflict"
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
    OLD_TOPIC = "old_topic"
    OLD_POINT_NAME = "old_point_name"
    OLD_ROLE = "old_role"
    UNIT_SPELLING = "unit_spelling"
    UNKNOWN_POINT_TYPE = "unknown_point_type"
    UNKNOWN_STATE = "unknown_state"
    MISSING_REQUIRED = "missing_required"
    ASSOCIATE_AND_NAMED = "associate_and_named"
    CONTRADICTS_SPEC = "contradicts_spec"
    MEANING_CHANGED = "meaning_changed"


class RejectedError(ValueError):
    """A message that says nothing we may use; `reason` names why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = plant_text(detail, MAX_DETAIL_CHARS)
        super().__init__(f"{reason}: {self.detail}")


class Compatibility(BaseModel):
    """Which habits of deployed clients are accepted although the specification has others.

    The first two are on: NICo's client does both. The last two change what a topic or a rack id is
    taken for, so a site asks for them by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    string_quality: bool = True
    seconds: bool = True
    old_rack_names: bool = False
    old_topics: bool = False


TOLERANT = Compatibility()
