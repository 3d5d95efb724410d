"""`interlock policy` as an operator meets it, and the report that `make policy` writes."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from interlock_console.policy import app
from interlock_console.settings import load
from interlock_evals.policy_bench import report_of
from interlock_guardrails.ledger.records import RecordKind
from interlock_policies.bench.suite import run_bench
from interlock_policies.bundles import load_bundle
from interlock_policies.decide import decide
from interlock_policies.gate import PolicyGate
from interlock_servers.site import open_authority
from interlock_tools.clock import SystemClock
from interlock_tools.operation import Effect
from tests.policies.bench.records import CHANGE_ID, decided_body
from tests.policies.conftest import OPERATIONS, ordinary

RUNNER = CliRunner()
OBSERVE = Path(__file__).parents[3] / "policies/interlock_policies/bundles/observe/observe.cedar"
CASE = """
promises = ["nothing-is-changed"]
[[case]]
name = "Nothing is changed here."
answer = "refuse"
rules = ["observe-only"]
"""


def policy(*words: str | Path) -> tuple[int, str]:
    """Exit status and everything that was printed, on one line."""
    result = RUNNER.invoke(app, [str(word) for word in words])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site's own policy with its cases."""
    (tmp_path / "own.cedar").write_text(OBSERVE.read_text("utf-8"))
    (tmp_path / "cases.toml").write_text(CASE)
    return tmp_path


def test_a_bundle_of_the_house_passes_and_shows_its_survivor() -> None:
    """Exit status 0, and the one mutant that nothing catches stands there with its reason."""
    status, said = policy("test", "--policy", "observe")
    assert status == 0
    assert "92.9%" in said
    assert "1 (1 explained)" in said
    assert "Equivalent: every action but reading" in said


def test_a_policy_with_a_hole_fails_and_names_it(site: Path) -> None:
    """The site has no case about reading: the rule could be lost, and that is told."""
    status, said = policy("test", "--policy", site)
    assert status == 1
    assert "survived: read-in-scope: the rule is removed" in said
    assert "NOT EXPLAINED" in said


def test_a_case_that_does_not_hold_fails(site: Path) -> None:
    """The sentence, and what was answered instead."""
    (site / "cases.toml").write_text(CASE.replace("refuse", "allow"))
    status, said = policy("test", "--policy", site)
    assert status == 1
    assert "Nothing is changed here. It answered refuse" in said
    assert "not run" in said


@pytest.mark.parametrize(
    ("file", "right", "typo", "says"),
    [
        ("own.cedar", "principal.scopes", "principal.scoops", "own.cedar: read-in-scope: "),
        ("cases.toml", '"observe-only"', '"observe-onyl"', "the nearest is observe-only"),
        ("cases.toml", "answer", "awnser", 'case "Nothing is changed here." awnser'),
    ],
)
def test_a_typo_is_one_sentence_with_its_place(
    site: Path, file: str, right: str, typo: str, says: str
) -> None:
    """Exit status 2: the request cannot work as it stands."""
    path = site / file
    path.write_text(path.read_text("utf-8").replace(right, typo))
    status, said = policy("test", "--policy", site)
    assert status == 2
    assert says in said
    assert file in said


def test_cases_need_a_policy(site: Path) -> None:
    """One file of cases is about one policy."""
    status, said = policy("test", "--cases", site / "cases.toml")
    assert (status, "--cases needs --policy" in said) == (2, True)


def test_the_report_holds_the_four_promises(tmp_path: Path) -> None:
    """A figure that was not measured promises nothing."""
    path = report_of([run_bench("observe")]).write(tmp_path)
    report = json.loads(path.read_text("utf-8"))
    promises = report["promises"]
    assert report["name"] == "policy"
    assert promises["cases"]["value"] == "8/8"
    assert promises["survivors_explained"] == {
        "value": "1/1",
        "limit": "1/1",
        "unit": "",
        "held": True,
        "why_not": None,
    }
    assert promises["exhaustive_combinations"]["held"] is False  # of observe alone: too few
    assert promises["mutation_score"]["value"] == pytest.approx(13 / 14)
    unmeasured = report_of([run_bench("observe", mutate_every=0)]).promises
    assert unmeasured["mutation_score"].held is False
    assert unmeasured["survivors_explained"].why_not == "not every policy was mutated"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings of a site whose ledger holds one decision on a small power cut, and its export."""
    path = tmp_path / "interlock.toml"
    path.write_text(
        f'bundle = "supervised"\ndata_dir = "{tmp_path / "data"}"\n'
        '[site]\nsite_id = "lab"\ngpus = 100\nhosts = 100\n'
    )
    gate = load_bundle("supervised", OPERATIONS)
    body = decided_body(ordinary(), decide(gate, ordinary()))

    async def record() -> None:
        async with open_authority(load(path).for_site(), SystemClock()) as authority:
            await authority.store.write(
                lambda connection: authority.ledger.append(connection, RecordKind.DECIDED, body)
            )
            authority.ledger.checkpoint()
            authority.ledger.export(tmp_path / "ledger.jsonl")

    asyncio.run(record())
    return path


def test_explain_finds_the_decision_in_the_ledger(config: Path) -> None:
    """By the change's id; with the policy that is in force, or another one."""
    status, said = policy("explain", CHANGE_ID, "--config", config)
    assert status == 0
    assert "asked of supervised as it is now" in said
    assert "1 person with the role operator can approve it." in said
    assert (
        "observe-only" in policy("explain", CHANGE_ID, "--config", config, "--policy", "observe")[1]
    )
    status, said = policy("explain", "chg-000000000000", "--config", config)
    assert (status, "holds no decision" in said) == (2, True)


def test_replay_says_what_another_policy_would_have_let_through(config: Path, site: Path) -> None:
    """From an export alone; a site's directory brings its own rules."""
    export = config.parent / "ledger.jsonl"
    status, said = policy("replay", export, "--policy", "autonomous")
    assert status == 0
    assert "1 decisions recorded, 1 asked again of autonomous" in said
    assert "1 looser" in said
    assert "1 stricter" in policy("replay", export, "--policy", site)[1]


def test_replay_refuses_what_is_no_export(tmp_path: Path) -> None:
    """It names the line."""
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"checkpoint": "note"}\n{"leaf": "00"}\n')
    status, said = policy("replay", bad, "--policy", "observe")
    assert status == 2
    assert "line 2 is none of a ledger export" in said
    status, said = policy("replay", tmp_path / "none.jsonl", "--policy", "observe")
    assert (status, "cannot be read" in said) == (2, True)


def test_replay_exits_1_where_the_ledger_contradicts_its_own_policy(
    config: Path, tmp_path: Path
) -> None:
    """A decision that this very policy does not give was not made on what was recorded."""
    export = config.parent / "ledger.jsonl"
    gate: PolicyGate = load_bundle("supervised", {"maxlps.set_cap": Effect.REVERSIBLE})
    lines = []
    for line in export.read_text("utf-8").splitlines():
        entry = json.loads(line)
        if "record" in entry:
            entry["record"]["body"]["decision"] |= {
                "answer": "allow",
                "quorum": None,
                "policy_version": gate.version,
            }
        lines.append(json.dumps(entry))
    forged = tmp_path / "forged.jsonl"
    forged.write_text("\n".join(lines))
    status, said = policy("replay", forged, "--policy", "supervised")
    assert (status, "CONTRADICTION" in said) == (1, True)
