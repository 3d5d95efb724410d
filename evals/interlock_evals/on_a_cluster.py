"""A cluster of our own beside a factory: its plant and NVSentinel on an embedded API server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from interlock_plant.plant import Plant
from interlock_servers.nvsentinel.twin import nvsentinel_on
from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.embedded import EmbeddedKube
from interlock_servers.transports.kube.settings import ClusterSettings
from interlock_tools.clock import Clock


@asynccontextmanager
async def nvsentinel_at_work(plant: Plant, clock: Clock, folder: Path) -> AsyncIterator[Path]:
    """NVSentinel looks after the nodes until the block ends; gives the administrator's kubeconfig.

    Raises:
        FactoryError: the API server refuses what is put there.
    """
    async with EmbeddedKube(folder, clock=clock) as kube:
        kubeconfig = kube.kubeconfig()
        settings = ClusterSettings(name=plant.site.name, kubeconfig=kubeconfig)
        async with (
            KubeClient(settings, clock, field_manager="factory") as client,
            nvsentinel_on(client, plant, maintenance=True, load=kube.load) as twin,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(twin.run)
            try:
                yield kubeconfig
            finally:
                tasks.cancel_scope.cancel()
