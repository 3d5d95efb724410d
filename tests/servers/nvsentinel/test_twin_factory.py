"""The demo factory with a cluster, and a plant of thousands of nodes on one."""

import time
from datetime import UTC, datetime
from pathlib import Path

import anyio

from interlock_evals.factory import Addresses, running_factory
from interlock_plant import Fault, FaultKind, Plant, SteadyLoad, hall_jobs, hall_site
from interlock_servers.nvsentinel import twin_names as names
from interlock_servers.nvsentinel.twin import nvsentinel_on
from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.embedded import EmbeddedKube
from interlock_servers.transports.kube.kinds import NODES
from interlock_servers.transports.kube.settings import ClusterSettings
from interlock_tools.clock import ManualClock, ScaledClock
from tests.servers.nvsentinel.twin_world import START

NODES_AT_SCALE = 1_000  # `make bench` has 5,000
PUT_THERE_CPU_S = 48.0  # a few times what it takes on a slow machine


async def test_a_factory_has_a_cluster_only_where_one_is_asked_for(tmp_path: Path) -> None:
    """Its address is a kubeconfig; whoever reads it sees a fault as NVSentinel shows it."""
    clock = ScaledClock.starting_now(datetime.now(UTC), 20.0)
    with anyio.fail_after(60):
        async with running_factory(clock) as plain:
            assert plain.addresses.kubernetes is None
        async with running_factory(clock, kubernetes=True) as factory:
            factory.addresses.save(tmp_path / "factory.json")
            kubeconfig = Addresses.load(tmp_path / "factory.json").kubernetes
            assert kubeconfig is not None
            factory.plant.inject(Fault(FaultKind.GPU_LOST, "node-007/gpu-1", xid=79))
            settings = ClusterSettings(kubeconfig=kubeconfig)
            async with KubeClient(settings, clock, field_manager="test") as client:
                state = None
                while state is None:
                    await clock.sleep(1.0)
                    node = await client.get(NODES, "node-007")
                    state = node["metadata"]["labels"].get(names.STATE)
                assert node["spec"]["unschedulable"] is True


async def test_thousands_of_nodes_are_put_on_a_cluster_in_bounded_time(tmp_path: Path) -> None:
    """1,000 nodes and 8,000 pods, and a fault on one of them is dealt with all the same."""
    site = hall_site(NODES_AT_SCALE)
    jobs = hall_jobs(site)
    clock = ManualClock(START)
    plant = Plant(site, jobs, seed=1, start=START, load=SteadyLoad(jobs))
    began_s = time.process_time()
    async with EmbeddedKube(tmp_path, clock=clock) as kube:
        settings = ClusterSettings(kubeconfig=kube.kubeconfig(), deadline_s=60.0)
        async with (
            KubeClient(settings, clock, field_manager="kubectl") as client,
            nvsentinel_on(client, plant, gpus_per_pod=1, load=kube.load) as twin,
        ):
            assert time.process_time() - began_s < PUT_THERE_CPU_S
            assert len(twin.cluster.all(NODES)) == NODES_AT_SCALE
            pods = sum(len(twin.cluster.pods_on(name)) for name in site.node_ids)
            assert pods == sum(len(job.gpu_indices) for job in jobs)
            ill = site.node_ids[41]
            plant.inject(Fault(FaultKind.HBM_ERROR, f"{ill}/gpu-1", xid=48))
            began_s = time.process_time()
            for _ in range(10):
                plant.step()
                clock.advance(1)
                await twin.step()
            step_cpu_s = (time.process_time() - began_s) / 10
            node = await client.get(NODES, ill)
            assert node["spec"]["unschedulable"] is True
            assert step_cpu_s < 2.0, step_cpu_s
