"""`interlock settlement`, as an operator meets it after an event."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from interlock_console.settings import load
from interlock_servers.flex.recorded import FILE_NAME, TargetRecord
from interlock_servers.flex.twin_vtn import CLIENT_ID, CLIENT_SECRET, VtnTwin
from interlock_tools.clock import SystemClock
from tests.console.test_cli import interlock
from tests.servers.flex.test_openadr_events import limit
from tests.servers.flex.test_settlement import DAY, EVENT, event, local, steady

SITE = """
data_dir = "{folder}"
[site]
site_id = "lab"
gpus = 512
hosts = 64
[flex]
site_id = "lab"
feeds = ["main-a", "main-b"]
jwks_url = "https://keys.example.com/jwks"
trusted = {{ "//grid/v1/isv/acme-energy" = ["acme-*"] }}
mqtt = {{ brokers = ["mqtt://127.0.0.1:1883"], client_id = "interlock-flex" }}
"""
VTN = """
[flex.openadr]
vtn_url = "{url}"
programs = ["flex"]
simple_levels_w = {{ 1 = 500000.0, 2 = 300000.0 }}
[flex.openadr.login]
token_url = "{url}/auth/token"
client_id = "{client}"
client_secret_file = "{secret}"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with settings, the recorded target of the event and sixty days of a meter."""
    (tmp_path / "interlock.toml").write_text(SITE.format(folder=tmp_path), "utf-8")
    TargetRecord(tmp_path / FILE_NAME).add([event()])
    rows = ["start,mean_kw"]
    for back in range(20, -1, -1):
        for hour in range(24):
            day = DAY - timedelta(days=back)
            if (day, hour) != (DAY, 16):
                rows.append(f"{local(day, hour).isoformat()},{steady(day, hour) / 1e3}")
    (tmp_path / "meter.csv").write_text("\n".join(rows), "utf-8")
    return tmp_path


def settlement(site: Path, *more: str) -> tuple[int, str]:
    """Run it over the folder; settings and meter are those in it."""
    files = ("--config", site / "interlock.toml", "--meter", site / "meter.csv")
    place = ("--zone", "America/New_York", "--out", site / "out")
    return interlock("settlement", *files, *place, *more)


def test_the_report_of_an_event_is_written_with_its_gap_named(site: Path) -> None:
    """CSV, JSON and a picture in which the line of the meter has a hole."""
    status, said = settlement(site, EVENT)

    assert status == 0, said
    assert "reduced by 12.0 kWh, 100.0 % of what was asked" in said
    assert "3 of 4 intervals settled by high-4-of-5, 0 over the target, 1 gaps" in said
    assert "1 intervals are not metered, the first at 2026-11-18T21:00:00+00:00" in said
    assert (site / "out" / "settlement.csv").read_text().splitlines()[3].endswith(",,,gap")
    whole = json.loads((site / "out" / "settlement.json").read_text())
    assert whole["totals"]["complete"] is False
    picture = ElementTree.fromstring((site / "out" / "settlement.svg").read_text())  # noqa: S314 (ours)
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 4  # baseline, target, and the meter before and after its gap


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("never-heard",), "no target of event 'never-heard' was recorded"),
        ((EVENT, "--method", "best"), "there is: high-4-of-5, 10-of-10"),
        ((EVENT, "--zone", "Mars"), "is no time zone"),
        ((EVENT, "--meter", "absent.csv"), "absent.csv cannot be read"),
        ((EVENT, "--targets", "absent.jsonl"), "absent.jsonl cannot be read"),
        ((EVENT, "--until", "noon"), "no moment with a time zone"),
        ((EVENT, "--holiday", "Thanksgiving"), "is no day"),
        ((EVENT, "--send"), "no [flex.openadr]"),
    ],
)
def test_what_is_missing_is_one_sentence(site: Path, words: tuple[str, ...], says: str) -> None:
    """And exit status 2."""
    status, said = settlement(site, *words)

    assert status == 2
    assert says in said
    assert "Traceback" not in said


@contextmanager
def vtn() -> Iterator[VtnTwin]:
    """A VTN in a thread with a loop of its own, as the command has one too."""
    twin, ready, loop = VtnTwin(SystemClock()), threading.Event(), asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve() -> None:
        async with twin.listening():
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    try:
        assert ready.wait(20.0)
        yield twin
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(20.0)
        loop.close()


def test_it_is_sent_to_the_vtn_when_a_person_says_so_and_not_twice(site: Path) -> None:
    """The event is the VTN's own; the second report of the same name is refused."""
    (site / "secret").write_text(CLIENT_SECRET)
    with vtn() as twin:
        made = limit(6_000.0) | {"programID": twin.add_program("flex")}
        twin.put_event(made, EVENT)
        more = VTN.format(url=twin.url, client=CLIENT_ID, secret=site / "secret")
        with (site / "interlock.toml").open("a") as settings:
            settings.write(more)
        status, said = settlement(site, EVENT, "--send")
        assert status == 0, said
        assert "sent as report-1" in said
        status, said = settlement(site, EVENT, "--send")
        assert status == 2
        assert "already" in said
        assert twin.wrong == []
        (report,) = twin.reports
        assert report["resources"][0]["resourceName"] == "lab"


def test_the_settings_of_the_how_to_are_settings(tmp_path: Path) -> None:
    """Whoever copies them starts."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "openadr.md").read_text("utf-8")
    block = page.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "interlock.toml").write_text(SITE.format(folder=tmp_path) + block, "utf-8")
    flex = load(tmp_path / "interlock.toml").flex
    assert flex is not None
    assert flex.openadr is not None
    assert flex.openadr.simple_levels_w == {1: 9e6, 2: 6e6}
    assert flex.ramp is not None
