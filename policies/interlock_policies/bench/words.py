"""Words: situations, facts and approvers as sentences for people."""

from collections.abc import Container, Iterable, Sequence
from typing import Any

from interlock_policies.bench.dimensions import SHARES, Setting, facts_of
from interlock_policies.situation import Situation
from interlock_tools.decision import Answer, Decision

SHOWN = 4  # names of one kind; of the rest the number is told

# Facts that a dimension sets together; each other dimension is named as its fact.
_TOGETHER = {
    "gpus": ("gpus", "gpu_share_permille", "open_gpu_share_permille"),
    "hosts": ("hosts", "host_share_permille", "open_host_share_permille"),
    "who asks": ("kind",),
    "protected": ("protected_reached",),
}


def one_line(text: str) -> str:
    """The text without anything that moves the cursor or cannot be seen.

    Names of jobs and hosts are other people's text: they must not write a line of their own.
    """
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)


def text_of_lines(lines: Iterable[str]) -> str:
    """The lines as one text."""
    return "\n".join(map(one_line, lines))


def situation_in_words(situation: Situation) -> list[str]:
    """Who asks for what, whom it reaches, and how things stand."""
    who, reach, facts = situation.principal, situation.blast_radius, facts_of(situation)
    behind = f" of {who.owner}" if who.owner else ""
    sent = f", on behalf of {who.on_behalf_of}" if who.on_behalf_of else ""
    by_name = (
        ("host", reach.hosts),
        ("rack", reach.racks),
        ("NVLink domain", reach.nvlink_domains),
        ("power domain", reach.power_domains),
        ("job", reach.jobs),
        ("tenant", reach.tenants),
    )
    reached = ", ".join(_named(kind, ids) for kind, ids in by_name if ids)
    breaks = [
        *(f"the floor of {job}" for job in sorted(reach.slo_floors_broken)),
        *(f"the budget of {domain}" for domain in sorted(reach.budgets_broken)),
    ]
    taken, protected = reach.power_taken_from, sorted(situation.protected_reached())
    claims = sorted(situation.claims_unconfirmed)
    leaves_out = [
        *(("which feeds",) if reach.all_feeds else ()),
        *(("its end",) if reach.open_ended else ()),
    ]
    return [
        f"{who.id} ({who.kind}{behind}{sent}) asks for {situation.operation} "
        f"({situation.effect}) on {situation.target} at {situation.site}.",
        f"Scopes: {', '.join(sorted(who.scopes)) or 'none'}. "
        f"Roles: {', '.join(sorted(who.roles)) or 'none'}.",
        f"It reaches {_share(reach.gpus, 'GPU', facts['gpu_share_permille'], situation.site_gpus)}"
        f"{'; ' if reached else ''}{reached}.",
        f"It moves {reach.watts_moved} W, {reach.power_rise_w} W of it up"
        f"{f', taken from {_listed(sorted(taken))}' if taken else ''}.",
        *(
            (f"The target of the grid leaves out {' and '.join(leaves_out)}.",)
            if leaves_out
            else ()
        ),
        f"With what other changes hold: {facts['open_host_share_permille']} permille of the hosts, "
        f"{facts['open_gpu_share_permille']} permille of the GPUs.",
        f"It would break {_listed(breaks) or 'no floor and no budget'}, and reach "
        f"{_listed(protected) if protected else 'nothing'} that is protected.",
        f"It claims {_listed(claims)}, and no source of ours confirms that."
        if claims
        else "It claims nothing that is not confirmed.",
        f"{'A freeze is in force' if situation.frozen else 'No freeze is in force'}; "
        f"{'inside' if situation.in_window else 'outside'} a change window; "
        f"{'granted' if situation.autonomy_granted else 'not granted'} to agents; "
        f"{'overlaps' if facts['overlaps_open'] else 'overlaps no'}"
        f"{' an' if facts['overlaps_open'] else ''} open change; "
        f"{situation.changes_last_hour} changes by {who.id} in the last hour; with this one "
        f"{situation.agent_budget_spent_permille} permille of its budget are spent.",
    ]


def facts_in_words(
    situation: Situation, names: Iterable[str], looked_at: Container[str]
) -> tuple[str, ...]:
    """The facts behind these dimensions, as they are; of several only what is looked at."""
    facts = facts_of(situation)
    return tuple(
        f"{fact}: {_value(facts[fact])}"
        for name in names
        for fact in _TOGETHER.get(name, (name,))
        if fact in facts and (name not in SHARES or fact in looked_at)
    )


def settings_in_words(settings: Iterable[Setting]) -> str:
    """Settings as a list of what is changed to what."""
    return ", ".join(f"{setting.dimension}: {setting.value}" for setting in settings)


def approvers_in_words(decision: Decision, situation: Situation | None) -> list[str]:
    """Who could say yes."""
    quorum = decision.quorum
    if decision.answer is Answer.REFUSE:
        return ["Nobody can approve this: no vote buys what is refused."]
    if quorum is None:
        return ["Nobody has to approve it."]
    people = "person" if quorum.people == 1 else "different people"
    typed = ", each by typing the target" if quorum.typed_target else ""
    lines = [f"{quorum.people} {people} with the role {quorum.role} can approve it{typed}."]
    if situation is not None:
        who = situation.principal
        out = sorted({who.id, *(one for one in (who.owner, who.on_behalf_of) if one)})
        lines.append(f"Not among them: {', '.join(out)}.")
    return lines


def _named(kind: str, ids: Iterable[str]) -> str:
    listed = sorted(ids)
    plural = kind if len(listed) == 1 else f"{kind}s"
    return f"{len(listed)} {plural} ({_listed(listed)})"


def _listed(names: Sequence[str]) -> str:
    """The first few by name, of the rest the number."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _share(count: int, kind: str, permille: int, whole: int) -> str:
    plural = kind if count == 1 else f"{kind}s"
    of = f"{permille} permille of {whole}" if whole else "of a site whose size nobody knows"
    return f"{count} {plural} ({of})"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return _listed(list(map(str, value))) or "none"
    return str(value)
