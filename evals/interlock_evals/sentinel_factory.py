"""A small simulated factory on Kubernetes: plant, facility bus, an API server and NVSentinel on it.

NVSentinel's rules are those for maintenance alone: it shows faults and cordons nothing by itself,
and carries out what is asked of it.
"""

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from interlock_evals.factory import keep_up
from interlock_plant import Job, JobClass, Plant, SteadyLoad
from interlock_plant.site import SiteSpec
from interlock_plant.site_file import parse_site
from interlock_servers.exchange.settings import ExchangeSettings
from interlock_servers.exchange.twin import ExchangeTwin
from interlock_servers.nvsentinel.settings import NvsentinelSettings
from interlock_servers.nvsentinel.twin import NvsentinelTwin, Timings, nvsentinel_on
from interlock_servers.nvsentinel.twin_drainer import Mode
from interlock_servers.nvsentinel.twin_names import RULES_MAP, SPACE
from interlock_servers.transports.broker import Kind, local_broker
from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.embedded import EmbeddedKube
from interlock_servers.transports.kube.kinds import CONFIG_MAPS
from interlock_servers.transports.kube.settings import ClusterSettings
from interlock_servers.transports.mqtt import MqttSettings
from interlock_tools.clock import Clock, ScaledClock

# 40 nodes in five racks on three CDUs; the last rack is spare.
SITE: Final = """
schema = 1
name = "rowhouse"
gpu = "H100-SXM5-80GB"
host = "h100-air"
[[feeds]]
id = "feed-a"
rating_w = 400_000
[[pdus]]
id = "pdu-1"
feed = "feed-a"
rating_w = 400_000
[[cdus]]
id = "cdu-{n}"
count = 3
rating_w = 144_000
[[racks]]
id = "rack-{n:02}"
count = 5
pdu = "pdu-1"
cdu = "cdu-{n/2}"
rating_w = 72_000
nodes = 8
node_id = "node-{m:03}"
"""
# (name, tenant, class, first node, nodes, floor): what must keep a floor is not behind cdu-2.
JOBS: Final = (
    ("chat-large", "borealis", JobClass.SERVING, 0, 6, 0.5),
    ("pretrain-atlas", "aurora", JobClass.TRAIN, 6, 6, None),
    ("code-assist", "delta", JobClass.SERVING, 12, 4, 0.5),
    ("embed-corpus", "cirrus", JobClass.BATCH, 16, 16, None),
)
LOOK_EVERY_S: Final = 0.5
RACK: Final = "topology.kubernetes.io/rack"
log = logging.getLogger(__name__)


@dataclass
class SentinelFactory:
    """A running one: plant and twin are for scorers, the settings are for everyone."""

    plant: Plant
    twin: NvsentinelTwin
    admin: KubeClient
    clock: Clock
    exchange: ExchangeSettings
    nvsentinel: NvsentinelSettings
    broker: str


def rowhouse() -> tuple[SiteSpec, tuple[Job, ...]]:
    """The site and what runs on it."""
    site = parse_site(SITE)

    def gpus(nodes: Iterable[int]) -> tuple[int, ...]:
        return tuple(int(gpu) for n in nodes for gpu in site.gpus_of_node(site.node_ids[n]))

    jobs = tuple(
        Job(name, tenant, kind, gpus(range(first, first + count)), floor_work=floor)
        for name, tenant, kind, first, count, floor in JOBS
    )
    return site, jobs


@asynccontextmanager
async def sentinel_factory(
    clock: ScaledClock,
    folder: Path,
    *,
    timings: Timings,
    broker: Kind | None = None,
    seed: int = 0,
) -> AsyncIterator[SentinelFactory]:
    """It runs until the block ends; kubeconfigs go to `folder`.

    Raises:
        UnavailableError: the broker did not start.
        FactoryError: the API server refuses what is put there.
    """
    site, jobs = rowhouse()
    plant = Plant(site, jobs, seed=seed, start=clock.now(), load=SteadyLoad(jobs))
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(local_broker(broker))
        bms = await stack.enter_async_context(ExchangeTwin(plant, address, clock))
        kube = await stack.enter_async_context(EmbeddedKube(folder, clock=clock))
        # A watch may be as quiet as it likes: minutes of this clock pass in seconds.
        cluster = ClusterSettings(kubeconfig=kube.kubeconfig(), quiet_s=600.0, resync_s=86_400.0)
        admin = KubeClient(cluster, clock, field_manager="kubectl")
        await stack.enter_async_context(admin)
        twin = await stack.enter_async_context(
            nvsentinel_on(
                admin,
                plant,
                timings=timings,
                modes=(("*", Mode.IMMEDIATE),),
                remediation=True,
                maintenance=True,
            )
        )
        await only_maintenance(admin)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(_run, plant, clock)
        tasks.start_soon(bms.run)
        tasks.start_soon(twin.run)
        mqtt = MqttSettings(brokers=(address,), client_id="interlock-exchange")
        try:
            yield SentinelFactory(
                plant,
                twin,
                admin,
                clock,
                ExchangeSettings(mqtt=mqtt, site_id=site.name),
                NvsentinelSettings(cluster=cluster, rack_label=RACK, operations=True),
                address,
            )
        finally:
            tasks.cancel_scope.cancel()


async def only_maintenance(admin: KubeClient) -> None:
    """Switch the rules about faults off, as a site does that wants people to decide."""
    seen = await admin.get(CONFIG_MAPS, RULES_MAP, SPACE)
    first, *rest = seen["data"]["config.toml"].split("[[rule-sets]]")
    *faults, maintenance = rest
    off = [text.replace("enabled = true", "enabled = false") for text in faults]
    text = "[[rule-sets]]".join([first, *off, maintenance])
    change = {"op": "replace", "path": "/data/config.toml", "value": text}
    await admin.patch(CONFIG_MAPS, RULES_MAP, [change], seen=seen, namespace=SPACE)


async def _run(plant: Plant, clock: Clock) -> None:
    async def second() -> None:
        plant.step()

    await keep_up(plant, clock, second, look_every_s=LOOK_EVERY_S)
