"""A rule as people read it: what its annotations say beside the Cedar text that decides."""

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from interlock_tools.decision import Quorum, RuleHit
from interlock_tools.errors import FactoryError


class BundleError(FactoryError):
    """The policy cannot be served as it is written; nothing is decided until it is mended."""


class Rule(NamedTuple):
    """One policy of a bundle.

    Attributes:
        rule_id: its `@id`, unique in the bundle.
        permits: whether it permits; otherwise it forbids.
        reason: a sentence that an approver or a caller can read.
        runbook: where it says what to do next.
        file: the file that it stands in.
        quorum: who must have voted for it to apply; None when nobody has to.
        canary: for a forbid, what makes the canary's ordinary request one that it must stop.
    """

    rule_id: str
    permits: bool
    reason: str
    runbook: str
    file: str
    quorum: Quorum | None = None
    canary: dict[str, Any] | None = None

    @property
    def hit(self) -> RuleHit:
        """The rule as it stands in a decision."""
        return RuleHit(rule_id=self.rule_id, reason=self.reason)


def read_rule(
    file: str,
    effect: Literal["permit", "forbid"],
    annotations: Mapping[str, str],
    *,
    asks_for_votes: bool,
) -> Rule:
    """The rule that these annotations describe; `asks_for_votes`: its text reads `quorum_voted`.

    Raises:
        BundleError: an annotation is missing, unreadable, or contradicts the text.
    """
    rule_id = annotations.get("id", "")
    where = f"{file}: {rule_id or 'a rule without @id'}"
    for name in ("id", "reason", "runbook"):
        if not annotations.get(name, "").strip():
            raise BundleError(f"{where}: @{name} is missing")
    permits = effect == "permit"
    quorum = _quorum(where, annotations)
    if permits and asks_for_votes != (quorum is not None):
        raise BundleError(f"{where}: @quorum and context.quorum_voted go together")
    if not permits and (asks_for_votes or quorum is not None):
        raise BundleError(f"{where}: a forbid takes no @quorum and reads no quorum_voted")
    return Rule(
        rule_id=rule_id,
        permits=permits,
        reason=annotations["reason"],
        runbook=annotations["runbook"],
        file=file,
        quorum=quorum,
        canary=None if permits else _canary(where, annotations),
    )


def strictest(rules: Iterable[Rule]) -> Quorum | None:
    """The most people that any of the rules asks for, of the role named there.

    The target is to be typed if any of them says so. None when no rule asks for anybody.
    """
    asking = [
        (rule.quorum.people, rule.quorum.typed_target, rule.rule_id, rule.quorum)
        for rule in rules
        if rule.quorum is not None
    ]
    if not asking:
        return None
    quorum = max(asking, key=lambda entry: entry[:3])[3]
    return quorum.model_copy(update={"typed_target": any(typed for _, typed, _, _ in asking)})


def _quorum(where: str, annotations: Mapping[str, str]) -> Quorum | None:
    given = {"quorum", "role", "typed_target"} & annotations.keys()
    if not given:
        return None
    typed = annotations.get("typed_target", "false")
    if not annotations.get("role") or "quorum" not in given or typed not in {"true", "false"}:
        raise BundleError(
            f'{where}: @quorum, @role and @typed_target ("true" or "false") go together'
        )
    try:
        return Quorum(
            people=int(annotations["quorum"]),
            role=annotations["role"],
            typed_target=typed == "true",
        )
    except ValueError as error:
        raise BundleError(f"{where}: @quorum must be a number from 1 to 5: {error}") from error


def _canary(where: str, annotations: Mapping[str, str]) -> dict[str, Any]:
    """The `@canary` of a forbid: the fields of a situation, written like a TOML inline table."""
    if not annotations.get("canary", "").strip():
        raise BundleError(f"{where}: a forbid needs @canary, the situation that it must stop")
    try:
        # One key of a document of its own, so that the text cannot become anything else.
        return dict(tomllib.loads(f"canary = {{ {annotations['canary']} }}")["canary"])
    except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        raise BundleError(f"{where}: @canary cannot be read: {error}") from error
