"""The definitions that the twin brings along are upstream's, to the byte."""

import os
from pathlib import Path

import pytest

from interlock_servers.nvsentinel.twin import DEFINITIONS
from interlock_servers.nvsentinel.twin_cluster import definitions_in

CONTRACTS = os.environ.get("INTERLOCK_CONTRACTS")
OURS = "maintenancerequests.yaml"  # upstream's own was not at hand


@pytest.mark.skipif(not CONTRACTS, reason="INTERLOCK_CONTRACTS does not name the upstream schemas")
def test_every_definition_but_one_is_a_copy() -> None:
    """A twin that was given a schema to its liking would agree with itself."""
    assert CONTRACTS is not None
    upstream = Path(CONTRACTS) / "crds" / "nvsentinel"
    copies = [path for path in DEFINITIONS.glob("*.yaml") if path.name != OURS]
    assert len(copies) == 5
    for path in copies:
        assert path.read_bytes() == (upstream / path.name).read_bytes()


def test_they_are_the_kinds_that_the_twin_acts_on() -> None:
    """Janitor's three, the hand-over, maintenance and validation."""
    assert {each["spec"]["names"]["kind"] for each in definitions_in(DEFINITIONS)} == {
        "RebootNode",
        "TerminateNode",
        "GPUReset",
        "ExternalRemediationRequest",
        "MaintenanceRequest",
        "ValidationRequest",
    }
