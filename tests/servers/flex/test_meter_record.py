"""The site's own meter for a settlement: what was not heard is a gap; a run ends in a report."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import anyio
import pytest

from interlock_guardrails.facts import FactRegistry
from interlock_servers.flex.meter import meter_data
from interlock_servers.flex.meter_record import FILE_NAME, MeterRecord, recorded_meter
from interlock_tools.clock import ManualClock
from interlock_tools.errors import InvalidRequestError
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown
from tests.console.test_cli import interlock
from tests.servers.sites import FEEDS, START, open_lab

NOON = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
SETTINGS = """
data_dir = "{folder}"
[site]
site_id = "lab"
gpus = 512
hosts = 64
[flex]
site_id = "lab"
feeds = {feeds}
jwks_url = "https://keys.example.com/jwks"
trusted = {{ "//grid/v1/isv/acme-energy" = ["acme-*"] }}
mqtt = {{ brokers = ["mqtt://127.0.0.1:1883"], client_id = "interlock-flex" }}
[flex.settlement]
zone = "UTC"
interval_s = 60
"""


class Meter:
    """A source of the one fact; None while it is silent."""

    kinds = frozenset({"meter.power"})

    def __init__(self, clock: ManualClock) -> None:
        self.watts: float | None = 1000.0
        self._clock = clock

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """What it reads now."""
        if self.watts is None:
            return Unknown(kind=need.kind, subject=need.subject, why="silent")
        return Fact(
            kind=need.kind,
            subject=need.subject,
            value={"power_w": self.watts},
            origin="meter",
            version="1",
            observed_at=self._clock.now(),
            nature=Nature.MEASUREMENT,
        )


class Bench:
    """A meter and what is recorded of it, in minutes."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock(NOON)
        self.meter = Meter(self.clock)
        facts = FactRegistry()
        facts.add(self.meter)
        self.path = path
        self.record = MeterRecord(facts, "lab", self.clock, path, 60.0)

    async def seconds(self, count: int) -> None:
        """Look every five of them."""
        for _ in range(count // 5):
            await self.record.look()
            self.clock.advance(5.0)
        await self.record.look()

    def known(self) -> dict[int, float]:
        """The means by the minute after noon."""
        data = meter_data(recorded_meter(self.path), "record")
        return {int((at - NOON).total_seconds() // 60): watts for at, watts in data.mean_w.items()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A meter that reads 1 kW from noon on."""
    return Bench(tmp_path / FILE_NAME)


async def test_an_interval_is_the_mean_of_what_was_metered_in_it(bench: Bench) -> None:
    """Each reading for as long as it was the last one."""
    await bench.seconds(30)
    bench.meter.watts = 3000.0
    await bench.seconds(90)
    assert bench.known() == {0: pytest.approx(2000.0), 1: pytest.approx(3000.0)}


@pytest.mark.trap("FX-B07")
async def test_an_interval_that_was_not_heard_whole_is_a_gap(bench: Bench) -> None:
    """Neither the last value nor nothing stands in for it."""
    await bench.seconds(60)
    bench.meter.watts = None
    await bench.seconds(10)
    bench.meter.watts = 1000.0
    await bench.seconds(170)
    assert sorted(bench.known()) == [0, 2, 3]


async def test_a_start_in_the_middle_makes_no_interval_of_half_of_it(bench: Bench) -> None:
    """As after every restart."""
    bench.clock.advance(20.0)
    await bench.seconds(160)
    assert sorted(bench.known()) == [1, 2]


async def test_a_line_that_was_cut_off_is_left_out(bench: Bench) -> None:
    """And a file that is not there is named, with what to do."""
    await bench.seconds(120)
    with bench.path.open("a") as out:
        out.write("2026-11-01T12:0")
    assert sorted(bench.known()) == [0, 1]
    bench.path.unlink()
    with pytest.raises(InvalidRequestError, match=r"\[flex.settlement\], or give --meter"):
        bench.known()


async def test_a_site_settles_its_last_event_from_what_it_has_recorded_itself(
    tmp_path: Path,
) -> None:
    """One command, without a CSV: CSV, JSON and picture, and it says whose meter it was."""
    async with open_lab(tmp_path) as lab:
        data_dir = lab.site.settings.data_dir
        record = MeterRecord(lab.site.guard.facts, "lab", lab.clock, data_dir / FILE_NAME, 60.0)
        start = START + timedelta(seconds=60)
        name = await lab.grid.set_target(300_000.0, start=start, end=start + timedelta(seconds=120))
        await lab.until("flex", "grid_limit", lambda grid: grid.get("next") is not None)
        for _ in range(190):
            await lab.second()
            await record.look()
    (data_dir / "interlock.toml").write_text(
        SETTINGS.format(folder=data_dir, feeds=json.dumps(list(FEEDS)))
    )
    words = ("--config", data_dir / "interlock.toml", "--out", tmp_path / "out")
    status, said = await anyio.to_thread.run_sync(partial(interlock, "settlement", *words))
    assert status == 0, said
    whole = json.loads((tmp_path / "out" / "settlement.json").read_text())
    assert whole["event_id"] == name
    assert whole["totals"]["intervals"] == 2
    assert whole["totals"]["intervals_over_target"] == 2  # nobody lowered anything
    assert whole["totals"]["reduced_kwh"] is None  # one morning is no baseline, and it says so
    assert any("baseline: 0 of 5 days" in remark for remark in whole["remarks"])
    assert any("by this site's own bus" in remark for remark in whole["remarks"])
    assert (tmp_path / "out" / "settlement.svg").exists()
