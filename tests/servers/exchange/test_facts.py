"""What the guard is told: a number with its moment, or why there is none."""

from datetime import timedelta

import pytest

from interlock_guardrails.facts import FactRegistry
from interlock_servers.exchange.facts import ExchangeFacts
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown
from interlock_tools.identity import Target
from tests.servers.exchange.conftest import START, Rig


def need(kind: str, subject: str, max_age_s: float = 60.0) -> FactNeed:
    """A need for a fact of `kind/id`."""
    target_kind, _, target_id = subject.partition("/")
    return FactNeed(kind=kind, subject=Target(kind=target_kind, id=target_id), max_age_s=max_age_s)


@pytest.mark.parametrize("subject", ["site/lab", "feed/feed-a", "pdu/pdu-1", "rack/rack-05"])
async def test_the_power_of_a_meter_is_a_measurement_of_its_own_moment(
    rig: Rig, subject: str
) -> None:
    """The age is that of the reading, not of the question."""
    rig.wait(25)
    fact = await ExchangeFacts(rig.client).fact(need("meter.power", subject))
    assert isinstance(fact, Fact)
    assert fact.value["power_w"] > 10_000
    assert fact.observed_at == START
    assert (fact.origin, fact.nature) == ("exchange", Nature.MEASUREMENT)
    assert fact.version == str(int(START.timestamp() * 1000))


@pytest.mark.parametrize(
    "subject", ["site/elsewhere", "feed/feed-z", "rack/rack-99", "node/node-001", "job/lab"]
)
async def test_what_no_meter_measures_is_unknown(rig: Rig, subject: str) -> None:
    """A subject that does not exist has no power, not zero power."""
    answer = await ExchangeFacts(rig.client).fact(need("meter.power", subject))
    assert isinstance(answer, Unknown)
    assert answer.why


async def test_the_guard_refuses_what_is_older_than_its_need(rig: Rig) -> None:
    """A reading may be fresh for the bus and too old for a change."""
    registry = FactRegistry([ExchangeFacts(rig.client)])
    needs = [need("meter.power", "site/lab", 10), need("bus.bms_alive", "site/lab", 30)]
    gathered = await registry.gather(needs, rig.clock)
    assert (len(gathered.facts), gathered.unknown) == (2, ())
    rig.wait(11)
    gathered = await registry.gather(needs, rig.clock)
    assert [unknown.kind for unknown in gathered.unknown] == ["meter.power"]


async def test_the_meters_of_a_bms_that_gives_no_life_sign_are_unknown(rig: Rig) -> None:
    """A value that did not change and a BMS that died look the same on the bus."""
    rig.wait(31)
    answer = await ExchangeFacts(rig.client).fact(need("meter.power", "site/lab"))
    assert isinstance(answer, Unknown)
    assert "alive" in answer.why


async def test_the_bms_is_alive_dead_or_unknown(rig: Rig) -> None:
    """A dead BMS is known to be dead now; one of another site is not known at all."""
    source = ExchangeFacts(rig.client)
    alive = await source.fact(need("bus.bms_alive", "site/lab"))
    assert isinstance(alive, Fact)
    assert alive.value == {"alive": True, "last_beat_age_s": 0.0}
    rig.wait(100)
    dead = await source.fact(need("bus.bms_alive", "site/lab"))
    assert isinstance(dead, Fact)
    assert dead.value == {"alive": False, "last_beat_age_s": pytest.approx(100)}
    assert dead.observed_at == START + timedelta(seconds=100)
    for subject in ("site/elsewhere", "rack/lab"):
        assert isinstance(await source.fact(need("bus.bms_alive", subject)), Unknown)
    assert isinstance(await source.fact(need("bus.colour", "site/lab")), Unknown)
