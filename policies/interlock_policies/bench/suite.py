"""The suite of one policy: its cases, every combination, and its mutants, run as one."""

from pathlib import Path
from typing import NamedTuple

from interlock_policies.bench.cases import Tried, cases_of, check_names, run_cases
from interlock_policies.bench.errors import CaseError
from interlock_policies.bench.exhaustive import Exhaustive, combinations, run_exhaustive
from interlock_policies.bench.mutants import mutants
from interlock_policies.bench.mutation import (
    Mutation,
    check_explained,
    explained_of,
    judge_all,
)
from interlock_policies.bundles import bundle_texts
from interlock_policies.gate import PolicyGate


class Bench(NamedTuple):
    """What the bench found of one policy.

    Attributes:
        policy: its name or directory.
        version: of the gate that was asked.
        rules: how many it has.
        cases: each case and what was decided.
        exhaustive: what held in every combination.
        mutation: None where it was not asked for, or the policy itself does not pass.
        unvaried: what a rule looks at and the bench knows no other values for.
        whole: whether the whole products were tried; otherwise one rule at a time was varied.
    """

    policy: str
    version: str
    rules: int
    cases: tuple[Tried, ...]
    exhaustive: Exhaustive
    mutation: Mutation | None
    unvaried: tuple[str, ...]
    whole: bool

    @property
    def wrong(self) -> tuple[Tried, ...]:
        """Cases that were answered otherwise than they say."""
        return tuple(tried for tried in self.cases if tried.wrong)

    @property
    def passes(self) -> bool:
        """Whether every case and promise holds, and every surviving mutant is explained."""
        holes = self.mutation.unexplained if self.mutation else ()
        return not self.wrong and self.exhaustive.ok and not holes


def run_bench(
    policy: str | Path, cases_file: Path | None = None, *, mutate_every: int = 1
) -> Bench:
    """Try a bundle of ours, or a site's directory with its `cases.toml` or another file.

    `mutate_every` judges every so many mutants; 0 leaves them out.

    Raises:
        BundleError: the policy cannot be served; names the file and the rule.
        CaseError: a file of the bench cannot be used, or holds no case; names the file, the case
            and what is wrong.
    """
    texts = bundle_texts(policy)
    cases = cases_of(policy, cases_file)
    if not cases.case:
        raise CaseError(f"{cases.file}: it holds no case")
    gate = PolicyGate(texts, cases.operations)
    check_names(gate, cases)
    explained = explained_of(policy, cases_file)
    to_try = combinations(texts, cases)
    tried, found = tuple(run_cases(gate, cases)), run_exhaustive(gate, to_try)
    mutation = None
    if mutate_every and found.ok and not any(one.wrong for one in tried):
        mutation = judge_all(mutants(texts)[::mutate_every], cases, to_try, explained)
        if mutate_every == 1:
            check_explained(mutation, explained)
    return Bench(
        policy=str(policy),
        version=gate.version,
        rules=len(gate.rules),
        cases=tried,
        exhaustive=found,
        mutation=mutation,
        unvaried=to_try.unvaried,
        whole=to_try.whole,
    )
