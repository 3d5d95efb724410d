"""Keys come and go without a restart, nobody makes us ask often, and old ones are not kept long."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from interlock_servers.flex import keys as keys_module
from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.keys import KeySource
from interlock_servers.flex.models import Reason, RejectedError
from interlock_servers.flex.settings import FlexSettings
from interlock_servers.flex.twin import GridIsvTwin, TwinKey, make_key, write_jwks
from interlock_servers.flex.twin_wire import sign
from interlock_servers.transports.broker import local_broker
from interlock_servers.transports.mqtt import MqttSettings
from interlock_tools.clock import ManualClock
from interlock_tools.errors import InvalidRequestError
from tests.servers.certificates import self_signed
from tests.servers.flex.conftest import ISV, OTHER_ISV, PATIENCE_S, START
from tests.servers.flex.publisher import KeyPublisher, listening, publishing

PAYLOAD = b'{"targets": []}'
NEW = make_key("acme-2")


def of(
    trusted: Mapping[str, tuple[str, ...]] | None = None,
    broker: str = "mqtt://127.0.0.1:1",
    **changes: Any,
) -> FlexSettings:
    """Settings that trust the ISV with two kids, the second of which nobody has published yet."""
    return FlexSettings(
        mqtt=MqttSettings(brokers=(broker,), client_id="keys"),
        trusted={ISV: ("acme-1", "acme-2")} if trusted is None else dict(trusted),
        site_id="lab",
        feeds=("main-a",),
        **changes,
    )


def why(source: KeySource, compact: str) -> Reason | None:
    """Why the ISV is not believed; None where it is."""
    try:
        source.verify(compact, ISV)
    except RejectedError as error:
        return error.reason
    return None


@pytest.mark.trap("FX-K01")
async def test_a_key_that_is_published_later_is_believed_without_a_restart(
    isv_key: TwinKey,
) -> None:
    """And is asked for when it is first seen, at most once in `jwks_look_again_s`."""
    clock = ManualClock(START)
    async with publishing([isv_key]) as publisher:
        source = KeySource(of(jwks_url=publisher.where), clock)
        assert why(source, sign(PAYLOAD, isv_key)) is Reason.KEYS_UNKNOWN
        assert await source.look_if_due()
        assert why(source, sign(PAYLOAD, isv_key)) is None

        publisher.keys.append(NEW)
        for _ in range(50):
            assert why(source, sign(PAYLOAD, NEW)) is Reason.KEY_NOT_PUBLISHED
            assert not await source.look_if_due()
        assert publisher.asked == 1
        clock.advance(60.0)
        assert await source.look_if_due()
        assert why(source, sign(PAYLOAD, NEW)) is None
        assert publisher.asked == 2


@pytest.mark.trap("FX-K02")
async def test_a_kid_that_is_bound_to_nobody_makes_us_ask_nobody(isv_key: TwinKey) -> None:
    """Anyone can name a kid; the settings say which of them are somebody's."""
    clock = ManualClock(START)
    async with publishing([isv_key]) as publisher:
        source = KeySource(of(jwks_url=publisher.where), clock)
        await source.look_if_due()
        clock.advance(61.0)
        assert why(source, sign(PAYLOAD, NEW, kid="guess")) is Reason.UNKNOWN_KEY
        assert not await source.look_if_due()
        assert publisher.asked == 1


@pytest.mark.trap("FX-K03")
async def test_whoever_publishes_keys_cannot_say_whose_they_are(isv_key: TwinKey) -> None:
    """The binding of a kid to a source is ours, also where it binds by how a kid begins."""
    stranger = make_key("other-7")
    clock = ManualClock(START)
    async with publishing([isv_key, stranger]) as publisher:
        source = KeySource(
            of({ISV: ("acme-*",), OTHER_ISV: ("other-*",)}, jwks_url=publisher.where), clock
        )
        await source.look_if_due()
        assert why(source, sign(PAYLOAD, isv_key)) is None
        assert why(source, sign(PAYLOAD, stranger)) is Reason.KEY_OF_ANOTHER_SOURCE
    for overlap in (("acme-1",), ("ac*",), ("acme-1*",)):
        with pytest.raises(ValueError, match="one key, one source"):
            of({ISV: ("acme-*",), OTHER_ISV: overlap}, jwks_url="https://keys.example.com")


async def test_keys_are_looked_at_again_before_they_are_old(isv_key: TwinKey) -> None:
    """By our own period, or sooner where the answer says how long it is good for."""
    clock = ManualClock(START)
    async with publishing([isv_key]) as publisher:
        source = KeySource(of(jwks_url=publisher.where), clock)
        await source.look_if_due()
        clock.advance(3599.0)
        assert not await source.look_if_due()
        publisher.headers["Cache-Control"] = "public, max-age=300"
        publisher.keys = [NEW]
        clock.advance(1.0)
        assert await source.look_if_due()
        assert why(source, sign(PAYLOAD, NEW)) is None
        clock.advance(299.0)
        assert not await source.look_if_due()
        clock.advance(1.0)
        assert await source.look_if_due()
        assert why(source, sign(PAYLOAD, isv_key)) is Reason.KEY_NOT_PUBLISHED  # taken back


@pytest.mark.trap("FX-K04")
async def test_keys_that_cannot_be_had_are_believed_for_a_stated_time_and_no_longer(
    isv_key: TwinKey,
) -> None:
    """A publisher that is gone, that sends us elsewhere, or that says nonsense."""
    clock = ManualClock(START)
    async with publishing([isv_key]) as elsewhere, publishing([isv_key]) as publisher:
        source = KeySource(of(jwks_url=publisher.where, jwks_kept_s=7200.0), clock)
        await source.look_if_due()
        for wrong in (
            {"status": 503},
            {"status": 302, "headers": {"Location": elsewhere.where}},
            {"body": b"no keys"},
            {"body": b" " * 300_000},
            {"body": json.dumps({"keys": [isv_key.key.as_dict(private=True)]}).encode()},
        ):
            _say(publisher, wrong)
            await _look(source, clock)
            assert why(source, sign(PAYLOAD, isv_key)) is None, wrong
        assert elsewhere.asked == 0
        clock.advance(7200.0)
        await source.look_if_due()
        assert why(source, sign(PAYLOAD, isv_key)) is Reason.KEYS_UNKNOWN
        assert "last confirmed" in (source.why_not() or "")
        _say(publisher, {})
        await _look(source, clock)
        assert why(source, sign(PAYLOAD, isv_key)) is None


async def test_a_publisher_that_never_answers_is_left(
    isv_key: TwinKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look ends, and what was known stays."""
    clock = ManualClock(START)
    async with publishing([isv_key]) as publisher:
        source = KeySource(of(jwks_url=publisher.where), clock)
        await source.look_if_due()
        monkeypatch.setattr(keys_module, "FETCH_TIMEOUT_S", 0.2)
        publisher.hangs = True
        clock.advance(3600.0)
        with anyio.fail_after(PATIENCE_S):
            assert await source.look_if_due()
        assert why(source, sign(PAYLOAD, isv_key)) is None


@pytest.mark.trap("FX-K05")
async def test_keys_come_over_tls_from_whom_the_certificate_names(
    tmp_path: Path, isv_key: TwinKey
) -> None:
    """An authority that we were not told of is none; over a network nothing comes in the clear."""
    _, certificate = self_signed(tmp_path)
    publisher = KeyPublisher([isv_key])
    clock = ManualClock(START)
    app = Starlette(routes=[Route("/jwks", publisher.answer)])
    tls = {"ssl_certfile": str(certificate), "ssl_keyfile": str(tmp_path / "key.pem")}
    async with listening(app, **tls) as base:
        trusting = KeySource(of(jwks_url=f"{base}/jwks", jwks_ca_file=certificate), clock)
        await trusting.look_if_due()
        assert why(trusting, sign(PAYLOAD, isv_key)) is None
        doubting = KeySource(of(jwks_url=f"{base}/jwks"), clock)
        await doubting.look_if_due()
        assert why(doubting, sign(PAYLOAD, isv_key)) is Reason.KEYS_UNKNOWN
    for url in ("http://keys.example.com/jwks", "https://me:secret@keys.example.com", "ftp://a"):
        with pytest.raises(ValueError, match="URL must") as caught:
            of(jwks_url=url)
        assert "secret@" not in caught.value.errors()[0]["msg"]  # type: ignore[attr-defined]


async def test_a_file_is_read_again_and_must_begin_with_a_key_for_each_source(
    tmp_path: Path, isv_key: TwinKey
) -> None:
    """A kid that is announced may be missing; a source without any key is a mistake."""
    clock = ManualClock(START)
    path = write_jwks(tmp_path / "jwks.json", [isv_key])
    source = KeySource(of(jwks_file=path), clock)
    assert why(source, sign(PAYLOAD, NEW)) is Reason.KEY_NOT_PUBLISHED
    write_jwks(path, [isv_key, NEW])
    assert await source.look_if_due()
    assert why(source, sign(PAYLOAD, NEW)) is None
    with pytest.raises(InvalidRequestError, match=r"the JWKS .* lacks"):
        KeySource(of({ISV: ("acme-9",)}, jwks_file=path), clock)
    for url, file in ((None, None), ("https://keys.example.com", path)):
        with pytest.raises(ValueError, match="either jwks_file or jwks_url"):
            of(jwks_url=url, jwks_file=file)


@pytest.mark.trap("FX-K06")
async def test_a_target_that_came_before_its_key_is_taken_once_the_key_is_there(
    tmp_path: Path, isv_key: TwinKey
) -> None:
    """A target is sent once: it waits for the next look; what is then still unknown is refused."""
    clock = ManualClock(START)
    path = write_jwks(tmp_path / "jwks.json", [isv_key])
    async with local_broker() as broker:
        client = FlexClient(of(broker=broker, jwks_file=path, needs_snapshot=False), clock)
        async with client, GridIsvTwin(broker, NEW, clock) as isv:
            await client.wait_connected(PATIENCE_S)
            await isv.set_target(5_000.0, feed_tags=["main-a"])
            with anyio.fail_after(PATIENCE_S):
                await client.wait_until(lambda: Reason.KEY_NOT_PUBLISHED in client.rejected())
            await isv.set_target(4_000.0, feed_tags=["main-a"])
            write_jwks(path, [isv_key, NEW])
            clock.advance(60.0)
            with anyio.fail_after(PATIENCE_S):
                await client.wait_until(lambda: client.accepted == 1)
            (target,) = client.targets_in_force(clock.now()).values()
            assert target.limit_w == pytest.approx(4_000.0)


async def test_without_keys_nothing_is_certain(isv_key: TwinKey) -> None:
    """What came meanwhile was refused, so silence means nothing, and health says why."""
    clock = ManualClock(START)
    async with publishing([isv_key]) as publisher, local_broker() as broker:
        publisher.status = 503
        client = FlexClient(
            of(broker=broker, jwks_url=publisher.where, needs_snapshot=False), clock
        )
        async with client:
            await client.wait_connected(PATIENCE_S)
            health = client.health()
            assert (health.connected, health.certain_at) == (True, None)
            assert "keys are not known" in (health.why_not or "")
            publisher.status = 200
            clock.advance(60.0)
            with anyio.fail_after(PATIENCE_S):
                await client.wait_until(lambda: client.health().why_not is None)
            assert client.health().certain_at == clock.now()


def _say(publisher: KeyPublisher, what: dict[str, Any]) -> None:
    publisher.status, publisher.headers, publisher.body = 200, {}, None
    for name, value in what.items():
        setattr(publisher, name, value)


async def _look(source: KeySource, clock: ManualClock) -> None:
    """Until it looks: by its period, or by its patience after a failure."""
    for _ in range(60):
        clock.advance(60.0)
        if await source.look_if_due():
            return
    raise AssertionError("it never looked")
