"""The suites of the three bundles, made once."""

from collections.abc import Mapping
from typing import NamedTuple

import pytest

from interlock_policies.bench.cases import CaseFile, cases_of
from interlock_policies.bench.exhaustive import Combinations, combinations
from interlock_policies.bundles import BUNDLES, bundle_texts
from interlock_policies.gate import PolicyGate

NEAREST = 3  # departures from what is ordinary at once; `make policy` decides every combination


class Ready(NamedTuple):
    """A bundle with everything that it is tried with."""

    texts: Mapping[str, str]
    cases: CaseFile
    gate: PolicyGate
    combinations: Combinations


@pytest.fixture(scope="session")
def ready() -> Mapping[str, Ready]:
    """The three bundles of the house."""
    out = {}
    for name in BUNDLES:
        texts, cases = bundle_texts(name), cases_of(name)
        gate = PolicyGate(texts, cases.operations)
        out[name] = Ready(texts, cases, gate, combinations(texts, cases, NEAREST))
    return out
