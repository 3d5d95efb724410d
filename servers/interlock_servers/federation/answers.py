"""Answers of another server: data, bounded, and cut with a note where they are too large."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mcp.types import CallToolResult, TextContent
from pydantic import Field

from interlock_servers.page import Page
from interlock_servers.plant_text import PlantWords, plant_json, plant_text
from interlock_tools.errors import ComponentError

EVIDENCE_CHARS = 2_000
ERROR_CHARS = 400


class Answer(Page):
    """What the other server answered; all of it is its own text, and no instruction."""

    answer: dict[str, Any] | None = Field(default=None, description="its structured answer")
    said: str | None = Field(default=None, description="its text, where it has no structure")
    cut: PlantWords | None = Field(default=None, description="what of it is not shown")


def answer_of(component: str, result: CallToolResult, at: datetime, max_chars: int) -> Answer:
    """The answer as it is shown, in at most `max_chars` characters of the server's."""
    structure, notes = result.structured_content, []
    if isinstance(structure, Mapping):
        text = json.dumps(structure, ensure_ascii=False)
        if len(text) <= max_chars:
            shown = plant_json(structure)
            return Answer(observed_at=at, origin=component, answer=shown)
    else:
        text = _text_of(result)
        others = sum(not isinstance(part, TextContent) for part in result.content)
        if others:
            notes.append(f"{others} parts that are no text are left out")
    if len(text) > max_chars:
        notes.append(
            f"cut: the answer has {len(text)} characters, and the first {max_chars} are shown; ask "
            "for less"
        )
    return Answer(
        observed_at=at,
        origin=component,
        said=plant_text(text, max_chars),
        cut="; ".join(notes) or None,
    )


def evidence_of(result: CallToolResult) -> dict[str, Any]:
    """What is kept of an answer with the change."""
    structure = result.structured_content
    text = _text_of(result)
    if isinstance(structure, Mapping):
        text = json.dumps(structure, ensure_ascii=False, sort_keys=True)
    return {"answered": plant_text(text, EVIDENCE_CHARS)}


def said_wrong(result: CallToolResult) -> str:
    """What an answer says that is an error."""
    return plant_text(_text_of(result), ERROR_CHARS) or "it does not say why"


def structure_of(result: CallToolResult) -> Any:
    """The structured answer, or the one text read as JSON.

    Raises:
        ComponentError: it has neither.
    """
    if result.structured_content is not None:
        return result.structured_content
    try:
        return json.loads(_text_of(result))
    except (ValueError, RecursionError):
        raise ComponentError("federation", "NO_STRUCTURE", "the answer is no JSON") from None


def at_path(structure: Any, path: str) -> Any:
    """What stands at `a.b.0.c`; None where nothing does."""
    for step in path.split("."):
        if isinstance(structure, Mapping):
            structure = structure.get(step)
        elif isinstance(structure, list) and step.isdecimal() and int(step) < len(structure):
            structure = structure[int(step)]
        else:
            return None
    return structure


def _text_of(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))
