"""The schema of the registered operations: what is not in it cannot be asked about."""

import re
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

from interlock_policies.rules import BundleError
from interlock_tools.operation import Effect

SCHEMA_FILE = "interlock.cedarschema"

# One action per effect that nobody can request. The canaries need them, and a rule on a group that
# has no member would not validate.
CANARY_OPERATIONS: Mapping[str, Effect] = MappingProxyType(
    {f"canary.{effect.value}": effect for effect in Effect}
)

# The name is written into the schema, so it can hold nothing that the schema could read.
_OPERATION_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")


def schema_for(operations: Mapping[str, Effect]) -> str:
    """The text of the schema: the types, then one action per operation in the group of its effect.

    Raises:
        BundleError: a name is not of the form `component.verb_noun`, or belongs to the canaries.
    """
    for name in operations:
        if not _OPERATION_NAME.fullmatch(name) or name.startswith("canary."):
            raise BundleError(f"{name!r} cannot be registered: use the form component.verb_noun")
    types = resources.files("interlock_policies").joinpath(SCHEMA_FILE).read_text("utf-8")
    every = {**CANARY_OPERATIONS, **operations}
    return types + "".join(_action(name, Effect(every[name])) for name in sorted(every))


def _action(name: str, effect: Effect) -> str:
    return (
        f'action "{name}" in ["{effect.value}"] appliesTo '
        "{ principal: [Agent, Person, Service], resource: [Target], context: Facts };\n"
    )
