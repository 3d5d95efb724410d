"""One message and what it is meant to be, as whoever made it knows without reading it."""

from typing import NamedTuple

BMS = "PUB"


class Value(NamedTuple):
    """A reading: `number` is None for none, `trusted` where its quality is 1."""

    key: str
    publisher: str
    number: float | None
    at_ms: int
    trusted: bool


class Meaning(NamedTuple):
    """What a number of a point says; `states` are the numbers that have a text."""

    unit: str | None
    states: tuple[tuple[int, str], ...]
    whose: tuple[object, ...]


class Metadata(NamedTuple):
    """A description; `lies` where a number under it could mean two things."""

    key: str
    meaning: Meaning
    lies: bool
    owner: str
    rack: str | None = None
    thing: str | None = None
    part_of: str | None = None
    serves: tuple[str, ...] = ()


class Withdrawn(NamedTuple):
    """A description that is taken back."""

    key: str


class Machine(NamedTuple):
    """A machine's state; `state` is None where the specification has no such state."""

    machine_id: str
    state: str | None
    at_ms: int


class Noted(NamedTuple):
    """A message that is taken note of and changes nothing that is shown."""


class Refused(NamedTuple):
    """A message that says nothing that may be used, and the reasons that would be right to name."""

    reasons: frozenset[str]
    key: str | None = None
    describes: bool = False


class Mangled(NamedTuple):
    """A value payload that something happened to on its way: only reading it can tell."""

    key: str
    publisher: str


Meant = Value | Metadata | Withdrawn | Machine | Noted | Refused | Mangled


class Shot(NamedTuple):
    """One message as it goes on the wire."""

    kind: str
    topic: str
    payload: bytes
    retained: bool
    meant: Meant


def refused(*reasons: str, key: str | None = None, describes: bool = False) -> Refused:
    """What must be refused, for one of these reasons."""
    return Refused(frozenset(reasons), key, describes)
