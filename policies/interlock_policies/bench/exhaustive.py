"""Exhaustive: every combination of the boundary values, and what must hold in all of them.

A forbid beats every permit, so two products are tried: of everything that the permits look at, and
of everything that the forbids look at, each with who asks and for what. The rest of the situation
is ordinary then.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from math import prod
from typing import Any, NamedTuple

from interlock_policies.bench.cases import CaseFile
from interlock_policies.bench.dimensions import Dimension, Dimensions, Setting, dimensions
from interlock_policies.bench.promises import Asked, Limits, Promise, chosen
from interlock_policies.bench.syntax import Tree, rules_in
from interlock_policies.decide import decide
from interlock_policies.gate import PolicyGate
from interlock_policies.situation import Situation, merged
from interlock_tools.decision import Decision

MOST = 120_000  # combinations of one product; beyond that each rule is varied by itself


class Combination(NamedTuple):
    """One situation and the settings that it is made of."""

    asked: Asked
    settings: tuple[Setting, ...]

    def __str__(self) -> str:
        return ", ".join(f"{setting.dimension}: {setting.value}" for setting in self.settings)


class Combinations(NamedTuple):
    """The situations to try.

    Attributes:
        all: the fewest departures from what is ordinary first.
        promises: what must hold in them.
        limits: the figures that the promises are about.
        unvaried: what a rule looks at and we know no other values for.
        whole: whether they are the whole products; otherwise the rules were varied one by one.
    """

    all: tuple[Combination, ...]
    promises: tuple[Promise, ...]
    limits: Limits
    unvaried: tuple[str, ...]
    whole: bool


class Broken(NamedTuple):
    """A promise that does not hold somewhere."""

    promise: Promise
    combination: Combination
    decision: Decision

    def sentence(self) -> str:
        """Where it does not hold, and what was decided there."""
        return f"{self.promise.name} ({self.combination}): {self.decision.sentence()}"


class Exhaustive(NamedTuple):
    """What was found.

    Attributes:
        tried: how many combinations were decided.
        met: in how many of them each promise applied; one that applied nowhere promises nothing.
        broken: where promises did not hold, the first of each promise.
    """

    tried: int
    met: Mapping[str, int]
    broken: tuple[Broken, ...]

    @property
    def never_met(self) -> tuple[str, ...]:
        """Promises that applied nowhere."""
        return tuple(name for name, count in self.met.items() if count == 0)

    @property
    def ok(self) -> bool:
        """Whether every promise applied somewhere and held everywhere."""
        return not self.broken and not self.never_met


def combinations(
    policies: Mapping[str, str], cases: CaseFile, most_departures: int | None = None
) -> Combinations:
    """Every combination to try this policy with.

    `most_departures` leaves out those in which more settings depart from what is ordinary.

    Raises:
        CaseError: the case file names a promise that does not exist.
    """
    promises = chosen(cases.promises, cases.file)
    rules = [rule for text in policies.values() for rule in rules_in(text)]
    products: list[Dimensions] = []
    whole = True
    for permits in (True, False):
        ours = [rule for rule in rules if (rule["effect"] == "permit") == permits]
        besides: dict[str, frozenset[int | str]] = {}
        for promise in promises:
            if promise.about_permits == permits:
                for path, values in promise.looks_at(cases.limits).items():
                    besides[path] = besides.get(path, frozenset()) | values
        together = dimensions(ours, cases.operations, cases.ordinary, besides)
        if prod(len(dimension.settings) for dimension in together.varied) <= MOST:
            products.append(together)
            continue
        whole = False
        alone: list[list[Tree]] = [[rule] for rule in ours]
        products += [dimensions(one, cases.operations, cases.ordinary) for one in alone]
        products += [
            dimensions((), cases.operations, cases.ordinary, {path: values})
            for path, values in besides.items()
        ]
    found: dict[Situation, tuple[int, Combination]] = {}
    for one in products:
        for departures, combination in _product(cases.ordinary, one.varied, most_departures):
            found.setdefault(combination.asked.situation, (departures, combination))
    ordered = sorted(found.values(), key=lambda entry: entry[0])
    return Combinations(
        all=tuple(combination for _, combination in ordered),
        promises=promises,
        limits=cases.limits,
        unvaried=tuple(sorted({name for one in products for name in one.unvaried})),
        whole=whole,
    )


def run_exhaustive(gate: PolicyGate, tried: Combinations) -> Exhaustive:
    """Decide all of them and look at every promise."""
    met = {promise.name: 0 for promise in tried.promises}
    broken: dict[str, Broken] = {}
    for combination in tried.all:
        decision = decide(gate, combination.asked.situation)
        for promise in tried.promises:
            if promise.when(combination.asked, tried.limits):
                met[promise.name] += 1
                if not promise.holds(decision):
                    broken.setdefault(promise.name, Broken(promise, combination, decision))
    return Exhaustive(len(tried.all), met, tuple(broken.values()))


def first_broken(gate: PolicyGate, tried: Combinations) -> Broken | None:
    """The first promise that does not hold, or None when all do everywhere."""
    for combination in tried.all:
        applying = [p for p in tried.promises if p.when(combination.asked, tried.limits)]
        decision = decide(gate, combination.asked.situation)
        for promise in applying:
            if not promise.holds(decision):
                return Broken(promise, combination, decision)
    return None


def _product(
    ordinary: Mapping[str, Any], varied: Iterable[Dimension], most_departures: int | None
) -> Iterator[tuple[int, Combination]]:
    """The product of the settings, each with how many of them are not the nearest to ordinary."""
    nearest = {dimension.name: dimension.settings[0] for dimension in varied}
    for settings in product(*(dimension.settings for dimension in varied)):
        departures = sum(setting is not nearest[setting.dimension] for setting in settings)
        if most_departures is not None and departures > most_departures:
            continue
        document = dict(ordinary)
        for setting in settings:
            document = merged(document, setting.patch)
        situation = Situation.model_validate(document)
        asked = Asked(situation, situation.facts(quorum_voted=False))
        yield departures, Combination(asked, settings)
