"""What refuses to start: a bundle with a fault says where it is, and nothing is served."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from interlock_policies.bundles import bundle_texts, load_bundle
from interlock_policies.gate import PolicyGate
from interlock_policies.rules import BundleError
from interlock_tools.operation import Effect

Operations = Mapping[str, Effect]

ABOUT = '@reason("Why.") @runbook("none")'
FREEZE = f"""
@id("freeze") {ABOUT} @canary("frozen = true")
forbid (principal, action in Action::"mutate", resource) when {{ context.frozen }};
"""


def test_a_bundle_of_a_site_is_loaded_from_its_directory(
    tmp_path: Path, operations: Operations
) -> None:
    """Only its `.cedar` files, in the order of their names."""
    (tmp_path / "b.cedar").write_text(FREEZE.replace('"freeze"', '"second"'))
    (tmp_path / "a.cedar").write_text(bundle_texts("observe")["observe/observe.cedar"])
    (tmp_path / "notes.txt").write_text("not a policy")
    with pytest.raises(BundleError, match=r"b\.cedar: second .* not alone"):
        load_bundle(tmp_path, operations)  # observe-only stops everything: the second never decides
    (tmp_path / "b.cedar").unlink()
    gate = load_bundle(str(tmp_path), operations)
    assert [rule.rule_id for rule in gate.rules] == ["read-in-scope", "observe-only"]


def test_the_version_names_the_rules_and_the_operations(operations: Operations) -> None:
    """Same texts, same version; one character or one operation more, another."""
    version = PolicyGate({"a.cedar": FREEZE}, operations).version
    assert PolicyGate({"a.cedar": FREEZE}, operations).version == version
    assert PolicyGate({"a.cedar": FREEZE + " "}, operations).version != version
    assert PolicyGate({"a.cedar": FREEZE}, {**operations, "kai.x": Effect.READ}).version != version


@pytest.mark.parametrize(
    ("right", "typo", "message"),
    [
        ("context.frozen", "context.frozzen", r"site\.cedar: freeze: .*`frozzen`"),
        ('Action::"mutate"', 'Action::"mutates"', r'site\.cedar: freeze: .*Action::"mutates"'),
        ("forbid (", "forbidd (", r"site\.cedar: freeze: .*forbidd"),
        ("{ context.frozen }", "{ context.frozen", r"site\.cedar: freeze: unexpected token"),
        ("context.frozen }", 'context.frozen == "yes" }', r"site\.cedar: freeze: "),
    ],
)
def test_a_typo_in_a_rule_refuses_to_start_and_says_where(
    operations: Operations, right: str, typo: str, message: str
) -> None:
    """File, rule and the engine's own words; a rule that reads nothing would forbid nothing."""
    text = 'permit (principal, action, resource) when { context.site == "x" };'
    first = f'@id("first") {ABOUT}\n{text}\n'
    with pytest.raises(BundleError, match=message):
        PolicyGate({"site.cedar": first + FREEZE.replace(right, typo)}, operations)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FREEZE.replace('@id("freeze")', ""), "a rule without @id: @id is missing"),
        (FREEZE.replace('@reason("Why.")', '@reason(" ")'), "freeze: @reason is missing"),
        (FREEZE.replace('@runbook("none")', ""), "freeze: @runbook is missing"),
        (FREEZE + FREEZE, "freeze already stands in a.cedar"),
        (FREEZE.replace('@canary("frozen = true")', ""), "freeze: a forbid needs @canary"),
        (FREEZE.replace("frozen = true", "frozen ="), "freeze: @canary cannot be read"),
        (FREEZE.replace("frozen = true", "frosen = true"), "freeze: @canary is no situation"),
        (FREEZE.replace("@canary", '@quorum("1") @role("x") @canary'), "takes no @quorum"),
        (FREEZE.replace("frozen }", "frozen && !context.quorum_voted }"), "reads no quorum_voted"),
        (FREEZE.replace("(principal,", "(principal == ?principal,"), "templates are not used"),
        ("// nothing", "holds no rule"),
    ],
)
def test_a_rule_that_cannot_explain_or_prove_itself_refuses_to_start(
    operations: Operations, text: str, message: str
) -> None:
    """Every rule has an id, a reason and a runbook; every forbid has its canary."""
    with pytest.raises(BundleError, match=message):
        PolicyGate({"a.cedar": text}, operations)


@pytest.mark.parametrize(
    "never",
    [
        FREEZE.replace("frozen = true", "frozen = false"),
        FREEZE.replace("context.frozen }", "context.frozen && context.changes_last_hour < 0 }"),
        FREEZE.replace("mutate", "irreversible"),
        FREEZE.replace("(principal,", "(principal is Person,"),
        FREEZE.replace("frozen = true", "frozen = true, operation = 'nico.forgotten'"),
    ],
)
def test_a_forbid_that_does_not_stop_its_canary_refuses_to_start(
    operations: Operations, never: str
) -> None:
    """A rule that validates and never fires looks like safety; the error names it."""
    with pytest.raises(BundleError, match=r"a\.cedar: freeze does not stop its canary"):
        PolicyGate({"a.cedar": never}, operations)


def test_a_canary_may_name_an_operation_of_the_site(operations: Operations) -> None:
    """A rule about one operation proves itself on that operation."""
    text = FREEZE.replace('in Action::"mutate"', '== Action::"nico.reboot_machine"')
    text = text.replace("frozen = true", "frozen = true, operation = 'nico.reboot_machine'")
    assert PolicyGate({"a.cedar": text}, operations).rules[0].rule_id == "freeze"


@pytest.mark.parametrize(
    ("annotations", "when"),
    [
        ('@quorum("1") @role("operator")', "context.frozen"),
        ("", "context.quorum_voted"),
        ('@quorum("1")', "context.quorum_voted"),
        ('@role("operator")', "context.quorum_voted"),
        ('@quorum("0") @role("operator")', "context.quorum_voted"),
        ('@quorum("6") @role("operator")', "context.quorum_voted"),
        ('@quorum("two") @role("operator")', "context.quorum_voted"),
        ('@quorum("2") @role("operator") @typed_target("yes")', "context.quorum_voted"),
    ],
)
def test_a_permit_that_is_unclear_about_its_people_refuses_to_start(
    operations: Operations, annotations: str, when: str
) -> None:
    """Asking for votes in the text and saying how many belong together."""
    rule = f"permit (principal, action, resource) when {{ {when} }};"
    with pytest.raises(BundleError, match=r"a\.cedar: open: "):
        PolicyGate({"a.cedar": f'@id("open") {ABOUT} {annotations}\n{rule}'}, operations)


@pytest.mark.parametrize(
    "name", ["reboot", 'a.b" in ["read"', "canary.reversible", "Nico.reboot", "nico.", "a.b\n"]
)
def test_an_operation_whose_name_the_schema_could_misread_is_not_registered(name: str) -> None:
    """The name becomes text of the schema, so it can be nothing but a name."""
    with pytest.raises(BundleError, match="cannot be registered"):
        load_bundle("observe", {name: Effect.READ})


def test_a_bundle_that_is_not_there_or_not_text_refuses_to_start(
    tmp_path: Path, operations: Operations
) -> None:
    """No directory, no policy in it, or bytes that are no text."""
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle("no-such-bundle", operations)
    with pytest.raises(BundleError, match=r"no \.cedar file"):
        load_bundle(tmp_path, operations)
    (tmp_path / "a.cedar").write_bytes(b"\xff\xfe")
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(tmp_path, operations)


def test_every_bundle_starts_before_any_operation_is_registered() -> None:
    """The canaries need no component, so an empty site can be served too."""
    for name in ("observe", "supervised", "autonomous"):
        assert load_bundle(name, {}).operations == {}
