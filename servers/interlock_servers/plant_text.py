"""Text of the plant is data: bounded and fenced in one way before a model or a log sees it.

Whoever names a rack, a group or a topic writes what an agent will read. So nothing invisible is
left in it, it has an end, and it always stands in quotes: those of JSON, or of a cell in a table.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

NAME_MAX_CHARS = 200
WORDS_MAX_CHARS = 400


def plant_text(text: str, max_chars: int = NAME_MAX_CHARS) -> str:
    r"""The text in at most `max_chars` printable characters; doing it twice changes nothing.

    Control and format characters (line ends, bidirectional overrides, zero-width ones), private and
    broken ones are written out, such as `\u202e`; what is cut off shows as an ellipsis.
    """
    shown = text[: max_chars + 1]
    if not shown.isprintable():
        shown = "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown
        )
    return shown if len(shown) <= max_chars else shown[: max_chars - 1] + "…"


def plant_quote(text: str, max_chars: int = NAME_MAX_CHARS) -> str:
    """The same in single quotes, out of which it cannot come, for a sentence of ours."""
    return "'" + plant_text(text, max_chars).replace("'", '"') + "'"


def plant_words(text: str) -> str:
    """A sentence that may hold words of the plant."""
    return plant_text(text, WORDS_MAX_CHARS)


def plant_json(value: Any) -> Any:
    """The same for every text, names of members too, anywhere in a JSON value."""
    if isinstance(value, str):
        return plant_words(value)
    if isinstance(value, Mapping):
        return {plant_text(str(name)): plant_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plant_json(item) for item in value]
    return value


PlantName = Annotated[str, AfterValidator(plant_text)]
PlantWords = Annotated[str, AfterValidator(plant_words)]
PlantJson = Annotated[dict[str, Any], AfterValidator(plant_json)]
