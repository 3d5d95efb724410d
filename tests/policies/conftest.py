"""One ordinary situation, which each test changes in what it is about."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from interlock_policies.bundles import load_bundle
from interlock_policies.gate import PolicyGate
from interlock_policies.situation import Situation
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.identity import Principal, PrincipalKind, Target
from interlock_tools.operation import Effect

OPERATIONS: Mapping[str, Effect] = {
    "fleet.read_health": Effect.READ,
    "maxlps.set_cap": Effect.REVERSIBLE,
    "nico.reboot_machine": Effect.DISRUPTIVE,
    "nico.wipe_machine": Effect.IRREVERSIBLE,
}
BY_EFFECT = {effect: name for name, effect in OPERATIONS.items()}


def ordinary(
    effect: Effect = Effect.REVERSIBLE,
    kind: PrincipalKind = PrincipalKind.AGENT,
    reach: Mapping[str, Any] | None = None,
    open_reach: Mapping[str, Any] | None = None,
    scopes: frozenset[str] = frozenset({"interlock:read", "interlock:propose"}),
    owner: str | None = "ada",
    **changed: Any,
) -> Situation:
    """A power cut of 5 GPUs of 100, on one host of 100 and in one domain; nothing is wrong."""
    small: dict[str, Any] = {
        "gpus": 5,
        "hosts": {"node-001"},
        "power_domains": {"feed-1"},
        "watts_moved": 500,
    }
    fields: dict[str, Any] = {
        "principal": Principal(
            id="agent-power",
            kind=kind,
            authenticated_by="test",
            scopes=scopes,
            owner=owner if kind is PrincipalKind.AGENT else None,
        ),
        "operation": BY_EFFECT[effect],
        "effect": effect,
        "target": Target(kind="node", id="node-001"),
        "site": "hall-1",
        "blast_radius": BlastRadius(**{**small, **(reach or {})}),
        "open_reach": BlastRadius(**(open_reach or {})),
        "site_gpus": 100,
        "site_hosts": 100,
        "overlaps_open": False,
        "frozen": False,
        "in_window": True,
        "changes_last_hour": 0,
        "autonomy_granted": True,
    }
    return Situation(**{**fields, **changed})


@pytest.fixture(scope="session")
def situation() -> Callable[..., Situation]:
    """`ordinary`, with the fields given by name changed."""
    return ordinary


@pytest.fixture(scope="session")
def operations() -> Mapping[str, Effect]:
    """One registered operation per effect."""
    return OPERATIONS


@pytest.fixture(scope="session")
def gates() -> Mapping[str, PolicyGate]:
    """The three bundles of the house over those operations."""
    return {name: load_bundle(name, OPERATIONS) for name in ("observe", "supervised", "autonomous")}
