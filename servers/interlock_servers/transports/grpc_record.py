"""A received protobuf message as plain typed values; the only place where its `Any` lives."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from google.protobuf.message import Message

JsonValue = None | bool | float | str | list["JsonValue"] | dict[str, "JsonValue"]


@lru_cache(maxsize=4096)
def _says_absent(descriptor: Any, name: str) -> bool | None:
    """Whether a field can say that it is absent; None where this version has no such field.

    Kept, because a site has a hundred thousand readings of a few fields.
    """
    field = descriptor.fields_by_name.get(name)
    return None if field is None else bool(field.has_presence)


class Record:
    """One message. Names that the server's version does not have raise KeyError.

    Which names exist was checked at connect; for a name that may be missing ask `has_field`.
    """

    __slots__ = ("_message",)

    def __init__(self, message: Message) -> None:
        self._message = message

    def has_field(self, name: str) -> bool:
        """Whether the server's version of this message has such a field at all."""
        return _says_absent(self._message.DESCRIPTOR, name) is not None

    def text(self, name: str) -> str:
        """A string; empty where absent."""
        return str(self._get(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(str(item) for item in self._get(name))

    def flag(self, name: str) -> bool:
        """A boolean; False where absent."""
        return bool(self._get(name))

    def octets(self, name: str) -> bytes:
        """Bytes; empty where absent."""
        return bytes(self._get(name))

    def number(self, name: str) -> float | None:
        """A number; None where absent, and for a zero that absence would look like as well.

        A reading that never came must not be taken for a zero. So a field that cannot say that it
        is absent gives None at zero, and so does one that this version does not have.
        """
        message = self._message
        can_be_absent = _says_absent(message.DESCRIPTOR, name)
        if can_be_absent is None or (can_be_absent and not message.HasField(name)):
            return None
        value = float(getattr(message, name))
        return value if value or can_be_absent else None

    def whole(self, name: str) -> int:
        """A whole number; 0 where absent, so only for fields where 0 says the same."""
        return int(self._get(name))

    def wholes(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        return tuple(int(item) for item in self._get(name))

    def known_whole(self, name: str) -> int | None:
        """A whole number that may be 0; None where a field with presence is absent."""
        return None if self._is_absent(name) else int(self._get(name))

    def word(self, name: str) -> str:
        """The name of an enumeration's value, as the server calls it; a number without one as text.

        A newer server may send values that its own description does not have.
        """
        number = int(self._get(name))
        kind = self._message.DESCRIPTOR.fields_by_name[name].enum_type
        known = None if kind is None else kind.values_by_number.get(number)
        return str(number) if known is None else str(known.name)

    def record(self, name: str) -> "Record | None":
        """A message within; None where absent."""
        return None if self._is_absent(name) else Record(self._get(name))

    def records(self, name: str) -> "list[Record]":
        """The messages of a list."""
        return [Record(item) for item in self._get(name)]

    def records_by_key(self, name: str) -> "dict[str, Record]":
        """The messages of a map."""
        return {str(key): Record(item) for key, item in self._get(name).items()}

    def structure(self, name: str) -> dict[str, JsonValue]:
        """A `google.protobuf.Struct` as a dictionary; empty where absent."""
        return _structure(self._get(name))

    def moment(self, name: str) -> datetime | None:
        """A `google.protobuf.Timestamp`, aware in UTC; None where absent.

        One that no calendar holds is there all the same: it gives the earliest moment.
        """
        if self._is_absent(name):
            return None
        try:
            moment: datetime = self._get(name).ToDatetime(tzinfo=UTC)
        except (ValueError, OverflowError):
            return datetime.min.replace(tzinfo=UTC)
        return moment

    def _is_absent(self, name: str) -> bool:
        """Whether the field says that it is absent; only some fields can."""
        can_be_absent = _says_absent(self._message.DESCRIPTOR, name)
        if can_be_absent is None:
            raise KeyError(name)
        return can_be_absent and not self._message.HasField(name)

    def _get(self, name: str) -> Any:
        if not self.has_field(name):
            raise KeyError(name)
        return getattr(self._message, name)


def _structure(struct: Any) -> dict[str, JsonValue]:
    return {str(name): _value(value) for name, value in struct.fields.items()}


def _value(value: Any) -> JsonValue:
    match value.WhichOneof("kind"):
        case "bool_value":
            return bool(value.bool_value)
        case "number_value":
            return float(value.number_value)
        case "string_value":
            return str(value.string_value)
        case "list_value":
            return [_value(item) for item in value.list_value.values]
        case "struct_value":
            return _structure(value.struct_value)
        case _:
            return None
