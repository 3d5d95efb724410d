"""What of NVSentinel is there: its modules, its breaker, its rules, and what is missing.

A default installation only watches. So what is not there is always said, and what cannot be told is
unknown: neither on nor off.
"""

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from interlock_servers.nvsentinel import names
from interlock_servers.nvsentinel.client import NvsentinelClient
from interlock_servers.nvsentinel.models import Module
from interlock_servers.plant_text import plant_text, plant_words
from interlock_servers.transports.kube.cache import Known

MOST_RULES = 200


class Mode(StrEnum):
    """How far it goes by itself."""

    ABSENT = "not_installed"
    MONITORING = "monitoring_only"  # nothing is cordoned, drained or repaired
    QUARANTINE = "quarantine_without_remediation"
    REMEDIATION = "remediation"
    UNKNOWN = "unknown"


class BreakerState(StrEnum):
    """Whether it has stopped quarantining."""

    CLOSED = "closed"
    TRIPPED = "tripped"  # and recovered nodes stay out, too
    STALE = "stale_tripped"  # the ConfigMap says so, and the breaker is switched off
    OFF = "off"
    UNKNOWN = "unknown"


class Breaker(NamedTuple):
    """The circuit breaker of fault-quarantine."""

    state: BreakerState
    status: str | None
    cursor: str | None
    why: str


class Rule(NamedTuple):
    """One rule set, by which a node is quarantined; expressions are CEL, as text."""

    name: str
    enabled: bool
    priority: int
    match: tuple[str, ...]
    cordons: bool
    taint: str | None


@dataclass(frozen=True)
class Installed:
    """What there is.

    Attributes:
        missing: why kinds of requests are not there, by name.
        acting: the modules that act and are there.
        dry_run: whether any of them only rehearses; None where their arguments do not say.
    """

    mode: Mode
    why: str
    modules: dict[str, Module]
    acting: tuple[str, ...]
    dry_run: bool | None
    missing: dict[str, str]
    breaker: Breaker


def installed(client: NvsentinelClient) -> Installed:
    """How it stands now, from what is known."""
    standing = client.modules.snapshot()
    modules = {module.name: module for module in client.modules.values()}
    acting = tuple(name for name in names.ACTING if (m := named(modules, name)) and m.wanted > 0)
    caches = client.requests.values()
    missing = {
        cache.kind.name: cache.snapshot().why
        for cache in caches
        if cache.snapshot().known is not Known.FRESH
    }
    mode, why = _mode(acting, modules, standing.known, standing.why)
    said = [m.dry_run for name in names.ACTING[:3] if (m := named(modules, name))]
    dry_run = True if True in said else None if not said or None in said else False
    return Installed(mode, why, modules, acting, dry_run, missing, breaker(client))


def _mode(
    acting: tuple[str, ...], modules: dict[str, Module], known: Known, why: str
) -> tuple[Mode, str]:
    if known is Known.NEVER:
        return Mode.UNKNOWN, f"its Deployments cannot be seen: {why}"
    if not modules:
        return Mode.ABSENT, "its namespace has no Deployments"
    if names.QUARANTINER not in acting:
        return (
            Mode.MONITORING,
            f"there is no {names.QUARANTINER}: faults are shown, nothing is done",
        )
    without = [
        name for name in (names.DRAINER, names.REMEDIATOR, names.JANITOR) if name not in acting
    ]
    if without:
        return Mode.QUARANTINE, f"nodes are cordoned; there is no {', no '.join(without)}"
    return Mode.REMEDIATION, ""


def breaker(client: NvsentinelClient) -> Breaker:
    """The breaker: what its ConfigMap says, beside whether it is switched on at all."""
    module = named({m.name: m for m in client.modules.values()}, names.QUARANTINER)
    cache = client.config[names.BREAKER]
    found = cache.find(names.BREAKER, client.settings.namespace)
    return breaker_of(module, found, cache.snapshot().why)


def breaker_of(module: Module | None, found: dict[str, str] | None, why: str = "") -> Breaker:
    """The same from a Deployment and a ConfigMap; None where there is none."""
    if found is None:
        if module is not None and module.breaker is False:
            return Breaker(BreakerState.OFF, None, None, "it is switched off by its argument")
        says = why or f"there is no ConfigMap {names.BREAKER}"
        return Breaker(BreakerState.UNKNOWN, None, None, says)
    status, cursor = found.get("status"), found.get("cursor")
    told = None if status is None else plant_text(status)
    at = None if cursor is None else plant_text(cursor)
    if module is None or (module.breaker is False and status != "TRIPPED"):
        off = f"there is no {names.QUARANTINER}" if module is None else "it is switched off"
        state = BreakerState.STALE if status == "TRIPPED" else BreakerState.OFF
        return Breaker(state, told, at, off)
    if status == "TRIPPED":
        if module.breaker is False:
            why = "it is switched off, so that this is of an earlier time"
            return Breaker(BreakerState.STALE, told, at, why)
        why = "nothing is quarantined, and nodes that recovered are not given back"
        return Breaker(BreakerState.TRIPPED, told, at, why)
    if status == "CLOSED":
        return Breaker(BreakerState.CLOSED, told, at, "")
    return Breaker(BreakerState.UNKNOWN, told, at, "its status is no known word")


def rules(client: NvsentinelClient) -> tuple[list[Rule], str]:
    """The rule sets in force, and why there are none where there are none."""
    cache = client.config[names.QUARANTINER]
    found = cache.find(names.QUARANTINER, client.settings.namespace) or {}
    text = found.get(names.RULES_KEY)
    if text is None:
        return [], cache.snapshot().why or f"there is no ConfigMap {names.QUARANTINER}"
    return read_rules(text)


def read_rules(text: str) -> tuple[list[Rule], str]:
    """Rule sets from TOML, and why it cannot be read."""
    try:
        said = tomllib.loads(text)
        sets = said.get("rule-sets") or said.get("ruleSets") or []
        return [_rule(one) for one in sets[:MOST_RULES]], ""
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        return [], f"{names.RULES_KEY} cannot be read: {plant_words(str(error))}"


def _rule(said: Any) -> Rule:
    match = said.get("match") or {}
    expressions = [
        plant_words(f"{word} {one.get('kind', '?')}: {' '.join(str(one['expression']).split())}")
        for word in ("all", "any")
        for one in match.get(word) or ()
    ]
    taint = said.get("taint") or {}
    return Rule(
        name=plant_text(str(said.get("name") or "")),
        enabled=said.get("enabled", True) is True,
        priority=int(said.get("priority") or 0),
        match=tuple(expressions),
        cordons=(said.get("cordon") or {}).get("shouldCordon") is True,
        taint=plant_text(f"{taint.get('key')}={taint.get('value')}:{taint.get('effect')}")
        if taint.get("key")
        else None,
    )


def named(modules: dict[str, Module], name: str) -> Module | None:
    """A module by its name; a Helm release may stand before it."""
    for known, found in modules.items():
        if known == name or (known.endswith(f"-{name}") and name != names.JANITOR):
            return found
    return None
