"""The roles grant what the code says that it needs, and nothing else."""

import copy

import pytest

from tests.packaging.kustomize import NAMES, OVERLAYS, rendered
from tests.packaging.rights import (
    ACCOUNTS,
    FORBIDDEN,
    NAMESPACE,
    READS,
    WRITES,
    Right,
    declared,
    granted,
    right_of,
    subjects,
)


@pytest.mark.parametrize("account", ACCOUNTS)
@pytest.mark.parametrize("overlay", NAMES)
def test_an_account_is_granted_what_its_server_needs_and_nothing_else(
    overlay: str, account: str
) -> None:
    """Both directions: a right too few fails in the field, one too many is never noticed there."""
    assert granted(rendered(OVERLAYS / overlay), account) == declared(
        account, writes=overlay != "read-only"
    )


@pytest.mark.parametrize("overlay", NAMES)
def test_roles_are_bound_to_our_accounts_only_and_each_is_bound(overlay: str) -> None:
    """A role that waits for a subject is a right that nobody looks at."""
    objects = rendered(OVERLAYS / overlay)
    bindings = [each for each in objects if each["kind"].endswith("Binding") and "roleRef" in each]
    ours = {("ServiceAccount", NAMESPACE, account) for account in ACCOUNTS}
    made = {
        ("ServiceAccount", each["metadata"]["namespace"], each["metadata"]["name"])
        for each in objects
        if each["kind"] == "ServiceAccount"
    }

    assert made == ours
    assert all(subjects(each) <= ours for each in bindings)
    roles = [each for each in objects if each["kind"] in ("Role", "ClusterRole")]
    assert len(roles) == len(bindings)


def test_a_right_too_many_and_one_too_few_are_both_seen() -> None:
    """For each rule of the guarded roles: with another verb, with a wildcard, and without it."""
    objects = rendered(OVERLAYS / "guarded")
    wanted = declared("nvsentinel", writes=True)
    tried = 0
    for place, each in enumerate(objects):
        for number in range(len(each.get("rules", ()))):
            more, any_resource, less = (copy.deepcopy(objects) for _ in range(3))
            more[place]["rules"][number]["verbs"].append("deletecollection")
            any_resource[place]["rules"][number]["resources"] = ["*"]
            del less[place]["rules"][number]
            for changed in (more, any_resource, less):
                assert granted(changed, "nvsentinel") != wanted
                tried += 1

    assert tried > 3


def test_no_server_declares_what_is_forbidden() -> None:
    """Secrets, wildcards and ways to more rights are nobody's need."""
    asked = {
        right_of(access) for group in (READS, WRITES) for one in group.values() for access in one
    }

    assert not asked & {right_of(access) for access in FORBIDDEN}
    assert not {right for right in asked if right.resource == "secrets" or "*" in right}
    assert {right for right in asked if right.resource == "nodes"} == {
        Right(verb, "", "nodes", "", "") for verb in ("get", "list", "watch", "patch")
    }
