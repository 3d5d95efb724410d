"""A VTN that calls: a reason to ask sooner, and never a word that is believed."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from pydantic import ValidationError

from interlock_servers.flex.openadr.callbacks import LEAST_S, MAX_BYTES, PATH, CallbackSettings
from interlock_servers.flex.openadr.client import OpenAdrClient
from interlock_servers.flex.openadr.settings import OpenAdrSettings, VtnLogin
from interlock_servers.flex.twin_vtn import CLIENT_ID, CLIENT_SECRET, VtnFault, VtnTwin
from interlock_servers.flex.twin_vtn_schema import Version
from interlock_tools.clock import ManualClock
from tests.servers.flex.conftest import PATIENCE_S, START
from tests.servers.flex.test_openadr_events import limit

URL = "https://hall-1.example.com/openadr/callback"
POLL_S = 600.0


class Called:
    """A VTN, a VEN that it may call, and who calls."""

    def __init__(self, vtn: VtnTwin, clock: ManualClock, ven: OpenAdrClient, http: Any) -> None:
        self.vtn = vtn
        self.clock = clock
        self.ven = ven
        self._http = http

    def put(self, watts: float, event_id: str | None = None) -> str:
        """An event that limits the import for an hour."""
        made = {k: v for k, v in limit(watts).items() if k != "id"}
        return self.vtn.put_event(made | {"programID": "program-1"}, event_id)

    async def call(self, said: Any, token: str | None = None) -> int:
        """Call our endpoint, with the token that the VTN was given unless there is another."""
        assert self.ven.callbacks is not None
        if token is None:
            (mine,) = self.vtn.subscriptions
            (told,) = mine["objectOperations"]
            token = told["bearerToken"]
        where = f"http://127.0.0.1:{self.ven.callbacks.port}{PATH}"
        content = {"content": said} if isinstance(said, bytes) else {"json": said}
        bearer = {"Authorization": f"Bearer {token}"}
        answer = await self._http.post(where, headers=bearer, **content)
        return int(answer.status_code)

    def rounds(self) -> int:
        """How often the VEN has asked for events."""
        return sum(1 for one in self.vtn.asked if one == "GET /events")

    def limits(self) -> list[float | None]:
        """What it knows to hold."""
        return [target.limit_w for target in self.ven.targets(self.clock.now())]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait, bounded, while the clock stands."""
        with anyio.fail_after(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 (it happens in a server of another library)
                await anyio.sleep(0.005)

    async def at_rest(self) -> None:
        """Until the VEN waits for its clock again."""
        await self.until(lambda: self.clock.sleepers > 0)


@asynccontextmanager
async def called(
    tmp_path: Path, version: Version = "3.0", *faults: VtnFault
) -> AsyncIterator[Called]:
    """Open it; the VEN has looked once."""
    secret = tmp_path / "secret"
    secret.write_text(CLIENT_SECRET)
    clock = ManualClock(START)
    async with VtnTwin(clock, version).listening() as vtn, httpx2.AsyncClient() as http:
        vtn.add_program("flex")
        vtn.faults.update(faults)
        settings = OpenAdrSettings(
            vtn_url=vtn.url,
            version=version,
            login=VtnLogin(
                token_url=f"{vtn.url}/auth/token",
                client_id=CLIENT_ID,
                client_secret_file=secret,
                scope="read_all write_reports write_subscriptions",
            ),
            programs=("flex",),
            poll_s=POLL_S,
            callback=CallbackSettings(url=URL, port=0),
        )
        async with OpenAdrClient(settings, clock, lambda *_: None) as ven:
            made = Called(vtn, clock, ven, http)
            await made.at_rest()
            yield made


@pytest.mark.parametrize("version", ["3.0", "3.1"])
async def test_a_call_makes_us_ask_long_before_the_next_round(
    tmp_path: Path, version: Version
) -> None:
    """Both sides keep to the standard, in what is subscribed to and in what is said."""
    async with called(tmp_path, version) as grid:
        (mine,) = grid.vtn.subscriptions
        assert mine["objectOperations"][0]["callbackUrl"] == URL
        operation = "POST" if version == "3.0" else "CREATE"
        said = grid.vtn.notification(grid.put(7_000.0), operation)
        assert await grid.call(said) == 200
        await grid.at_rest()
        grid.clock.advance(LEAST_S)
        await grid.until(lambda: grid.limits() == [7_000.0])
        assert grid.vtn.wrong == []


@pytest.mark.trap("FX-O18")
async def test_what_a_call_says_is_not_believed(tmp_path: Path) -> None:
    """It names a limit and the end of another: only what the VTN gives when asked counts."""
    async with called(tmp_path) as grid:
        event = grid.put(7_000.0)
        await grid.ven.look()
        forged = grid.vtn.notification(event, "PUT")
        forged["object"] = forged["object"] | limit(1.0)
        assert await grid.call(forged) == 200
        assert await grid.call({"objectType": "EVENT", "operation": "DELETE", "object": {}}) == 200
        before = grid.rounds()
        grid.clock.advance(LEAST_S)
        await grid.until(lambda: grid.rounds() > before)
        await grid.at_rest()
        assert grid.limits() == [7_000.0]


@pytest.mark.trap("FX-O19")
async def test_the_same_call_again_and_again_costs_one_question(tmp_path: Path) -> None:
    """Whoever recorded one can make us ask, and not more often than once in five seconds."""
    async with called(tmp_path) as grid:
        said = grid.vtn.notification(grid.put(7_000.0), "POST")
        before = grid.rounds()
        for _ in range(20):
            assert await grid.call(said) == 200
        await grid.at_rest()
        grid.clock.advance(LEAST_S)
        await grid.until(lambda: grid.rounds() > before)
        asked = grid.rounds()
        await grid.at_rest()
        grid.clock.advance(LEAST_S)
        await grid.at_rest()
        assert grid.rounds() == asked


@pytest.mark.trap("FX-O18")
@pytest.mark.parametrize(
    ("said", "token", "status", "reason"),
    [
        ({"objectType": "EVENT", "operation": "POST", "object": {}}, "guess", 401, "unknown_token"),
        (b"{", None, 400, "not_json"),
        (b"[]", None, 400, "not_an_object"),
        ({"objectType": "SECRET", "operation": "POST", "object": {}}, None, 400, "no_notification"),
        ({"objectType": "EVENT", "operation": "EXEC", "object": {}}, None, 400, "no_notification"),
        ({"objectType": "EVENT", "operation": "POST"}, None, 400, "no_object"),
        (b" " * (MAX_BYTES + 1), None, 413, "too_large"),
    ],
    ids=lambda value: None if isinstance(value, dict | bytes) else str(value),
)
async def test_who_is_not_the_vtn_or_makes_no_sense_does_not_even_make_us_ask(
    tmp_path: Path, said: Any, token: str | None, status: int, reason: str
) -> None:
    """Counted by reason, and nothing more."""
    async with called(tmp_path) as grid:
        before = grid.rounds()
        assert await grid.call(said, token) == status
        assert grid.ven.callbacks is not None
        assert grid.ven.callbacks.refused == {reason: 1}
        grid.clock.advance(LEAST_S)
        await grid.at_rest()
        assert grid.rounds() == before


@pytest.mark.trap("FX-O20")
async def test_a_vtn_that_will_not_call_is_asked_all_the_same(tmp_path: Path) -> None:
    """Why it does not is told; events come with the next round."""
    async with called(tmp_path, "3.0", VtnFault.NO_SUBSCRIPTIONS) as grid:
        assert "/subscriptions" in str(grid.ven.not_subscribed)
        grid.put(7_000.0)
        grid.clock.advance(POLL_S)
        await grid.until(lambda: grid.limits() == [7_000.0])


async def test_after_a_restart_there_is_one_subscription_with_the_new_token(tmp_path: Path) -> None:
    """The one before it carries a token that nobody knows any more."""
    async with called(tmp_path) as grid:
        (first,) = grid.vtn.subscriptions
        async with OpenAdrClient(grid.ven.settings, grid.clock, lambda *_: None) as again:
            await grid.until(lambda: again.not_subscribed is None)
            (second,) = grid.vtn.subscriptions
        tokens = [one["objectOperations"][0]["bearerToken"] for one in (first, second)]
        assert tokens[0] != tokens[1]


def test_a_callback_needs_the_scope_for_it_and_comes_encrypted() -> None:
    """Said at start and not found out in the first event."""
    wrong: list[dict[str, Any]] = [
        {"callback": {"url": "http://hall-1.example.com/callback"}},
        {
            "callback": {"url": URL},
            "login": {"token_url": "https://vtn.example.com/token", "client_id": "a"},
        },
    ]
    for members in wrong:
        with pytest.raises(ValidationError):
            OpenAdrSettings.model_validate(
                {"vtn_url": "https://vtn.example.com", "programs": ("flex",), **members}
            )
