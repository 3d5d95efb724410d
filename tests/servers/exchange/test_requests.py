"""Which points are ours to write, and what stands: without a broker, from words and rows."""

import json
import re
import tomllib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from interlock_guardrails import changes
from interlock_servers.exchange.intents import WITHDRAWN_FOR, Intents, standing
from interlock_servers.exchange.models import parse_value
from interlock_servers.exchange.operations import DOES
from interlock_servers.exchange.outcomes import Outcome, Setpoint, of_setpoint, of_state
from interlock_servers.exchange.request_facts import RequestFacts
from interlock_servers.exchange.requests import (
    CDU_SUPPLY,
    Asked,
    Namespace,
    value_payload,
    value_topic,
)
from interlock_servers.exchange.settings import ExchangeSettings, RequestSettings
from interlock_tools.change import Change, ChangeState, Step
from interlock_tools.errors import UnavailableError
from interlock_tools.fact import FactNeed, Unknown
from interlock_tools.identity import Principal, PrincipalKind, Target
from interlock_tools.operation import Effect
from tests.servers.exchange.asking import ACME, empty_store, may_ask
from tests.servers.exchange.hall import Hall

START = datetime.fromisoformat("2026-09-01T00:00:00+00:00")
REQUEST = "CDU/LiquidTemperatureSpRequest/a/b/cdu5"
NAMED: dict[str, Any] = {
    "objectName": "CDU 5",
    "objectId": "cdu-5",
    "processArea": ["Secondary", "Supply"],
}
S = ChangeState


def hall_with(**fields: Any) -> tuple[Hall, Namespace]:
    """A BMS that describes one setpoint request."""
    hall = Hall()
    hall.beat()
    hall.describe(REQUEST, **(NAMED | {"integration": ACME} | fields))
    return hall, Namespace(hall.client, ACME)


# On which topic


@pytest.mark.trap("EX-W01")
@pytest.mark.parametrize("prefix", ["", "cpc/west-1/"])
def test_the_topic_is_that_of_the_metadata_with_two_segments_changed(prefix: str) -> None:
    """A cluster's prefix stays, and a tag path may contain whatever it likes."""
    tail = "CDU/LiquidTemperatureSpRequest/BMS/v1/PUB/Metadata/x"
    topic = value_topic(f"{prefix}BMS/v1/PUB/Metadata/{tail}", ACME)
    assert topic == f"{prefix}BMS/v1/ACME/Value/{tail}"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "BMS/v1/PUB/Value/CDU/LiquidTemperatureSpRequest/x",
        "BMS/v1/OTHER/Metadata/CDU/LiquidTemperatureSpRequest/x",
        "BMS/v1/PUB/Metadata/",
        "elsewhere/BMS/v1/PUB/Metadata/CDU/LiquidTemperatureSpRequest/x",
    ],
)
def test_what_is_no_metadata_of_the_bms_gives_no_topic(wrong: str) -> None:
    """There is no other way to one."""
    with pytest.raises(UnavailableError, match="no topic"):
        value_topic(wrong, ACME)


@pytest.mark.trap("EX-W08")
@pytest.mark.parametrize("whose", ["MEPAI", None, "acme"])
def test_what_names_another_or_nobody_is_not_ours_to_write(whose: str | None) -> None:
    """Ids are exact: the ACL of the bus would stop us, or would not."""
    hall, namespace = hall_with(integration=whose) if whose else (Hall(), None)
    if namespace is None:
        hall.describe(REQUEST, **NAMED)
        namespace = Namespace(hall.client, ACME)
    with pytest.raises(UnavailableError, match="not by ACME"):
        namespace.writable(Asked.SUPPLY, "cdu-5")
    assert namespace.mine() == []


@pytest.mark.trap("EX-W09")
def test_metadata_that_a_broker_only_kept_opens_nothing_and_old_words_neither() -> None:
    """It may be of another time; what is right comes again within 100 s."""
    live, _ = hall_with()
    topic, payload = f"BMS/v1/PUB/Metadata/{REQUEST}", live.store.retained(lambda _: True, 9)
    hall = Hall()
    kept = next(one for one in payload if one.topic == topic)
    hall.hear(topic, kept.payload, retained=True)
    namespace = Namespace(hall.client, ACME)
    with pytest.raises(UnavailableError, match="kept"):
        namespace.writable(Asked.SUPPLY, "cdu-5")
    hall.hear(topic, kept.payload)
    assert namespace.writable(Asked.SUPPLY, "cdu-5").topic.startswith("BMS/v1/ACME/Value/CDU/")
    hall.clock.advance(251)
    with pytest.raises(UnavailableError, match="251 s ago"):
        namespace.writable(Asked.SUPPLY, "cdu-5")


@pytest.mark.trap("EX-W10")
def test_where_two_points_could_be_meant_none_is() -> None:
    """One CDU under two clusters, or twice in one: a guess would heat the other one's racks."""
    hall, namespace = hall_with()
    hall.describe("CDU/LiquidTemperatureSpRequest/z", **NAMED, integration=ACME)
    with pytest.raises(UnavailableError, match="2 points could be meant"):
        namespace.writable(Asked.SUPPLY, "cdu-5")
    with pytest.raises(UnavailableError, match="no metadata"):
        namespace.writable(Asked.SUPPLY, "cdu-6")


@pytest.mark.trap("EX-W11")
def test_a_misspelt_heartbeat_is_none_and_generic_points_are_never_written() -> None:
    """What a generic point does only a project knows; tray sensors would mislead others."""
    hall, namespace = hall_with()
    system = {"objectName": ACME, "objectId": ACME, "integration": ACME}
    hall.describe("System/HearbeatTimestampIntegration/x", **system)
    with pytest.raises(UnavailableError, match="our heartbeat"):
        namespace.beat()
    hall.describe("System/HeartbeatTimestampIntegration/x", **system)
    assert namespace.beat().topic == "BMS/v1/ACME/Value/System/HeartbeatTimestampIntegration/x"
    assert namespace.echo() is None
    never = {"GenericPoint", "RackLeakDetectTray", "RackLiquidDifferentialPressureSp"}
    assert never.isdisjoint(Asked)
    assert {does.asked for does in DOES.values()} <= {*Asked, None}


def test_states_that_contradict_the_specification_are_not_written() -> None:
    """1 would ask for nothing, and 0 for isolation."""
    hall = Hall()
    texts = ("IsolationRequested", "NoIsolationRequested")
    swapped = [{"value": n, "text": text} for n, text in enumerate(texts)]
    rack = {"rackLocationId": "r1", "rackLocationName": "R1", "integration": ACME}
    hall.describe("Rack/RackLiquidIsolationRequest/x", **rack, stateText=swapped)
    with pytest.raises(UnavailableError, match="swaps"):
        Namespace(hall.client, ACME).writable(Asked.LIQUID, "r1")


@pytest.mark.trap("EX-W12")
async def test_a_setpoint_is_verified_by_the_one_target_of_its_own_process_area() -> None:
    """The return's target, or the measured supply, would show something else."""
    hall, namespace = hall_with()
    facts = RequestFacts(hall.client, namespace, may_ask("mqtt://127.0.0.1:1"))
    need = FactNeed(kind=CDU_SUPPLY, subject=Target(kind="cdu", id="cdu-5"), max_age_s=250)
    hall.describe("CDU/LiquidTemperature/measured", **NAMED)
    hall.say("CDU/LiquidTemperature/measured", 27.0)
    area = {"processArea": ["Secondary", "Return"]}
    hall.describe("CDU/LiquidTemperature/back", **(NAMED | area), isSetpoint=True)
    hall.say("CDU/LiquidTemperature/back", 35.0)
    none = await facts.fact(need)
    assert isinstance(none, Unknown)
    assert "0 points" in none.why
    hall.describe("CDU/LiquidTemperature/target", **NAMED, isSetpoint=True)
    hall.say("CDU/LiquidTemperature/target", 25.0)
    known = await facts.fact(need)
    assert not isinstance(known, Unknown)
    assert (known.value["target_c"], known.value["measured_c"]) == (25.0, 27.0)
    hall.describe("CDU/LiquidTemperature/another", **NAMED, isSetpoint=True)
    two = await facts.fact(need)
    assert isinstance(two, Unknown)
    assert "2 points" in two.why


async def test_while_the_bms_may_be_dead_nothing_is_known_of_any_request() -> None:
    """Metadata of a BMS that died is fresh for a while."""
    hall, namespace = hall_with()
    facts = RequestFacts(hall.client, namespace, may_ask("mqtt://127.0.0.1:1"))
    need = FactNeed(kind="request.supply", subject=Target(kind="cdu", id="cdu-5"), max_age_s=250)
    assert not isinstance(await facts.fact(need), Unknown)
    hall.clock.advance(31)
    dead = await facts.fact(need)
    assert isinstance(dead, Unknown)
    assert "not known to be alive" in dead.why


@pytest.mark.parametrize("integration", ["PUB", "pub", "a/b", "a+", "#", "a b", ""])
def test_an_id_that_could_speak_for_the_bms_or_for_all_is_refused(integration: str) -> None:
    """It becomes a segment of a topic."""
    said = may_ask("mqtt://127.0.0.1:1").model_dump() | {"integration": integration}
    with pytest.raises(ValidationError):
        RequestSettings.model_validate(said)


@given(value=st.floats(-100, 100), seconds=st.integers(0, 10**9))
def test_every_value_is_one_that_we_would_read_ourselves(value: float, seconds: int) -> None:
    """Strict in writing: what we send departs from nothing."""
    moment = datetime.fromtimestamp(10**9 + seconds, START.tzinfo)
    read = parse_value(value_payload(value, moment))
    assert read.value == pytest.approx(value)
    assert (read.quality, read.deviations) == (1, ())
    assert read.timestamp_ms == (10**9 + seconds) * 1000


# What became of it


@given(
    asked=st.floats(20, 40),
    before=st.none() | st.floats(20, 40),
    now=st.none() | st.floats(20, 40),
    publications=st.integers(1, 5),
)
def test_only_a_target_that_is_the_request_counts_as_applied(
    asked: float, before: float | None, now: float | None, publications: int
) -> None:
    """And of nothing fresh nothing is claimed."""
    found = of_setpoint(Setpoint(asked, before, now, 25.0, publications))
    assert (found is Outcome.APPLIED) == (now is not None and abs(now - asked) <= 0.05)
    assert (found is Outcome.UNKNOWN) == (now is None)
    if found is Outcome.IGNORED:
        assert publications >= 3


@pytest.mark.parametrize(
    ("asked", "now", "publications", "becomes"),
    [(1, 1, 1, "applied"), (1, 0, 1, "pending"), (1, 0, 3, "ignored"), (0, None, 9, "unknown")],
)
def test_a_state_is_there_or_not(
    asked: float, now: float | None, publications: int, becomes: str
) -> None:
    """It cannot be clamped."""
    assert of_state(asked, now, publications) == becomes


# What stands


def change(number: int, operation: str, state: ChangeState, began_s: float, **more: Any) -> Change:
    """A change that began so many seconds after the start."""
    arguments = more.pop("arguments", {"cdu_id": "cdu-1"})
    at = START + timedelta(seconds=began_s)
    steps = [Step(S.AUTHORISED, at, "approved")]
    if state is not S.AUTHORISED:
        steps += [Step(S.EXECUTING, at, "begun"), Step(state, at + timedelta(seconds=5), "on")]
    asker = Principal(id="agent:x", kind=PrincipalKind.AGENT, authenticated_by="test")
    return Change(
        change_id=f"chg-{number:012x}",
        operation=f"exchange.{operation}",
        effect=Effect.REVERSIBLE,
        arguments=arguments,
        target=Target(kind="cdu", id="cdu-1"),
        requester=asker,
        reason="a test",
        dry_run=False,
        state=state,
        action_digest="0" * 64,
        created_at=START,
        expires_at=START + timedelta(days=9),
        history=tuple(steps),
        **more,
    )


def request(number: int, began_s: float, supply_c: float, state: ChangeState = S.SUCCEEDED) -> Any:
    """A setpoint request that lasts an hour."""
    arguments = {"cdu_id": "cdu-1", "supply_c": supply_c, "expires_in_s": 3600.0}
    return change(number, "request_supply_temperature", state, began_s, arguments=arguments)


def withdrawal(number: int, began_s: float, state: ChangeState = S.SUCCEEDED, **more: Any) -> Any:
    """What takes it back."""
    return change(number, "withdraw_supply_temperature", state, began_s, **more)


def value_of(found: list[Any], at_s: float) -> Any:
    """What is asked of cdu-1 at this moment: a number, None for the safe one, or nothing."""
    now = START + timedelta(seconds=at_s)
    intent = standing(found, DOES, now).get((Asked.SUPPLY, "cdu-1"))
    return "nothing" if intent is None else intent.value


@pytest.mark.parametrize(
    ("state", "stands"),
    [
        (S.EXECUTING, "nothing"),
        (S.UNKNOWN, "nothing"),
        (S.VERIFYING, 28.0),
        (S.SUCCEEDED, 28.0),
        (S.FAILED, "nothing"),
        (S.STUCK, "nothing"),
        (S.COMPENSATING, None),
        (S.COMPENSATED, None),
    ],
)
def test_a_request_stands_while_it_is_verified_and_once_it_succeeded(
    state: ChangeState, stands: Any
) -> None:
    """Of one whose act was lost nobody says it again; one that failed is taken back."""
    assert value_of([request(1, 0, 28.0, state)], 20) == stands


def test_the_last_that_began_decides_and_a_withdrawal_is_said_for_some_minutes() -> None:
    """Whatever becomes of a withdrawal, the request before it does not come back."""
    first, second = request(1, 0, 28.0), request(2, 100, 29.0)
    assert value_of([second, first], 120) == 29.0
    for state in (S.EXECUTING, S.VERIFYING, S.SUCCEEDED, S.FAILED, S.STUCK):
        found = [first, second, withdrawal(3, 200, state)]
        assert value_of(found, 210) is None
        assert value_of(found, 200 + WITHDRAWN_FOR.total_seconds() + 1) == "nothing"


@pytest.mark.trap("EX-W13")
def test_the_end_of_a_request_does_not_end_the_one_that_came_after_it() -> None:
    """Its expiry is due while another is in force: that one stays."""
    first, second = request(1, 0, 28.0), request(2, 100, 29.0)
    due = START + timedelta(seconds=3600)
    old = withdrawal(3, 3600, parent_id=first.change_id, not_before=due)
    own = withdrawal(4, 3700, parent_id=second.change_id, not_before=due)
    assert value_of([first, second, old], 3650) == 29.0
    assert value_of([first, second, old, own], 3750) is None


async def test_what_stands_is_read_from_the_store_and_from_nowhere_else(tmp_path: Path) -> None:
    """Another process finds the same; what moves meanwhile is seen."""
    engine, store = empty_store(tmp_path)
    try:
        moving = request(1, 0, 28.0, S.VERIFYING)
        await store.write(lambda c: changes.insert(c, moving))
        one, other = Intents(store, DOES), Intents(store, DOES)
        now = START + timedelta(seconds=30)
        assert (await one.standing(now)) == (await other.standing(now))
        assert (await one.standing(now))[Asked.SUPPLY, "cdu-1"].ends_at is None
        await store.write(
            lambda c: changes.move(
                c, moving.change_id, S.SUCCEEDED, at=now, why="shown", came_from=S.VERIFYING
            )
        )
        for reader in (one, other):
            found = (await reader.standing(now))[Asked.SUPPLY, "cdu-1"]
            assert found.ends_at == now + timedelta(seconds=3600)
        await store.write(lambda c: changes.insert(c, withdrawal(2, 60, S.EXECUTING)))
        for reader in (one, other):
            assert (await reader.standing(now + timedelta(seconds=60)))[
                Asked.SUPPLY, "cdu-1"
            ].value is None
    finally:
        engine.dispose()


# What the pages show


def test_the_settings_on_the_pages_are_settings() -> None:
    """A table that does not parse would be copied all the same."""
    root = Path(__file__).parents[3]
    pages = (
        root / "docs/how-to/exchange.md",
        root / "servers/interlock_servers/exchange/README.md",
    )
    bus = {"mqtt": {"brokers": ["mqtt://127.0.0.1:1"], "client_id": "x"}, "site_id": "x"}
    shown = 0
    for page in pages:
        for block in re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            said = tomllib.loads(block)["exchange"]
            ExchangeSettings.model_validate(json.loads(json.dumps(bus | said)))
            shown += 1
    assert shown == 4
