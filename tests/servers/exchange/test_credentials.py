"""What a broker's ACL lets us do, on a real one: a publish that it denies is denied in silence."""

import getpass
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from interlock_guardrails.rules import SiteRules
from interlock_servers.exchange.attached import requesting
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.request_facts import REQUEST_HEARTBEAT
from interlock_servers.exchange.settings import ExchangeSettings
from interlock_servers.exchange.twin import ExchangeTwin
from interlock_servers.site import SiteSettings, connections, open_site
from interlock_servers.transports.broker import find_server
from interlock_servers.transports.mqtt import MqttSettings
from interlock_tools.clock import ManualClock
from interlock_tools.fact import Fact, FactNeed, Unknown
from interlock_tools.identity import Target
from tests.servers.exchange.asking import ACME, empty_store, may_ask
from tests.servers.exchange.conftest import START, lab_plant
from tests.servers.sites import AGENT
from tests.servers.waiting import until

# As the entry of docs/how-to/exchange.md: who listens may publish nothing.
ACL = f"""\
topic write BMS/v1/PUB/#
topic read BMS/v1/+/Value/#

user reader
topic read BMS/v1/#

user asker
topic write BMS/v1/{ACME}/Value/#
"""

pytestmark = pytest.mark.skipif(
    find_server("mosquitto") is None, reason="mosquitto, which keeps ACLs, is not installed"
)


@asynccontextmanager
async def guarded_broker(folder: Path) -> AsyncIterator[str]:
    """A broker that keeps the ACL; who says no name is the BMS."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    acl, conf = folder / "acl", folder / "mosquitto.conf"
    acl.write_text(ACL)
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", f"acl_file {acl}"]
    conf.write_text("\n".join([*lines, f"user {getpass.getuser()}", ""]))  # who may read the files
    process = await anyio.open_process(
        [str(find_server("mosquitto")), "-c", str(conf)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with anyio.fail_after(15):
            while not await _listens(port):  # noqa: ASYNC110 (it tells nobody)
                await anyio.sleep(0.05)
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.terminate()
        with anyio.CancelScope(shield=True):
            await process.wait()


async def _listens(port: int) -> bool:
    try:
        await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
    except OSError:
        return False
    return True


def mqtt(broker: str, client_id: str, user: str | None) -> MqttSettings:
    """A connection under a name of the ACL."""
    return MqttSettings(brokers=(broker,), client_id=client_id, username=user)


@pytest.mark.trap("EX-W17")
@pytest.mark.parametrize(("user", "heard"), [("asker", True), ("reader", False)])
async def test_that_we_may_publish_is_shown_by_our_heartbeat_coming_back(
    tmp_path: Path, user: str, heard: bool
) -> None:
    """MQTT 3.1.1 cannot say no to a publish: the broker takes it, and nobody gets it."""
    plant, clock = lab_plant(), ManualClock(START)
    engine, store = empty_store(tmp_path)
    need = FactNeed(kind=REQUEST_HEARTBEAT, subject=Target(kind="site", id="lab"), max_age_s=30)
    try:
        async with guarded_broker(tmp_path) as broker:
            reading = ExchangeSettings(mqtt=mqtt(broker, "reading", "reader"), site_id="lab")
            settings = may_ask(broker, mqtt=mqtt(broker, "requests", user))
            async with (
                ExchangeClient(reading, clock) as client,
                ExchangeTwin(plant, broker, clock, integration=ACME) as twin,
            ):
                await client.wait_connected(15)
                asks = requesting(client, settings, store, clock)
                async with asks.publisher:
                    await until(lambda: asks.publisher.connected)
                    await twin.publish_once()
                    await until(lambda: len(asks.wires.namespace.mine()) > 10)
                    await until(lambda: client.heartbeats().bms_alive is True)
                    await asks.wires.holder.round()
                    assert asks.wires.holder.trouble is None  # nothing was refused
                    if heard:
                        await until(lambda: twin.requests.last_beat_ms is not None)
                        await until(lambda: len(client.heartbeats().beats) > 1)
                        await until(lambda: "is heard" in asks.says())
                    answer = await asks.facts.fact(need)
                    if heard:
                        assert isinstance(answer, Fact)
                    else:
                        assert isinstance(answer, Unknown)
                        assert "perhaps we may not publish" in answer.why
                        assert twin.requests.last_beat_ms is None
                        assert "not heard" in asks.says()
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    ("wants", "servers", "says"),
    [
        (None, {"exchange", "dsx_exchange"}, "only listened to"),
        ("silent", {"exchange", "dsx_exchange"}, "nothing is published"),
        ("all", {"exchange", "dsx_exchange", "bms", "isolation"}, "not heard yet"),
    ],
)
async def test_without_the_table_of_requests_nothing_that_changes_is_even_offered(
    tmp_path: Path, wants: str | None, servers: set[str], says: str
) -> None:
    """Attached read-only there is no operation, no tool and no connection that publishes."""
    plant, clock = lab_plant(), ManualClock(START)
    async with guarded_broker(tmp_path) as broker:
        requests = None
        if wants is not None:
            asker = mqtt(broker, "requests", "asker")
            requests = may_ask(broker, mqtt=asker, silent=wants == "silent")
        settings = SiteSettings(
            rules=SiteRules(site_id="lab", gpus=512, hosts=64),
            bundle="supervised",
            data_dir=tmp_path / "site",
            exchange=ExchangeSettings(
                mqtt=mqtt(broker, "reading", "reader"), site_id="lab", requests=requests
            ),
        )
        async with (
            ExchangeTwin(plant, broker, clock, integration=ACME) as twin,
            open_site(settings, clock, lambda: AGENT) as site,
        ):
            await until(lambda: connections(site)[0].says != "" and _connected(site))
            await twin.publish_once()
            await until(lambda: says in connections(site)[0].says)
            assert set(site.faces) == servers
            offered = {name for name in site.guard.operations if name.startswith("exchange.")}
            assert bool(offered) is (wants == "all")
            assert twin.requests.last_beat_ms is None


def _connected(site: object) -> bool:
    state = connections(site)[0]  # type: ignore[arg-type]
    return "no point was described" in state.says or state.works
