"""Runbooks as they are read to a model: our words, in Markdown files beside this one.

`rules.md` has a section for each rule of the house's policies, the same as `policies/README.md`.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

# Refusals that no rule of a policy gives: the guard's own.
BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "component-refuses": "The component's own dry run said no.",
        "facts-unknown": "A fact that the decision needs is unknown or too old.",
        "no-rule-permits": "No rule of the policy permits this in this situation.",
        "policy-gave-no-answer": "The policy gave no usable answer, and that is a no.",
    }
)
_SECTION = re.compile(r"^### ", re.MULTILINE)


@cache
def text(name: str) -> str:
    """The runbook of this name."""
    return resources.files(__name__).joinpath(f"{name}.md").read_text("utf-8").strip() + "\n"


def section(rule_id: str) -> str | None:
    """What people do about this rule, if it is one of the house's."""
    return _sections().get(rule_id)


@cache
def _sections() -> dict[str, str]:
    found: dict[str, str] = {}
    for part in _SECTION.split(text("rules") + text("built_in"))[1:]:
        rule_id, _, said = part.partition("\n")
        found[rule_id.strip()] = " ".join(said.split())
    return found
