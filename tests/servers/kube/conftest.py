"""One real cluster for the whole folder, and one embedded one beside it."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from tests.kube.real import running_cluster, why_not


class AnyCluster(Protocol):
    """What the suite needs of a cluster."""

    @property
    def kubeconfigs(self) -> Mapping[str, Path]:
        """By persona: admin, reader, nobody."""
        ...


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asyncio, for as long as the clusters live."""
    return "asyncio"


@pytest.fixture(scope="session")
async def real_cluster(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AnyCluster]:
    """A real API server; skipped with its reason where its binaries are not there."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    async with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(params=["real"])
async def cluster(request: pytest.FixtureRequest, real_cluster: AnyCluster) -> AnyCluster:
    """Each kind of API server in turn."""
    return real_cluster
