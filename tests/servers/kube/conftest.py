"""Each kind of API server in turn, as callers of different rights know it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from interlock_servers.transports.kube.embedded import EmbeddedKube
from interlock_servers.transports.kube.embedded.personas import PERSONAS
from tests.kube.real import real_server_or_skip, running_cluster

Kubeconfigs = Mapping[str, Path]  # by persona: admin, reader, nobody


@pytest.fixture(scope="session", params=["embedded", "real"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kubeconfigs]:
    """The kubeconfigs of an API server: our own, or a real one where it can be started."""
    folder = tmp_path_factory.mktemp("cluster")
    with start_blocking_portal() as portal:
        if request.param == "real":
            real_server_or_skip()
            with portal.wrap_async_context_manager(running_cluster(folder)) as real:
                yield real.kubeconfigs
        else:
            with portal.wrap_async_context_manager(EmbeddedKube(folder)) as kube:
                yield {each.name: kube.kubeconfig(each.name) for each in PERSONAS}
