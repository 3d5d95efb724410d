"""The health events in a node's quarantine annotation: somebody's JSON, and so read with care."""

import json
from collections.abc import Mapping
from typing import Any, Final

from interlock_servers.nvsentinel.models import HealthEvent
from interlock_servers.nvsentinel.names import ACTIONS
from interlock_servers.plant_text import plant_text, plant_words

MOST_BYTES: Final = 262_144  # what an API server keeps in all annotations of an object
MOST_EVENTS: Final = 100
MOST_PARTS: Final = 64


def read_events(text: str) -> tuple[HealthEvent, ...]:
    """The events of the annotation; members that we do not know are left out.

    Raises:
        ValueError: it is no JSON array of events, or too large to be one.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"it has {len(text)} characters")
    try:
        said = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if isinstance(said, dict):
        said = [said]  # before v1.0 there was one
    if not isinstance(said, list) or len(said) > MOST_EVENTS:
        raise ValueError("it is no list of events")
    return tuple(_event(one) for one in said)


def _event(said: Any) -> HealthEvent:
    if not isinstance(said, dict):
        raise ValueError("an event is no object")
    of = {str(name).lower(): value for name, value in said.items()}
    check = of.get("checkname")
    if not isinstance(check, str) or not check:
        raise ValueError("an event has no checkName")
    fatal = of.get("isfatal")
    return HealthEvent(
        check=plant_text(check),
        agent=_text(of.get("agent")),
        component=_text(of.get("componentclass")),
        is_fatal=fatal if isinstance(fatal, bool) else None,
        action=action_of(of),
        codes=tuple(_text(code) for code in _list(of.get("errorcode"))),
        entities=tuple(_entity(one) for one in _list(of.get("entitiesimpacted"))),
        message=plant_words(str(of.get("message") or "")),
        event_id=_text(of.get("id")),
    )


def action_of(event: Mapping[str, Any]) -> str:
    """The recommended action of an event whose member names are lower-cased."""
    said = event.get("recommendedaction")
    if isinstance(said, bool) or said is None:
        return "UNKNOWN"
    if isinstance(said, int):
        return ACTIONS.get(said, "UNKNOWN")
    if said == "CUSTOM":
        custom = _text(event.get("customrecommendedaction"))
        return f"CUSTOM {custom}" if custom else "CUSTOM"
    return _text(said) if said in ACTIONS.values() else "UNKNOWN"


def _entity(said: Any) -> tuple[str, str]:
    of = {str(k).lower(): v for k, v in said.items()} if isinstance(said, dict) else {}
    return _text(of.get("entitytype")), _text(of.get("entityvalue"))


def _list(said: Any) -> list[Any]:
    return said[:MOST_PARTS] if isinstance(said, list) else []


def _text(said: Any) -> str:
    return plant_text(str(said)) if isinstance(said, str | int) else ""
