"""One real API server for the folder, with NVSentinel's definitions; each test begins empty."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio
import pytest

from interlock_servers.nvsentinel.access import READS, WRITES
from interlock_servers.nvsentinel.client import NvsentinelClient
from interlock_servers.nvsentinel.settings import NvsentinelSettings
from interlock_servers.transports.kube.access import Access
from interlock_servers.transports.kube.embedded.personas import PERSONAS, Persona
from tests.kube.real import running_cluster, why_not
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


@pytest.fixture(scope="package")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """The API server, for the whole folder."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    if not CONTRACTS:
        pytest.skip("INTERLOCK_CONTRACTS does not name the upstream schemas")
    async with (
        running_cluster(
            tmp_path_factory.mktemp("kube"),
            personas=(*PERSONAS, persona("looker", READS), persona("keeper", READS + WRITES)),
        ) as cluster,
        world_on(cluster) as world,
    ):
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
