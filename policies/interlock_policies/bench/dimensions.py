"""Dimensions: what a policy looks at, and for each the values on which its answer can turn.

Which they are is read from the policy itself, so that a rule on a new fact is varied without
anybody remembering to add it here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, combinations
from typing import Any, NamedTuple

from interlock_policies.bench.syntax import Tree, reads_of
from interlock_policies.situation import Situation, merged, share_permille
from interlock_tools.identity import PrincipalKind
from interlock_tools.operation import Effect

Values = frozenset[int | str]
MANY_TEXTS = 3  # of a set, up to which every subset of the texts is tried


class Setting(NamedTuple):
    """One value of one dimension: how it reads, and what it changes in a situation."""

    dimension: str
    value: str
    patch: Mapping[str, Any]


class Dimension(NamedTuple):
    """One thing that can be varied, by itself, in any situation."""

    name: str
    settings: tuple[Setting, ...]


class Dimensions(NamedTuple):
    """Everything that a policy looks at; `unvaried` is what we know no values for."""

    varied: tuple[Dimension, ...]
    unvaried: tuple[str, ...]


def dimensions(
    rules: Iterable[Tree],
    operations: Mapping[str, Effect],
    besides: Mapping[str, Values] | None = None,
) -> Dimensions:
    """The dimensions of these rules, and those of `besides` whether or not a rule reads them."""
    reads = reads_of(rules)
    for path, values in (besides or {}).items():
        reads[path] = reads.get(path, frozenset()) | values
    known = {"principal", "principal.owner", "action", "resource", "context.quorum_voted"}
    found = [_operation(reads, operations), _kind(reads)]
    for path in ("principal.scopes", "principal.roles"):
        known.add(path)
        if path in reads:
            found.append(_texts_of_principal(path, reads[path]))
    if "principal.owner" in reads:
        found.append(_owner(reads["principal.owner"]))
    if targets := _targets(reads):
        known |= {"resource.kind", "resource.id"}
        found.append(targets)
    if sites := _texts(reads.get("context.site", frozenset())):
        known.add("context.site")
        found.append(_dimension("site", ((site, {"site": site}) for site in sites)))
    for name, make in _FACTS.items():
        ours = {path: reads[path] for path in _PATHS[name] if path in reads}
        known |= ours.keys()
        if ours:
            found.append(_dimension(name, make(ours)))
    varied = tuple(dimension for dimension in found if len(dimension.settings) > 1)
    return Dimensions(varied, tuple(sorted(reads.keys() - known)))


def from_ordinary(dimension: Dimension, ordinary: Mapping[str, Any]) -> Dimension:
    """The same dimension, its settings in the order of how far they are from this situation."""
    usual = facts_of(Situation.model_validate(ordinary))

    def distance(setting: Setting) -> tuple[int, int]:
        facts = facts_of(Situation.model_validate(merged(ordinary, setting.patch)))
        other = [key for key in usual if facts[key] != usual[key]]
        steps = (
            abs(facts[key] - usual[key]) if isinstance(usual[key], int) else 1 for key in other
        )
        return len(other), sum(steps)

    return dimension._replace(settings=tuple(sorted(dimension.settings, key=distance)))


def facts_of(situation: Situation) -> dict[str, Any]:
    """Everything that a rule can look at in this situation, but for the votes."""
    principal, target = situation.principal, situation.target
    return {
        "operation": situation.operation,
        "kind": principal.kind,
        "scopes": sorted(principal.scopes),
        "roles": sorted(principal.roles),
        "owner": principal.owner,
        "target": str(target),
        **situation.facts(quorum_voted=False),
    }


def _dimension(name: str, settings: Iterable[tuple[str, Mapping[str, Any]]]) -> Dimension:
    different = {value: Setting(name, value, patch) for value, patch in settings}
    return Dimension(name, tuple(different.values()))


def _operation(reads: Mapping[str, Values], operations: Mapping[str, Effect]) -> Dimension:
    """One operation of each effect, and every operation that a rule names."""
    first = {effect: name for name, effect in reversed(operations.items())}
    named = [name for name in sorted(_texts(reads.get("action"))) if name in operations]
    return _dimension(
        "operation",
        (
            (f"{name} ({operations[name]})", {"operation": name, "effect": operations[name]})
            for name in [*first.values(), *named]
        ),
    )


def _kind(reads: Mapping[str, Values]) -> Dimension:
    """The three kinds of principal, and whomever a rule names."""
    settings: list[tuple[str, dict[str, Any]]] = [
        (kind.value, {"principal": {"kind": kind}}) for kind in PrincipalKind
    ]
    for named in sorted(_texts(reads.get("principal"))):
        kind_name, _, principal_id = named.partition("::")
        who = {"kind": kind_name.lower(), "id": principal_id}
        settings.append((f"{who['kind']} {principal_id}", {"principal": who}))
    return _dimension("who asks", settings)


def _texts_of_principal(path: str, values: Values) -> Dimension:
    """Scopes or roles: every subset of those that are asked for; of many, all, none, all but one."""
    name, texts = path.rpartition(".")[2], sorted(_texts(values))
    sizes: Iterable[int] = range(len(texts), -1, -1)
    if len(texts) > MANY_TEXTS:
        sizes = (len(texts), len(texts) - 1, 0)
    subsets = chain.from_iterable(combinations(texts, size) for size in sizes)
    return _dimension(
        name, ((", ".join(s) or "none", {"principal": {name: list(s)}}) for s in subsets)
    )


def _owner(values: Values) -> Dimension:
    owners: list[str | None] = [None, *(sorted(_texts(values)) or ["person:owner-1"])]
    return _dimension(
        "owner", ((owner or "nobody", {"principal": {"owner": owner}}) for owner in owners)
    )


def _targets(reads: Mapping[str, Values]) -> Dimension | None:
    """The targets that rules name, and one that none names."""
    kinds, ids = _texts(reads.get("resource.kind")), _texts(reads.get("resource.id"))
    whole = [name.partition("/")[::2] for name in _texts(reads.get("resource"))]
    if not {"resource", "resource.kind", "resource.id"} & reads.keys():
        return None
    kinds, ids = sorted({*kinds, "node"}), sorted({*ids, "node-001"})
    pairs = [*((kind, name) for kind in kinds for name in ids), *whole]
    return _dimension(
        "target", ((f"{kind}/{n}", {"target": {"kind": kind, "id": n}}) for kind, n in pairs)
    )


def _flag(name: str) -> Callable[[Mapping[str, Values]], list[tuple[str, dict[str, Any]]]]:
    return lambda _: [(str(value).lower(), {name: value}) for value in (False, True)]


def _count(field: str) -> Callable[[Mapping[str, Values]], list[tuple[str, dict[str, Any]]]]:
    """A number of things that the change reaches, by their names."""

    def settings(reads: Mapping[str, Values]) -> list[tuple[str, dict[str, Any]]]:
        named = [f"{field}-{n}" for n in range(max(_numbers(reads), default=0) + 1)]
        return [(str(n), {"blast_radius": {field: named[:n]}}) for n in _numbers(reads)]

    return settings


def _amount(field: str) -> Callable[[Mapping[str, Values]], list[tuple[str, dict[str, Any]]]]:
    return lambda reads: [(str(n), {"blast_radius": {field: n}}) for n in _numbers(reads)]


def _changes(reads: Mapping[str, Values]) -> list[tuple[str, dict[str, Any]]]:
    return [(str(n), {"changes_last_hour": n}) for n in _numbers(reads)]


def _broken(field: str) -> Callable[[Mapping[str, Values]], list[tuple[str, dict[str, Any]]]]:
    def settings(reads: Mapping[str, Values]) -> list[tuple[str, dict[str, Any]]]:
        named = [[], ["some-1"], *([text] for text in sorted(_texts(*reads.values())))]
        return [(", ".join(names) or "none", {"blast_radius": {field: names}}) for names in named]

    return settings


def _protected(reads: Mapping[str, Values]) -> list[tuple[str, dict[str, Any]]]:
    """Nothing, or what the change reaches: a host that every change here is given."""
    del reads
    reached = {"protected": ["protected-1"], "blast_radius": {"jobs": ["protected-1"]}}
    return [("none", {"protected": []}), ("protected-1", reached)]


def _gpus(reads: Mapping[str, Values]) -> list[tuple[str, dict[str, Any]]]:
    """GPUs and their share of the site go together: one number of them, one size of the site."""
    out: list[tuple[str, dict[str, Any]]] = []
    for n in _numbers({"": reads.get("context.gpus", frozenset())}):
        out.append((f"{n}", {"blast_radius": {"gpus": n}, "site_gpus": max(1000, n)}))
    for path in ("context.gpu_share_permille", "context.open_gpu_share_permille"):
        for permille in _numbers({"": reads.get(path, frozenset())}):
            part, whole = _parts(permille)
            own = min(part, 1) if "open" in path else part
            patch = {"blast_radius": {"gpus": own}, "open_reach": {"gpus": part - own}}
            beside = f", {part - own} of them of other changes" if part > own else ""
            value = f"{part} of {whole} ({permille} permille){beside}"
            out.append((value, patch | {"site_gpus": whole}))
    if reads.keys() - {"context.gpus"}:
        out.append(("a site of unknown size", {"site_gpus": 0}))
    return out


def _hosts(reads: Mapping[str, Values]) -> list[tuple[str, dict[str, Any]]]:
    """Hosts, their share and the share with what is open go together, as with GPUs."""
    out: list[tuple[str, dict[str, Any]]] = []
    for n in _numbers({"": reads.get("context.hosts", frozenset())}):
        patch = {"blast_radius": {"hosts": _names("node", n)}, "site_hosts": max(1000, n)}
        out.append((f"{n}", patch))
    for path in ("context.host_share_permille", "context.open_host_share_permille"):
        for permille in _numbers({"": reads.get(path, frozenset())}):
            part, whole = _parts(permille)
            own = min(part, 1) if "open" in path else part
            hosts = {
                "blast_radius": {"hosts": _names("node", own)},
                "open_reach": {"hosts": _names("other", part - own)},
            }
            beside = f", {part - own} of them of other changes" if part > own else ""
            value = f"{part} of {whole} ({permille} permille){beside}"
            out.append((value, hosts | {"site_hosts": whole}))
    if reads.keys() - {"context.hosts"}:
        out.append(("a site of unknown size", {"site_hosts": 0}))
    return out


# How each fact is set; a name that stands for several facts sets them together.
_FACTS: Mapping[str, Callable[[Mapping[str, Values]], list[tuple[str, dict[str, Any]]]]] = {
    "frozen": _flag("frozen"),
    "in_window": _flag("in_window"),
    "overlaps_open": _flag("overlaps_open"),
    "changes_last_hour": _changes,
    "gpus": _gpus,
    "hosts": _hosts,
    "racks": _count("racks"),
    "nvlink_domains": _count("nvlink_domains"),
    "power_domains": _count("power_domains"),
    "jobs": _count("jobs"),
    "tenants": _count("tenants"),
    "watts_moved": _amount("watts_moved"),
    "power_rise_w": _amount("power_rise_w"),
    "slo_floors_broken": _broken("slo_floors_broken"),
    "budgets_broken": _broken("budgets_broken"),
    "protected_reached": _protected,
}
_PATHS: Mapping[str, Sequence[str]] = {name: (f"context.{name}",) for name in _FACTS} | {
    "gpus": ("context.gpus", "context.gpu_share_permille", "context.open_gpu_share_permille"),
    "hosts": ("context.hosts", "context.host_share_permille", "context.open_host_share_permille"),
}


def _parts(permille: int) -> tuple[int, int]:
    """The smallest whole, and a part of it, whose share is exactly this (of 0 to 1000)."""
    for whole in range(1, 1001):
        for part in (permille * whole // 1000, permille * whole // 1000 + 1):
            if share_permille(part, whole) == permille:
                return part, whole
    return permille, 1000


def _names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number:03d}" for number in range(1, count + 1)]


def _texts(*values: Values | None) -> set[str]:
    return {text for some in values for text in (some or ()) if isinstance(text, str)}


def _numbers(reads: Mapping[str, Values]) -> list[int]:
    return sorted({n for values in reads.values() for n in values if isinstance(n, int)})
