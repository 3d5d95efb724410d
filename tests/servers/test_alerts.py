"""Alerts against a small Alertmanager that keeps what it is sent."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from interlock_servers.alerts import SEND_EVERY_S, Alerts, AlertSettings
from interlock_servers.maxlps.holding import Note
from interlock_tools.change import ChangeState
from tests.guardrails.conftest import House, house_in, person
from tests.servers.waiting import until

OPERATOR = person("person:operator-1", "operator")
BREAKER = person("person:on-call-1", "break_glass")


class Alertmanager:
    """`POST /api/v2/alerts` as the OpenAPI of Alertmanager has it; it can be told to be away."""

    def __init__(self) -> None:
        self.posts: list[list[dict[str, Any]]] = []
        self.bearers: list[str | None] = []
        self.broken = False
        self.asked = 0
        self.port = 0

    async def take(self, request: Request) -> Response:
        """Keep the alerts."""
        self.bearers.append(request.headers.get("authorization"))
        body = await request.json()
        if not self.broken:
            self.posts.append(body)
        self.asked += 1
        return Response(status_code=503 if self.broken else 200)

    def names(self) -> set[str]:
        """What the last post alerts of."""
        return {alert["labels"]["alertname"] for alert in self.posts[-1]}


@asynccontextmanager
async def alertmanager() -> AsyncIterator[Alertmanager]:
    """One that listens on loopback."""
    kept = Alertmanager()
    app = Starlette(routes=[Route("/api/v2/alerts", kept.take, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        await until(lambda: server.started)
        kept.port = server.servers[0].sockets[0].getsockname()[1]
        yield kept
        server.should_exit = True


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house on a store of its own."""
    with house_in(tmp_path) as built:
        yield built


@asynccontextmanager
async def alerting(house: House) -> AsyncIterator[Alertmanager]:
    """The house's guard pages by alerts, and a worker works."""
    async with alertmanager() as kept, anyio.create_task_group() as tasks:
        house.guard.pager = alerts = alerts_of(house, kept.port)
        tasks.start_soon(alerts.run)
        async with house.working():
            yield kept
        tasks.cancel_scope.cancel()


def alerts_of(house: House, port: int = 9093) -> Alerts:
    """What would be sent to an Alertmanager at this port."""
    return Alerts(
        AlertSettings(
            alertmanager_url=AnyHttpUrl(f"http://127.0.0.1:{port}"), bearer_env="ALERT_TOKEN"
        ),
        site_id="lab",
        store=house.guard.store,
        break_glass=house.break_glass,
        clock=house.clock,
    )


async def test_a_stuck_change_alerts_at_once_and_until_a_person_cleared_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says is enough to find the change; it comes again each minute, by the same labels."""
    monkeypatch.setenv("ALERT_TOKEN", "s3cret")
    async with alerting(house) as kept:
        house.valve.mishap = "mute"
        change = await house.propose(50)
        await house.approve(change, OPERATOR)
        ended = await house.end_of(change)
        assert ended.state is ChangeState.STUCK
        await until(lambda: kept.posts)
        (alert,) = kept.posts[-1]
        house.clock.advance(SEND_EVERY_S)
        await until(lambda: len(kept.posts) > 1)
        (again,) = kept.posts[-1]

    assert alert["labels"] == {
        "alertname": "InterlockChangeStuck",
        "severity": "critical",
        "site": "lab",
        "change_id": change.change_id,
        "operation": "valve.move_valve",
        "target": "valve/valve-1",
    }
    assert "a person must look" in alert["annotations"]["description"]
    assert again["labels"] == alert["labels"]
    assert again["endsAt"] > alert["endsAt"]
    assert kept.bearers[-1] == "Bearer s3cret"


async def test_a_node_that_lost_its_cap_alerts_by_its_name(house: House) -> None:
    """Whoever counted on the limit must know, also when no change is open any more."""
    lost = Note("node-007", house.clock.now(), "a cap is no longer held")
    alerts = Alerts(
        AlertSettings(alertmanager_url=AnyHttpUrl("http://127.0.0.1:9093")),
        site_id="lab",
        store=house.guard.store,
        break_glass=house.break_glass,
        clock=house.clock,
        nodes=lambda: [lost],
    )
    (alert,) = await alerts.open()
    assert alert["labels"]["alertname"] == "InterlockCapNotHeld"
    assert alert["labels"]["node_id"] == "node-007"
    assert alert["annotations"]["description"] == lost.says


async def test_an_alertmanager_that_is_away_gets_it_at_the_next_look(house: House) -> None:
    """Nothing is remembered but the store: what is still open comes again."""
    async with alerting(house) as kept:
        kept.broken = True
        await house.guard.stop(OPERATOR, "smoke in row 3")
        house.clock.advance(SEND_EVERY_S)
        await until(lambda: kept.asked)
        assert kept.posts == []
        kept.broken = False
        house.clock.advance(SEND_EVERY_S)
        await until(lambda: kept.posts)

    assert kept.names() == {"InterlockStopped"}
    assert kept.posts[-1][0]["annotations"]["description"] == "smoke in row 3"


async def test_a_change_that_was_cleared_does_not_alert(house: House) -> None:
    """A person has looked."""
    house.valve.mishap = "mute"
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    async with house.working():
        await house.end_of(change)
    alerts = alerts_of(house)
    assert len(await alerts.open()) == 1

    await house.clearing.clear(OPERATOR, change.change_id, why="looked: it is at 50")

    assert await alerts.open() == []


@pytest.mark.parametrize(
    ("justified", "left"), [(True, []), (False, ["InterlockGlassUnjustified"])]
)
async def test_broken_glass_alerts_until_two_others_have_looked(
    house: House, justified: bool, left: list[str]
) -> None:
    """Whichever process it was broken in; what was not justified is heard of for a day more."""
    change = await house.propose(50)
    await house.break_glass.authorise(
        BREAKER,
        change.change_id,
        reason="the pipe will burst",
        shown_digest=change.binding_digest or "",
        typed_target=change.target.id,
    )
    alerts = alerts_of(house)
    assert await names(alerts) == ["InterlockGlassBroken"]
    house.clock.advance(8 * 86_400)
    assert await names(alerts) == ["InterlockReviewOverdue"]

    for voter in (OPERATOR, person("person:operator-2", "operator")):
        await house.break_glass.review(
            voter, change.change_id, justified=justified, why="the pressure log"
        )

    assert await names(alerts) == left
    house.clock.advance(2 * 86_400)
    assert await names(alerts) == []


async def names(alerts: Alerts) -> list[str]:
    """What alerts now."""
    return [alert["labels"]["alertname"] for alert in await alerts.open()]
