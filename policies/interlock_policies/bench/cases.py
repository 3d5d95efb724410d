"""Cases: sentences about what a policy answers, in a file that an operator can read and extend."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from interlock_policies.bench.errors import CaseError, in_words
from interlock_policies.bench.promises import Limits
from interlock_policies.bundles import BUNDLES
from interlock_policies.decide import NO_RULE_PERMITS, NO_USABLE_ANSWER, decide
from interlock_policies.gate import PolicyGate
from interlock_policies.situation import Situation, merged
from interlock_tools.decision import Answer, Decision, Quorum
from interlock_tools.operation import Effect

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

CASES_FILE = "cases.toml"  # of a site, beside its .cedar files
EXPLAINED_FILE = "mutants_explained.toml"

M = TypeVar("M", bound=BaseModel)


class Case(BaseModel):
    """One sentence and what it means.

    Attributes:
        name: the sentence.
        situation: what differs from the ordinary situation; an `effect` alone takes the first
            operation of that effect, an `operation` alone has its own effect.
        answer: what the policy must answer.
        rules: exactly the rules that must have decided.
        quorum: who must be asked, where it matters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    situation: dict[str, Any] = {}
    answer: Answer
    rules: frozenset[str] = Field(min_length=1)
    quorum: Quorum | None = None


class CaseFile(BaseModel):
    """Everything that one policy is tried with.

    Attributes:
        file: the name of the file, for messages.
        operations: the operations that are registered, by name.
        ordinary: the situation that each case changes.
        promises: what must hold in every combination, by name; see `promises.py`.
        limits: the figures that the promises are about.
        case: the cases.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    operations: dict[str, Effect] = {}
    ordinary: dict[str, Any] = {}
    promises: tuple[str, ...] = ()
    limits: Limits = Limits()
    case: tuple[Case, ...] = ()

    def situation(self, patch: Mapping[str, Any], named: str) -> Situation:
        """The ordinary situation with this patch; `named` is what an error calls it.

        Raises:
            CaseError: there is no such situation.
        """
        document = merged(self.ordinary, patch)
        by_effect = {effect: name for name, effect in reversed(self.operations.items())}
        if "effect" in patch and "operation" not in patch:
            document["operation"] = by_effect.get(patch["effect"], document.get("operation"))
        elif "operation" in patch and "effect" not in patch:
            document["effect"] = self.operations.get(patch["operation"], document.get("effect"))
        try:
            return Situation.model_validate(document)
        except ValidationError as error:
            raise in_words(f"{self.file}: {named}", error, document) from error


class Tried(NamedTuple):
    """A case, what was decided, and what is wrong with that (None: nothing)."""

    case: Case
    decision: Decision
    wrong: str | None


def cases_of(policy: str | Path, cases_file: Path | None = None) -> CaseFile:
    """The cases of a bundle of ours or of a site's directory, on top of what is ordinary.

    A directory keeps its own in `cases.toml`; `cases_file` names another. Operations and ordinary
    situation of the house are the base, which a file extends or changes.

    Raises:
        CaseError: there is no such file, or it cannot be used; names file, case and what is wrong.
    """
    house = resources.files("interlock_policies").joinpath("cases")
    base = read_toml(house.joinpath("ordinary.toml"), "ordinary.toml")
    source: Path | Traversable
    if cases_file is not None:
        source, name = cases_file, str(cases_file)
    elif policy in BUNDLES:
        source, name = house.joinpath(f"{policy}.toml"), f"cases/{policy}.toml"
    else:
        source, name = Path(policy) / CASES_FILE, str(Path(policy) / CASES_FILE)
    return parse_cases(merged(base, read_toml(source, name)), name)


def parse_cases(document: dict[str, Any], name: str) -> CaseFile:
    """The cases of a document; every situation in it must exist, and no name twice.

    Raises:
        CaseError: names the file, the case and what is wrong.
    """
    parsed = validated(CaseFile, {**document, "file": name}, name)
    parsed.situation({}, "ordinary")
    seen: set[str] = set()
    for case in parsed.case:
        parsed.situation(case.situation, f'case "{case.name}"')
        if case.name in seen:
            raise CaseError(f'{name}: case "{case.name}" stands there twice')
        seen.add(case.name)
    return parsed


def check_names(gate: PolicyGate, cases: CaseFile) -> None:
    """Refuse cases that expect a rule which the policy does not have: a typo, not a finding.

    Raises:
        CaseError: names the file, the case, the rule and the nearest rule that exists.
    """
    existing = {rule.rule_id for rule in gate.rules} | {NO_RULE_PERMITS, NO_USABLE_ANSWER}
    for case in cases.case:
        for rule in sorted(case.rules - existing):
            near = get_close_matches(rule, existing, n=1)
            hint = f"; the nearest is {near[0]}" if near else ""
            raise CaseError(
                f'{cases.file}: case "{case.name}": the policy has no rule {rule}{hint}'
            )


def run_cases(
    gate: PolicyGate, cases: CaseFile, situations: Sequence[Situation] | None = None
) -> list[Tried]:
    """Decide each case; `situations` are theirs, where they were already made."""
    made = situations if situations is not None else situations_of(cases)
    return [tried(gate, case, asked) for case, asked in zip(cases.case, made, strict=True)]


def situations_of(cases: CaseFile) -> list[Situation]:
    """The situation of each case, in their order."""
    return [cases.situation(case.situation, f'case "{case.name}"') for case in cases.case]


def tried(gate: PolicyGate, case: Case, situation: Situation) -> Tried:
    """Decide one case and compare."""
    decision = decide(gate, situation)
    rules = frozenset(rule.rule_id for rule in decision.rules)
    wrong = None
    if decision.answer is not case.answer:
        wrong = f"answered {decision.sentence()}, not {case.answer}"
    elif rules != case.rules:
        wrong = f"decided by {_listed(rules)}, not by {_listed(case.rules)}"
    elif case.quorum is not None and decision.quorum != case.quorum:
        wrong = f"asks for {decision.quorum!r}, not {case.quorum!r}"
    return Tried(case, decision, wrong)


def read_toml(source: "Path | Traversable", name: str) -> dict[str, Any]:
    """A TOML document.

    Raises:
        CaseError: it cannot be read or is no TOML; names the file and, if it is known, the line.
    """
    try:
        return tomllib.loads(source.read_text("utf-8"))
    except FileNotFoundError:
        raise CaseError(f"{name}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(f"{name}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise CaseError(f"{name}: is not TOML: {error}") from error


def validated(model: type[M], document: dict[str, Any], name: str) -> M:
    """The document as this model.

    Raises:
        CaseError: names the file, the entry and what is wrong.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise in_words(name, error, document) from error


def _listed(rules: Iterable[str]) -> str:
    return ", ".join(sorted(rules))
