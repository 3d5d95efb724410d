"""Dimensions: what a policy looks at, and for each the values on which its answer can turn.

Which they are is read from the policy itself, so that a rule on a new fact is varied without
anybody remembering to add it here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, combinations
from typing import Any, NamedTuple

from interlock_policies.bench.syntax import Tree, reads_of
from interlock_policies.situation import Situation, merged, share_permille
from interlock_tools.identity import PrincipalKind
from interlock_tools.operation import Effect

Values = frozenset[int | str]
_Make = Callable[[Values], list[tuple[str, Mapping[str, Any]]]]
# The number of each in a change, its share of the site, and that with what is open.
SHARES: Mapping[str, tuple[str, str, str]] = {
    name: (f"context.{name}", f"context.{one}_share_permille", f"context.open_{one}_share_permille")
    for name, one in (("gpus", "gpu"), ("hosts", "host"))
}
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
    ordinary: Mapping[str, Any],
    besides: Mapping[str, Values] | None = None,
    *,
    same_site: bool = False,
) -> Dimensions:
    """The dimensions of these rules, and those of `besides` whether or not a rule reads them.

    The settings of each are in the order of how far they are from the `ordinary` situation. Shares
    meet their boundaries exactly, on sites of whatever size that takes, or with `same_site` as
    nearly as the ordinary site can.
    """
    reads = reads_of(rules)
    for path, values in (besides or {}).items():
        reads[path] = reads.get(path, frozenset()) | values
    known = {"principal", "principal.owner", "action", "resource", "context.quorum_voted"}
    found = [_operation(reads, operations), _kind(reads)]
    for path in ("principal.scopes", "principal.roles"):
        known.add(path)
        if path in reads:
            found.append(_texts_of_principal(path, reads[path], ordinary))
    if "principal.owner" in reads:
        found.append(_owner(reads["principal.owner"]))
    if targets := _targets(reads):
        known |= {"resource.kind", "resource.id"}
        found.append(targets)
    if sites := _texts(reads.get("context.site", frozenset())):
        known.add("context.site")
        found.append(_dimension("site", ((site, {"site": site}) for site in sites)))
    if "context.protected_reached" in reads:
        known.add("context.protected_reached")
        ids = {ordinary["target"]["id"]}
        ids |= {setting.patch["target"]["id"] for setting in (targets.settings if targets else ())}
        protected = [("nothing", {"protected": []}), ("the target", {"protected": sorted(ids)})]
        found.append(_dimension("protected", protected))
    for name in ("gpus", "hosts"):
        ours = {path: reads[path] for path in SHARES[name] if path in reads}
        known |= ours.keys()
        if ours:
            found.append(_dimension(name, _sized(name, ours, ordinary, same_site=same_site)))
    for name, make in _FACTS.items():
        path = f"context.{name}"
        known.add(path)
        if path in reads:
            found.append(_dimension(name, make(reads[path])))
    if same_site:
        found = [_apart(one, ordinary) if one.name == "overlaps_open" else one for one in found]
    varied = tuple(_from(ordinary, found_one) for found_one in found if len(found_one.settings) > 1)
    return Dimensions(varied, tuple(sorted(reads.keys() - known)))


def _from(ordinary: Mapping[str, Any], dimension: Dimension) -> Dimension:
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
    firsts = {effect: name for name, effect in reversed(list(operations.items()))}
    first = [firsts[effect] for effect in Effect if effect in firsts]
    named = [name for name in sorted(_texts(reads.get("action"))) if name in operations]
    return _dimension(
        "operation",
        (
            (f"{name} ({operations[name]})", {"operation": name, "effect": operations[name]})
            for name in [*first, *named]
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


def _texts_of_principal(path: str, values: Values, ordinary: Mapping[str, Any]) -> Dimension:
    """Scopes or roles: every subset of those that are asked for; of many, all, none, all but one.

    What nobody asks for stays as it is.
    """
    name, texts = path.rpartition(".")[2], sorted(_texts(values))
    others = set(ordinary["principal"].get(name, ())) - set(texts)
    sizes: Iterable[int] = range(len(texts), -1, -1)
    if len(texts) > MANY_TEXTS:
        sizes = (len(texts), len(texts) - 1, 0)
    subsets = chain.from_iterable(combinations(texts, size) for size in sizes)
    held = (sorted({*others, *subset}) for subset in subsets)
    return _dimension(name, ((", ".join(s) or "none", {"principal": {name: s}}) for s in held))


def _owner(values: Values) -> Dimension:
    owners: list[str | None] = [None, *(sorted(_texts(values) - {""}) or ["person:owner-1"])]
    return _dimension(
        "owner", ((owner or "nobody", {"principal": {"owner": owner}}) for owner in owners)
    )


def _targets(reads: Mapping[str, Values]) -> Dimension | None:
    """The targets that rules name, and one that none names."""
    whole = [name.partition("/")[::2] for name in _texts(reads.get("resource"))]
    if not {"resource", "resource.kind", "resource.id"} & reads.keys():
        return None
    kinds = sorted({*_texts(reads.get("resource.kind")), "node"})
    ids = sorted({*_texts(reads.get("resource.id")), "node-001"})
    pairs = [*((kind, name) for kind in kinds for name in ids), *whole]
    return _dimension(
        "target", ((f"{kind}/{n}", {"target": {"kind": kind, "id": n}}) for kind, n in pairs)
    )


def _flag(name: str) -> _Make:
    return lambda _: [(str(value).lower(), {name: value}) for value in (False, True)]


def _count(field: str) -> _Make:
    """A number of things that the change reaches, by their names."""
    return lambda values: [
        (str(n), {"blast_radius": {field: _names(field, n)}}) for n in _numbers(values)
    ]


def _apart(overlap: Dimension, ordinary: Mapping[str, Any]) -> Dimension:
    """No overlap means in an actual situation that what is open holds none of its hosts."""
    held = set(ordinary["open_reach"].get("hosts", ())) - set(ordinary["blast_radius"]["hosts"])
    patch = {"overlaps_open": False, "open_reach": {"hosts": sorted(held)}}
    no, yes = overlap.settings
    return overlap._replace(settings=(no._replace(patch=patch), yes))


def _number(field: str) -> _Make:
    return lambda values: [(str(n), {field: n}) for n in _numbers(values)]


def _amount(field: str) -> _Make:
    return lambda values: [(str(n), {"blast_radius": {field: n}}) for n in _numbers(values)]


def _named(field: str) -> _Make:
    """Nothing, something, and what a rule names."""

    def settings(values: Values) -> list[tuple[str, Mapping[str, Any]]]:
        named = [[], ["some-1"], *([text] for text in sorted(_texts(values)))]
        return [(", ".join(names) or "none", {field: names}) for names in named]

    return settings


def _flag_of_reach(field: str) -> _Make:
    return lambda _: [
        (str(value).lower(), {"blast_radius": {field: value}}) for value in (False, True)
    ]


def _broken(field: str) -> _Make:
    """As `_named`, in the reach."""
    make = _named(field)
    return lambda values: [(value, {"blast_radius": patch}) for value, patch in make(values)]


# How each fact is set that goes by itself.
_FACTS: Mapping[str, _Make] = {
    "frozen": _flag("frozen"),
    "in_window": _flag("in_window"),
    "autonomy_granted": _flag("autonomy_granted"),
    "overlaps_open": _flag("overlaps_open"),
    "changes_last_hour": _number("changes_last_hour"),
    "agent_budget_spent_permille": _number("agent_budget_spent_permille"),
    "claims_unconfirmed": _named("claims_unconfirmed"),
    "racks": _count("racks"),
    "nvlink_domains": _count("nvlink_domains"),
    "power_domains": _count("power_domains"),
    "jobs": _count("jobs"),
    "tenants": _count("tenants"),
    "watts_moved": _amount("watts_moved"),
    "power_rise_w": _amount("power_rise_w"),
    "slo_floors_broken": _broken("slo_floors_broken"),
    "budgets_broken": _broken("budgets_broken"),
    "power_taken_from": _broken("power_taken_from"),
    "all_feeds": _flag_of_reach("all_feeds"),
    "open_ended": _flag_of_reach("open_ended"),
}


def _sized(
    name: str, reads: Mapping[str, Values], ordinary: Mapping[str, Any], *, same_site: bool
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """GPUs or hosts, with the size of the site and what other changes hold of them.

    The number and its shares cannot be set one without the other, so they are one dimension.
    """
    number, share, open_share = SHARES[name]
    size, site = f"site_{name}", int(ordinary[f"site_{name}"])
    same_site = same_site and site > 0
    reached = ordinary["blast_radius"].get(name, ())
    now = reached if isinstance(reached, int) else len(reached)

    def patch(own: int, others: int, whole: int) -> Mapping[str, Any]:
        mine: Any = own if name == "gpus" else _names("node", own)
        theirs: Any = others if name == "gpus" else _names("other", others)
        return {"blast_radius": {name: mine}, "open_reach": {name: theirs}, size: whole}

    for n in _numbers(reads.get(number, frozenset())):
        whole = site if same_site else max(1000, n)
        yield str(n), {"blast_radius": patch(n, 0, whole)["blast_radius"], size: whole}
    for path in (share, open_share):
        for permille in _numbers(reads.get(path, frozenset())):
            part, whole = _parts(permille)
            if same_site:
                part, whole = permille * site // 1000, site
                part += share_permille(part, whole) < permille  # at the boundary or just past it
            own = part if path == share else min(part, now)
            beside = f", {part - own} of them of other changes" if part > own else ""
            permille_now = share_permille(part, whole)
            yield (
                f"{part} of {whole} ({permille_now} permille){beside}",
                patch(own, part - own, whole),
            )
    if not same_site and (share in reads or open_share in reads):
        yield "a site of unknown size", {size: 0}


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


def _numbers(values: Values) -> list[int]:
    return sorted(n for n in values if isinstance(n, int))
