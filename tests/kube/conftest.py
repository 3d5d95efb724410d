"""Both API servers, once per run: the embedded one, and a real one where it can be started."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
from anyio.from_thread import start_blocking_portal

from interlock_servers.transports.kube.embedded import EmbeddedKube
from tests.kube.asking import Kube, Server
from tests.kube.real import Cluster, real_server_or_skip, running_cluster


@pytest.fixture(scope="session")
def real_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real API server with its controllers and without nodes."""
    real_server_or_skip(controllers=True)
    folder = tmp_path_factory.mktemp("cluster")
    with start_blocking_portal() as portal:
        running = running_cluster(folder, controllers=True)
        with portal.wrap_async_context_manager(running) as cluster:
            yield cluster


@pytest.fixture(scope="session", params=["embedded", "real"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """An API server, whichever of the two."""
    if request.param == "real":
        cluster: Cluster = request.getfixturevalue("real_cluster")
        yield Server("real", cluster.url, cluster.tokens, cluster.client, cluster.compact)
        return
    folder = tmp_path_factory.mktemp("embedded")
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        kube = stack.enter_context(portal.wrap_async_context_manager(EmbeddedKube(folder)))
        yield Server.embedded(kube, lambda: portal.call(kube.compact))


@pytest.fixture
async def kube(server: Server) -> AsyncIterator[Kube]:
    """The administrator in an empty namespace of the test's own."""
    async with server.client() as http:
        made = Kube(server, http)
        await made.begin()
        yield made
        await made.end()
