"""A settings file with a mistake is an error that says where, and nothing is started."""

import tomllib
from pathlib import Path

import pytest

from interlock_console.settings import load, parse
from interlock_servers.maxlps.node_settings import NodePowerSettings
from interlock_servers.maxlps.settings import MaxlpsSettings
from interlock_tools.errors import InvalidRequestError

GOOD = """
bundle = "supervised"

[site]
site_id = "lab"
gpus = 512
hosts = 64

[exchange]
site_id = "lab"
mqtt = { brokers = ["mqtt://127.0.0.1:1883"], client_id = "interlock-exchange" }
"""


def written(folder: Path, text: str) -> Path:
    """A settings file with this text."""
    path = folder / "interlock.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_good_file_is_read_as_it_stands(tmp_path: Path) -> None:
    """What is left out has the safe default: nothing but reads, on loopback."""
    settings = load(written(tmp_path, GOOD))

    assert settings.site.gpus == 512
    assert settings.http.host == "127.0.0.1"
    assert settings.exchange is not None
    assert settings.maxlps is None


def test_without_a_bundle_a_site_is_only_observed(tmp_path: Path) -> None:
    """Attached to real components, Interlock changes nothing until somebody says so."""
    assert load(written(tmp_path, GOOD.replace('bundle = "supervised"', ""))).bundle == "observe"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("gpus = 512", "gpu = 512"), r"\[site.gpu\]"),
        (("gpus = 512", 'gpus = "many"'), r"\[site.gpus\]"),
        (("[exchange]", "[exhcange]"), r"\[exhcange\]"),
        (("mqtt://127.0.0.1:1883", "127.0.0.1:1883"), "mqtt://"),
        (("client_id =", 'password = "x", client_id ='), r"\[exchange.mqtt.password\]"),
        (("[site]", "[site"), "not TOML"),
        (("gpus = 512", "gpus = -1"), r"\[site.gpus\]"),
    ],
    ids=[
        "typo in key",
        "wrong type",
        "typo in table",
        "bad URL",
        "secret inline",
        "syntax",
        "range",
    ],
)
def test_a_mistake_is_named_with_its_place(
    tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    """File, table and key: the reader need not search."""
    path = written(tmp_path, GOOD.replace(*change))

    with pytest.raises(InvalidRequestError, match=says) as caught:
        load(path)

    assert "interlock.toml" in str(caught.value)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    """No traceback, no default site in its place."""
    with pytest.raises(InvalidRequestError, match="no such settings file"):
        load(tmp_path / "interlock.toml")


def test_a_secret_in_the_file_is_not_repeated_in_the_error(tmp_path: Path) -> None:
    """Errors end in logs."""
    path = written(tmp_path, GOOD.replace("client_id =", 'password = "hunter2", client_id ='))

    with pytest.raises(InvalidRequestError) as caught:
        load(path)

    assert "hunter2" not in str(caught.value)


def test_the_settings_in_the_how_to_are_good() -> None:
    """An example that nobody reads in goes stale."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "attach.md").read_text("utf-8")
    example = page.split("```toml\n")[1].split("```")[0]

    settings = parse(tomllib.loads(example), "attach.md")

    assert settings.bundle == "observe"
    assert settings.exchange is not None
    assert len(settings.exchange.mqtt.brokers) == 2
    assert settings.flex is not None
    assert settings.maxlps is not None


BUDGET = """
[[site.agent_budgets]]
agent_id = "agent:power"
watts_moved_per_hour = 600_000
"""


def test_a_budget_is_of_an_agent_that_may_log_in(tmp_path: Path) -> None:
    """Of a misspelt one it would bind nobody, and nobody would know."""
    agents = '[agents]\npower = "person:power-team"\n'
    settings = load(written(tmp_path, GOOD + agents + BUDGET))
    assert settings.site.agent_budgets[0].watts_moved_per_hour == 600_000

    misspelt = BUDGET.replace("agent:power", "power")
    with pytest.raises(
        InvalidRequestError, match=r"power may not log in; there is: \*, agent:power"
    ):
        load(written(tmp_path, GOOD + agents + misspelt))


def test_the_budgets_in_the_how_to_are_good() -> None:
    """The two parts of a file that belong together, with a site around them."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "authority.md").read_text("utf-8")
    blocks = [block.split("```")[0] for block in page.split("```toml\n")[1:]]
    agents = next(block for block in blocks if "[agents]" in block)
    budgets = next(block for block in blocks if "agent_budgets" in block)

    settings = parse(
        tomllib.loads(agents + GOOD.replace('bundle = "supervised"', "") + budgets), ""
    )

    assert [budget.agent_id for budget in settings.site.agent_budgets] == ["*", "agent:power"]


def test_the_places_for_checkpoints_in_the_how_to_are_good() -> None:
    """The second how-to shows a part of a file; with a site around it, it must parse."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "authority.md").read_text("utf-8")
    example = page.split("```toml\n")[-1].split("```")[0]

    settings = parse(tomllib.loads(GOOD + example), "authority.md")

    assert settings.sinks.git is not None
    assert settings.sinks.mqtt is not None


NODES = """
[maxlps]
site_id = "lab"
safe_w = 490
entities = [
    { name = "lab", kind = "PowerDomain", budget_w = 10_000, children = ["node-001"] },
    { name = "node-001", kind = "ComputerSystem" },
]
agents = { nodes = [{ node_id = "node-001", address = "127.0.0.1:8480", tls = false }] }
"""
READ = """
[devices]
nodes = [{ node_id = "node-001", address = "127.0.0.1:8480", tls = false }]
"""


def test_gpus_are_limited_through_dps_or_through_nodes(tmp_path: Path) -> None:
    """One table, whichever it is."""
    by_nodes = load(written(tmp_path, GOOD + NODES)).for_site()
    assert isinstance(by_nodes.maxlps, NodePowerSettings)
    dps = '[maxlps]\nsite_id = "lab"\naddress = "127.0.0.1:1"\ntls = false\n'
    by_dps = load(written(tmp_path, GOOD + dps + READ)).for_site()
    assert isinstance(by_dps.maxlps, MaxlpsSettings)
    assert by_dps.devices is not None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (NODES.replace("safe_w = 490", 'safe_w = 490\naddress = "127.0.0.1:1"'), "two masters"),
        (NODES + READ, r"leave \[devices\] out"),
        (NODES + '[maxlps.safe_w_by_node]\n"node-01" = 300\n', "no agent of 'node-01'"),
    ],
)
def test_two_masters_and_nodes_that_are_not_there_are_settings_errors(
    tmp_path: Path, text: str, why: str
) -> None:
    """Before anything is connected, in a sentence that says why."""
    with pytest.raises(InvalidRequestError, match=why):
        load(written(tmp_path, GOOD + text))


def test_the_settings_of_a_site_without_dps_in_the_how_to_are_good(tmp_path: Path) -> None:
    """An example that nobody reads in goes stale."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "nodes.md").read_text("utf-8")
    example = page.split("```toml\n")[1].split("```")[0]

    settings = load(written(tmp_path, GOOD + example))

    assert isinstance(settings.maxlps, NodePowerSettings)
    assert settings.maxlps.agents.controller_id == "interlock-hall-1"
