"""Completion: what a half-written argument of a prompt or a URI may become, by its beginning."""

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from mcp.types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

from interlock_servers.plant_text import plant_text
from interlock_servers.surface.factory import Complete

MAX_VALUES = 100  # as the protocol has it
_LAST = "\U0010ffff"

Values = Callable[[str], Awaitable[Sequence[str]]]


class Argument(NamedTuple):
    """An argument of a prompt, by its name, or a variable of a template, by its URI."""

    of: str
    name: str


def completing(values: Mapping[Argument, Values]) -> Complete:
    """Completes these; of anything else it knows no value.

    A value that would have to be written otherwise to be shown is not offered.
    """

    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        _: CompletionContext | None,
    ) -> Completion:
        of = ref.name if isinstance(ref, PromptReference) else ref.uri
        known = values.get(Argument(of, argument.name))
        if known is None:
            return Completion(values=[], total=0, has_more=False)
        found = await known(argument.value)
        shown = [value for value in found[:MAX_VALUES] if plant_text(value) == value]
        return Completion(values=shown, total=len(found), has_more=len(found) > MAX_VALUES)

    return complete


def beginning(in_order: Sequence[str], prefix: str) -> Sequence[str]:
    """Those that begin so; they are in order already."""
    return in_order[bisect_left(in_order, prefix) : bisect_left(in_order, prefix + _LAST)]


def among(values: Iterable[str], prefix: str) -> Sequence[str]:
    """Those that begin so, in order, each once."""
    return sorted({value for value in values if value.startswith(prefix)})
