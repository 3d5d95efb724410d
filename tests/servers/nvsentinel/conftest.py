"""One API server of each kind, with NVSentinel's definitions; each test begins empty."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio
import httpx2
import pytest

from interlock_servers.nvsentinel.access import READS, WRITES
from interlock_servers.nvsentinel.client import NvsentinelClient
from interlock_servers.nvsentinel.settings import NvsentinelSettings
from interlock_servers.transports.kube.access import Access
from interlock_servers.transports.kube.embedded import EmbeddedKube
from interlock_servers.transports.kube.embedded.personas import PERSONAS, Persona
from tests.kube.real import real_server_or_skip, running_cluster
from tests.servers.nvsentinel.world import CONTRACTS, AheadClock, World, world_on
from tests.servers.waiting import PATIENCE_S


def persona(name: str, rights: Iterable[Access]) -> Persona:
    """Somebody with these rights and no other, though of any namespace."""
    rules = [
        {
            "apiGroups": [one.kind.group],
            "resources": [one.kind.plural + (f"/{one.subresource}" if one.subresource else "")],
            "verbs": [one.verb],
            **({"resourceNames": [one.name]} if one.name else {}),
        }
        for one in rights
    ]
    return Persona(name, rules=tuple(rules))


@pytest.fixture(scope="package")
def anyio_backend() -> str:
    """One loop for the folder, which shares one API server."""
    return "asyncio"


@pytest.fixture(scope="package", params=["embedded", "real"])
async def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """The API server, for the whole folder: our own, and a real one where it can be started."""
    if not CONTRACTS:
        pytest.skip("INTERLOCK_CONTRACTS does not name the upstream schemas")
    personas = (*PERSONAS, persona("looker", READS), persona("keeper", READS + WRITES))
    folder = tmp_path_factory.mktemp("kube")
    if request.param == "real":
        real_server_or_skip()
        async with (
            running_cluster(folder, personas=personas) as cluster,
            world_on(cluster.kubeconfigs, cluster.client()) as world,
        ):
            yield world
        return
    kube = EmbeddedKube(folder, personas=personas, policy_versions=("v1beta1",))
    async with kube:
        admin = {"Authorization": f"Bearer {kube.tokens['admin']}"}
        http = httpx2.AsyncClient(base_url=kube.url, headers=admin, trust_env=False)
        kubeconfigs = {each.name: kube.kubeconfig(each.name) for each in personas}
        async with world_on(kubeconfigs, http) as world:
            yield world


@pytest.fixture
async def world(shared: World) -> AsyncIterator[World]:
    """The same, with nothing on it."""
    yield shared
    await shared.clear()


@pytest.fixture
def clock() -> AheadClock:
    """The time of day, that can be put forward."""
    return AheadClock()


@asynccontextmanager
async def following(
    settings: NvsentinelSettings, clock: AheadClock
) -> AsyncIterator[NvsentinelClient]:
    """A client that has listed everything."""
    async with NvsentinelClient(settings, clock) as client:
        with anyio.fail_after(PATIENCE_S):
            await client.listed()
        yield client
