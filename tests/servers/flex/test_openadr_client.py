"""A VEN against a VTN over HTTP: what it asks, what it keeps unanswered, what it sends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import ValidationError

from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.facts import DEAF_AFTER_S, GRID_LIMIT, FlexFacts
from interlock_servers.flex.models import Reason, RejectedError
from interlock_servers.flex.openadr.client import OpenAdrClient
from interlock_servers.flex.openadr.settings import OpenAdrSettings, VtnLogin
from interlock_servers.flex.recorded import FILE_NAME, recorded_targets
from interlock_servers.flex.settings import FlexSettings
from interlock_servers.flex.signals import GridSignal
from interlock_servers.flex.twin import GridIsvTwin, TwinKey
from interlock_servers.flex.twin_vtn import CLIENT_ID, CLIENT_SECRET, VtnFault, VtnTwin
from interlock_servers.flex.twin_vtn_schema import Version
from interlock_servers.transports.broker import local_broker
from interlock_tools.clock import ManualClock
from interlock_tools.errors import (
    ComponentError,
    ConflictError,
    FactoryError,
    InvalidRequestError,
    UnavailableError,
)
from interlock_tools.fact import Fact, FactNeed, Unknown
from interlock_tools.identity import Target
from tests.servers.flex.conftest import ISV, PATIENCE_S, START, MakeSettings
from tests.servers.flex.test_openadr_events import limit
from tests.servers.flex.test_store import at


class Utility:
    """A VTN with one program, a VEN that is asked to look by hand, and what it refused."""

    def __init__(self, vtn: VtnTwin, clock: ManualClock, secret_file: Path) -> None:
        self.vtn = vtn
        self.clock = clock
        self.program = vtn.add_program("flex")
        self.refused: list[tuple[Reason, str | None]] = []
        self.settings = OpenAdrSettings(
            vtn_url=vtn.url,
            version=vtn.version,
            login=VtnLogin(
                token_url=f"{vtn.url}/auth/token",
                client_id=CLIENT_ID,
                client_secret_file=secret_file,
            ),
            programs=("flex",),
            simple_levels_w={1: 9_000.0},
        )
        self.ven = OpenAdrClient(self.settings, clock, self._refuse)

    def _refuse(
        self, error: RejectedError, where: str, source: str | None, name: str | None, at_: datetime
    ) -> None:
        self.refused.append((error.reason, name))

    def put(self, watts: float, event_id: str | None = None, **members: Any) -> str:
        """An event of this program that limits the import for an hour."""
        made = {k: v for k, v in limit(watts, **members).items() if k != "id"}
        return self.vtn.put_event(made | {"programID": self.program}, event_id)

    def limits(self) -> list[float | None]:
        """What the VEN knows to hold now or later."""
        return [target.limit_w for target in self.ven.targets(self.clock.now())]


@asynccontextmanager
async def utility(tmp_path: Path, version: Version = "3.0") -> AsyncIterator[Utility]:
    """Open it; the VEN has looked as often as it does by itself, which is never."""
    secret = tmp_path / "secret"
    secret.write_text(CLIENT_SECRET)
    clock = ManualClock(START)
    async with VtnTwin(clock, version).listening() as vtn:
        made = Utility(vtn, clock, secret)
        async with made.ven:
            with anyio.fail_after(PATIENCE_S):
                while clock.sleepers == 0:  # its first look, by itself
                    await anyio.lowlevel.checkpoint()
            yield made


@pytest.mark.parametrize("version", ["3.0", "3.1"])
async def test_events_become_targets_and_both_sides_keep_to_the_standard(
    tmp_path: Path, version: Version
) -> None:
    """Made, changed and taken back; every message is held against the OpenAPI by the twin."""
    targets: Any = ["hall"] if version == "3.1" else [{"type": "GROUP", "values": ["hall"]}]
    async with utility(tmp_path, version) as grid:
        grid.put(7_000.0)
        elsewhere = grid.put(1_000.0, targets=targets)
        grid.vtn.put_event(
            {"programID": grid.vtn.add_program("other"), "intervals": limit(2.0)["intervals"]}
        )
        await grid.ven.look()
        assert grid.limits() == [7_000.0]
        grid.put(6_000.0, "event-1")
        grid.vtn.delete_event(elsewhere)
        await grid.ven.look()
        assert grid.limits() == [6_000.0]
        grid.vtn.delete_event("event-1")
        await grid.ven.look()
        assert grid.limits() == []
        assert grid.vtn.wrong == []
        assert grid.refused == []


async def test_it_looks_by_itself_as_often_as_the_settings_say(tmp_path: Path) -> None:
    """By the injected clock."""
    async with utility(tmp_path) as grid:
        grid.put(7_000.0)
        assert grid.limits() == []
        grid.clock.advance(grid.settings.poll_s)
        with anyio.fail_after(PATIENCE_S):
            while not grid.limits():
                await anyio.lowlevel.checkpoint()


@pytest.mark.trap("FX-O12")
@pytest.mark.parametrize("fault", [None, VtnFault.SHORT_PAGES])
async def test_every_page_is_read_also_where_pages_are_short(
    tmp_path: Path, fault: VtnFault | None
) -> None:
    """A page that is not full is not the last: a VTN may give fewer than it was asked for."""
    async with utility(tmp_path) as grid:
        for watts in range(1, 118):
            grid.put(1_000.0 * watts)
        grid.vtn.faults = {fault} if fault else set()
        await _look(grid, pages=fault is None)


async def _look(grid: Utility, *, pages: bool) -> None:
    if pages:
        await grid.ven.look()
        assert len(grid.limits()) == 117
    else:  # fifty-nine pages of two are more than it is patient for, and it says so
        with pytest.raises(ComponentError, match="TOO_MANY"):
            await grid.ven.look()
        for number in range(21, 118):
            grid.vtn.delete_event(f"event-{number}")
        await grid.ven.look()
        assert len(grid.limits()) == 20


async def test_a_vtn_that_gives_the_same_page_again_is_not_asked_for_ever(tmp_path: Path) -> None:
    """Whoever does not know `skip` has only one page."""
    async with utility(tmp_path) as grid:
        grid.put(7_000.0)
        grid.vtn.faults = {VtnFault.IGNORES_SKIP}
        grid.vtn.asked.clear()
        await grid.ven.look()
        assert grid.limits() == [7_000.0]
        assert grid.vtn.asked.count("GET /events") == 2


@pytest.mark.trap("FX-O13")
async def test_an_event_that_a_list_does_not_show_holds_until_its_id_is_unknown(
    tmp_path: Path,
) -> None:
    """Lists are paged while events come and go; only `not found` lifts a limit."""
    async with utility(tmp_path) as grid:
        event_id = grid.put(7_000.0)
        await grid.ven.look()
        grid.vtn.faults = {VtnFault.LOSES_EVENTS}
        await grid.ven.look()
        assert grid.limits() == [7_000.0]
        grid.vtn.delete_event(event_id)
        await grid.ven.look()
        assert grid.limits() == []


@pytest.mark.trap("FX-O14")
async def test_an_update_that_makes_no_sense_lifts_nothing_and_is_told_once(
    tmp_path: Path,
) -> None:
    """What held before still holds; of the update people are told what is wrong with it."""
    async with utility(tmp_path) as grid:
        event_id = grid.put(7_000.0)
        await grid.ven.look()
        grid.put(9_000.0, event_id, payloadDescriptors=None)
        for _ in range(3):
            await grid.ven.look()
        assert grid.limits() == [7_000.0]
        assert grid.refused == [(Reason.UNKNOWN_UNIT, event_id)]
        grid.put(9_000.0, event_id)
        await grid.ven.look()
        assert grid.limits() == [9_000.0]


@pytest.mark.trap("FX-O15")
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (VtnFault.DOWN, UnavailableError),
        (VtnFault.REDIRECTS, ComponentError),
        (VtnFault.NOT_JSON, ComponentError),
    ],
)
async def test_a_vtn_that_does_not_answer_lifts_nothing_and_is_soon_not_known(
    tmp_path: Path, fault: VtnFault, error: type[FactoryError]
) -> None:
    """A redirect is not followed, our token would go with it."""
    async with utility(tmp_path) as grid:
        grid.put(7_000.0)
        await grid.ven.look()
        assert grid.ven.health().why_not is None
        grid.vtn.faults = {fault}
        for _ in range(2):
            with pytest.raises(error):
                await grid.ven.look()
            assert grid.limits() == [7_000.0]
        assert grid.ven.health().why_not is None
        grid.clock.advance(grid.settings.stale_after_s + 1)
        health = grid.ven.health()
        assert health.certain_at == START
        assert "last heard 121 s ago" in (health.why_not or "")
        grid.vtn.faults = set()
        await grid.ven.look()
        assert grid.ven.health().certain_at == grid.clock.now()


async def test_what_did_not_change_is_not_sent_again(tmp_path: Path) -> None:
    """By entity tags, where a VTN gives them."""
    async with utility(tmp_path) as grid:
        grid.put(7_000.0)
        await grid.ven.look()
        before = grid.vtn.not_modified
        await grid.ven.look()
        assert grid.vtn.not_modified == before + 4  # two pages of programs, two of events
        assert grid.limits() == [7_000.0]


async def test_a_token_that_is_refused_is_fetched_anew_and_no_secret_is_told(
    tmp_path: Path,
) -> None:
    """Once; where the issuer gives none, the error says so without it."""
    async with utility(tmp_path) as grid:
        await grid.ven.look()
        grid.vtn.end_tokens()
        await grid.ven.look()
        assert grid.vtn.wrong == []
        grid.vtn.end_tokens()
        grid.vtn.faults = {VtnFault.NO_SUCH_TOKEN}
        with pytest.raises(UnavailableError, match="gives no token") as caught:
            await grid.ven.look()
        assert CLIENT_SECRET not in str(caught.value)
    for url in ("http://vtn.example.com", "https://me:secret@vtn.example.com"):
        with pytest.raises(ValueError, match="URL must"):
            OpenAdrSettings(vtn_url=url, programs=("flex",))
    for levels in ({1: 5.0, 2: 6.0}, {1: 0.0}, {4: 5.0}):
        with pytest.raises(ValueError, match="level"):
            OpenAdrSettings(
                vtn_url="https://vtn.example.com", programs=("flex",), simple_levels_w=levels
            )


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A misspelt program would be silence."""
    async with utility(tmp_path) as grid:
        wrong = OpenAdrClient(
            grid.settings.model_copy(update={"programs": ("felx",)}), grid.clock, grid._refuse
        )
        async with wrong:
            with pytest.raises(FactoryError, match="no program felx"):
                await wrong.look()
            assert "felx" in (wrong.health().why_not or "")


@pytest.mark.trap("FX-O16")
async def test_a_report_is_sent_once(tmp_path: Path) -> None:
    """Whoever sends it again is told that it is there; after silence one looks first."""
    async with utility(tmp_path) as grid:
        event_id = grid.put(7_000.0)
        report = {
            "programID": grid.program,
            "eventID": event_id,
            "clientName": "interlock",
            "reportName": "settlement",
            "resources": [{"resourceName": "lab", "intervals": [{"id": 0, "payloads": []}]}],
        }
        assert await grid.ven.send_report(report) == "report-1"
        with pytest.raises(ConflictError, match="report-1"):
            await grid.ven.send_report(report)
        assert len(grid.vtn.reports) == 1
        with pytest.raises(InvalidRequestError):
            await grid.ven.send_report({"eventID": event_id})
        with pytest.raises(ComponentError, match="400"):
            await grid.ven.send_report({"eventID": event_id, "reportName": "other"})


async def test_the_bus_and_the_vtn_are_one_limit_and_each_is_a_signal(
    tmp_path: Path, settings: MakeSettings, isv_key: TwinKey
) -> None:
    """The stricter of the two counts, and not to know one is not to know the limit."""
    secret = tmp_path / "secret"
    secret.write_text(CLIENT_SECRET)
    clock = ManualClock(START)
    async with local_broker() as broker, VtnTwin(clock).listening() as vtn:
        grid = Utility(vtn, clock, secret)
        ours = settings(broker).model_copy(
            update={"openadr": grid.settings, "needs_snapshot": False}
        )
        client = FlexClient(ours, clock, folder=tmp_path)
        async with client, GridIsvTwin(broker, isv_key, clock) as isv:
            assert client.openadr is not None
            signals: list[GridSignal] = [client, client.openadr]
            await client.wait_connected(PATIENCE_S)
            await isv.set_target(9_000.0)
            grid.put(7_000.0)
            await client.openadr.look()
            with anyio.fail_after(PATIENCE_S):
                await client.wait_until(lambda: client.accepted == 1)
            limit_ = client.site_limit(START)
            assert (limit_.limit_w, limit_.correlation_id) == (7_000.0, "event-1")
            assert client.site_limit(at(61)).limit_w == 9_000.0
            assert [signal.health().why_not for signal in signals] == [None, None]
            vtn.faults = {VtnFault.DOWN}
            clock.advance(grid.settings.stale_after_s + 1)
            assert "OpenADR" in (client.health().why_not or "")
            grid.put(8_000.0, payloadDescriptors=None)
            vtn.faults = set()
            await client.openadr.look()
            assert Reason.UNKNOWN_UNIT in client.rejected()
        written = [target.limit_w for target in recorded_targets(tmp_path / FILE_NAME)]
        assert sorted(watts for watts in written if watts) == [7_000.0, 9_000.0]


async def test_a_utility_speaks_for_the_grid_where_there_is_no_bus(tmp_path: Path) -> None:
    """Limit, fact and certainty are those of its signal, and so is what is not known."""
    secret = tmp_path / "secret"
    secret.write_text(CLIENT_SECRET)
    clock = ManualClock(START)
    async with VtnTwin(clock).listening() as vtn:
        grid = Utility(vtn, clock, secret)
        ours = FlexSettings(site_id="lab", feeds=("main-a",), openadr=grid.settings)
        client = FlexClient(ours, clock, folder=tmp_path)
        assert client.health().why_not is not None
        async with client:
            assert client.openadr is not None
            await client.wait_connected(PATIENCE_S)
            event = grid.put(7_000.0)
            await client.openadr.look()
            health = client.health()
            assert (health.connected, health.certain_at, health.why_not) == (True, START, None)
            need = FactNeed(kind=GRID_LIMIT, subject=Target(kind="site", id="lab"), max_age_s=60.0)
            facts = FlexFacts(client, clock)
            fact = await facts.fact(need)
            assert isinstance(fact, Fact)
            assert (fact.value["limit_w"], fact.value["correlation_id"]) == (7_000.0, event)
            vtn.faults = {VtnFault.DOWN}
            clock.advance(grid.settings.stale_after_s + DEAF_AFTER_S + 1)
            assert isinstance(await facts.fact(need), Unknown)
            assert "OpenADR" in (client.health().why_not or "")


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({}, "nothing speaks for the grid"),
        ({"openadr": True, "trusted": {ISV: ("acme-1",)}}, "trusted: of the bus"),
        ({"openadr": True, "jwks_url": "https://keys.example.com/jwks"}, "jwks_url: of the bus"),
        ({"mqtt": True, "jwks_url": "https://keys.example.com/jwks"}, "trusted names nobody"),
    ],
)
def test_what_speaks_for_the_grid_is_said_whole(members: dict[str, Any], says: str) -> None:
    """Nothing of the bus without the bus, and no bus on which nobody is believed."""
    given: dict[str, Any] = {
        "openadr": {"vtn_url": "https://vtn.example.com", "programs": ("flex",)},
        "mqtt": {"brokers": ("mqtt://127.0.0.1:1883",), "client_id": "interlock-flex"},
    }
    wanted = {name: given[name] if value is True else value for name, value in members.items()}
    with pytest.raises(ValidationError, match=says):
        FlexSettings.model_validate({"site_id": "lab", "feeds": ("main-a",), **wanted})
