"""JSON from strangers: one reading only, finite numbers, and every refusal by name."""

import json
import math
from typing import Any, NoReturn

from interlock_servers.flex.models import Reason, RejectedError

JsonObject = dict[str, Any]


def parse_object(text: bytes, *, what: str, syntax: Reason = Reason.NOT_JSON) -> JsonObject:
    """The JSON object in `text`.

    A member that comes twice is refused, because two readers could then see two messages.

    Raises:
        RejectedError: `syntax`, `NOT_AN_OBJECT`, `DUPLICATE_MEMBER` or `POWER_NOT_FINITE`.
    """
    try:
        document = json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RejectedError(syntax, f"{what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RejectedError(Reason.NOT_AN_OBJECT, f"{what} is {_kind(document)}, not an object")
    return document


def _no_twins(pairs: list[tuple[str, Any]]) -> JsonObject:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise RejectedError(Reason.DUPLICATE_MEMBER, f"{twin!r} comes more than once")
    return members


def _no_constant(name: str) -> NoReturn:
    raise RejectedError(Reason.POWER_NOT_FINITE, f"{name} is not a JSON number")


def _kind(value: object) -> str:
    names = {bool: "a boolean", str: "a string", list: "a list", type(None): "null"}
    return names.get(type(value), "a number")


def text_member(members: JsonObject, name: str, reason: Reason) -> str:
    """A member that must be a string with something in it."""
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise RejectedError(reason, f"{name} must be a string, not {_shown(value)}")
    return value


def optional_text(members: JsonObject, name: str, reason: Reason) -> str | None:
    """A string member that may be absent or null."""
    return None if members.get(name) is None else text_member(members, name, reason)


def object_member(members: JsonObject, name: str, reason: Reason) -> JsonObject:
    """A member that must be an object."""
    value = members.get(name)
    if not isinstance(value, dict):
        raise RejectedError(reason, f"{name} must be an object, not {_shown(value)}")
    return value


def list_member(members: JsonObject, name: str, reason: Reason, *, most: int) -> list[Any]:
    """A member that must be a list of no more than `most`."""
    value = members.get(name)
    if not isinstance(value, list):
        raise RejectedError(reason, f"{name} must be a list, not {_shown(value)}")
    if len(value) > most:
        raise RejectedError(reason, f"{name} has {len(value)} entries; {most} is the most")
    return value


def flag_member(
    members: JsonObject, name: str, reason: Reason, default: bool | None = None
) -> bool:
    """A boolean member; absent is `default`, or refused where there is none."""
    value = members.get(name, default)
    if not isinstance(value, bool):
        raise RejectedError(reason, f"{name} must be true or false, not {_shown(value)}")
    return value


def number_member(members: JsonObject, name: str, reason: Reason) -> float:
    """A finite number; true and false are not numbers here.

    Raises:
        RejectedError: `reason` where it is no number, `POWER_NOT_FINITE` where it is too great.
    """
    value = members.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RejectedError(reason, f"{name} must be a number, not {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RejectedError(Reason.POWER_NOT_FINITE, f"{name} is not a finite number")
    return number


def _shown(value: object) -> str:
    return "absent" if value is None else repr(value)[:60]
