"""Mutation: whether the start-up checks, the cases and the promises would notice a fault.

A mutant that passes all three survives. It is either a hole in the cases, or no fault at all: then
a person says why in `mutants_explained.toml`. An explanation that no longer applies is an error.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from interlock_policies.bench.cases import (
    EXPLAINED_FILE,
    CaseFile,
    read_toml,
    situations_of,
    tried,
    validated,
)
from interlock_policies.bench.errors import CaseError
from interlock_policies.bench.exhaustive import Combinations, first_broken
from interlock_policies.bench.mutants import Mutant
from interlock_policies.bundles import BUNDLES
from interlock_policies.gate import PolicyGate
from interlock_policies.rules import BundleError
from interlock_policies.situation import Situation

START_UP, CASE, PROMISE = "start-up", "case", "promise"


class Explained(BaseModel):
    """Why one mutant may survive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str = ""
    rule: str = Field(min_length=1)
    change: str = Field(min_length=1)
    why: str = Field(min_length=20)


class _ExplainedFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    mutant: tuple[Explained, ...] = ()


class Judged(NamedTuple):
    """A mutant, what caught it (None: nothing did), and where a person explains that.

    Attributes:
        mutant: the fault.
        caught_by: `start-up`, `case` or `promise`.
        how: the words of what caught it.
        why: the explanation of a survivor.
    """

    mutant: Mutant
    caught_by: str | None
    how: str = ""
    why: str | None = None


class Mutation(NamedTuple):
    """All mutants that were judged."""

    judged: tuple[Judged, ...]

    @property
    def survivors(self) -> tuple[Judged, ...]:
        """Those that nothing caught."""
        return tuple(one for one in self.judged if one.caught_by is None)

    @property
    def unexplained(self) -> tuple[Judged, ...]:
        """Survivors that nobody explains: holes."""
        return tuple(one for one in self.survivors if one.why is None)

    @property
    def score(self) -> float:
        """The part that was caught; an explained survivor counts as not caught."""
        return 1 - len(self.survivors) / len(self.judged) if self.judged else 0.0

    def caught_by(self, stage: str) -> int:
        """How many this stage was the first to catch."""
        return sum(one.caught_by == stage for one in self.judged)


def judge_all(
    chosen: Iterable[Mutant],
    cases: CaseFile,
    combinations: Combinations,
    explained: Sequence[Explained] = (),
) -> Mutation:
    """Judge these mutants of a policy whose own cases and promises all hold."""
    situations = situations_of(cases)
    reasons = {(one.rule, one.change): one.why for one in explained}
    judged = []
    for mutant in chosen:
        one = judge(mutant, cases, situations, combinations)
        judged.append(one._replace(why=reasons.get((mutant.rule_id, mutant.change))))
    return Mutation(tuple(judged))


def judge(
    mutant: Mutant, cases: CaseFile, situations: Sequence[Situation], combinations: Combinations
) -> Judged:
    """The first of start-up, cases and promises that catches this mutant."""
    try:
        gate = PolicyGate(mutant.policies, cases.operations)
    except BundleError as error:
        return Judged(mutant, START_UP, str(error))
    for case, asked in zip(cases.case, situations, strict=True):
        if wrong := tried(gate, case, asked).wrong:
            return Judged(mutant, CASE, f"{case.name} It {wrong}")
    broken = first_broken(gate, combinations)
    if broken is not None:
        return Judged(mutant, PROMISE, broken.sentence())
    return Judged(mutant, None)


def explained_of(policy: str | Path, cases_file: Path | None = None) -> tuple[Explained, ...]:
    """The explanations for a bundle, or those beside a site's own cases (none is fine there).

    Raises:
        CaseError: the file cannot be used; names the file and the entry.
    """
    if cases_file is None and policy in BUNDLES:
        source = resources.files("interlock_policies").joinpath("cases", EXPLAINED_FILE)
        entries = validated(
            _ExplainedFile, read_toml(source, f"cases/{EXPLAINED_FILE}"), f"cases/{EXPLAINED_FILE}"
        ).mutant
        return tuple(entry for entry in entries if entry.bundle == policy)
    beside = (Path(policy) if cases_file is None else cases_file.parent) / EXPLAINED_FILE
    if not beside.exists():
        return ()
    return validated(_ExplainedFile, read_toml(beside, str(beside)), str(beside)).mutant


def check_explained(found: Mutation, explained: Sequence[Explained]) -> None:
    """Refuse an explanation of a mutant that was caught, or that there is no longer.

    Raises:
        CaseError: names the rule and the change.
    """
    survived: Mapping[tuple[str, str], Judged] = {
        (one.mutant.rule_id, one.mutant.change): one for one in found.survivors
    }
    for one in explained:
        if (one.rule, one.change) not in survived:
            raise CaseError(
                f'{EXPLAINED_FILE}: mutant "{one.rule}: {one.change}" does not survive here, or is '
                "none: take the explanation away"
            )
