"""What the transport promises on any API server: the embedded one, a real one, a newer one."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from interlock_servers.transports.kube.access import Access, refused
from interlock_servers.transports.kube.cache import KindCache, Known
from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.connection import Json
from interlock_servers.transports.kube.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    LEASES,
    NODES,
    PODS,
    Kind,
)
from interlock_servers.transports.kube.leases import read_lease
from interlock_servers.transports.kube.owners import other_writers
from interlock_servers.transports.kube.settings import ClusterSettings
from interlock_tools.clock import SystemClock
from interlock_tools.errors import (
    ComponentError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
)
from tests.servers.kube.conftest import Kubeconfigs
from tests.servers.waiting import until

CORDON: list[Json] = [{"op": "add", "path": "/spec/unschedulable", "value": True}]
UNCORDON: list[Json] = [{"op": "add", "path": "/spec/unschedulable", "value": False}]


@asynccontextmanager
async def client_of(
    cluster: Kubeconfigs,
    persona: str = "admin",
    *,
    manager: str = "interlock",
    page: int = 500,
    quiet_s: float = 5.0,
) -> AsyncIterator[KubeClient]:
    """A client with this persona's rights."""
    settings = ClusterSettings(
        kubeconfig=cluster[persona], page=page, quiet_s=quiet_s, deadline_s=10
    )
    async with KubeClient(settings, SystemClock(), field_manager=manager) as client:
        yield client


def fresh(prefix: str) -> str:
    """A name that no other test has."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


async def make_node(client: KubeClient, **labels: str) -> Json:
    """A node of our own."""
    return await client.create(NODES, {"metadata": {"name": fresh("node"), "labels": labels}})


def name_of(raw: Json) -> str:
    """What is kept of an object here."""
    return str(raw["metadata"]["name"])


@pytest.mark.trap("KU-02")
async def test_a_patch_of_what_changed_meanwhile_is_a_conflict(cluster: Kubeconfigs) -> None:
    """Somebody else was there first: nothing is overwritten."""
    async with client_of(cluster) as client:
        seen = await make_node(client)
        name = name_of(seen)
        await client.patch(NODES, name, CORDON, seen=seen)
        with pytest.raises(ConflictError, match="nothing was done"):
            await client.patch(NODES, name, UNCORDON, seen=seen)
        assert (await client.get(NODES, name))["spec"]["unschedulable"] is True


@pytest.mark.trap("KU-03")
async def test_a_patch_of_a_node_made_anew_under_its_name_is_a_conflict(
    cluster: Kubeconfigs,
) -> None:
    """A name is not an identity: a replaced node was never looked at."""
    async with client_of(cluster) as client:
        seen = await make_node(client)
        name = name_of(seen)
        await client.delete(NODES, name, seen=seen)
        await client.create(NODES, {"metadata": {"name": name}})
        with pytest.raises(ConflictError):
            await client.patch(NODES, name, CORDON, seen=seen)
        with pytest.raises(ConflictError):
            await client.delete(NODES, name, seen=seen)


@pytest.mark.trap("KU-01")
async def test_a_rehearsal_changes_nothing_and_finds_what_is_wrong(cluster: Kubeconfigs) -> None:
    """`dryRun=All` is the API server's own word on whether it would take it."""
    async with client_of(cluster) as client:
        seen = await make_node(client)
        name = name_of(seen)
        would = await client.patch(NODES, name, CORDON, seen=seen, dry_run=True)
        assert would["spec"]["unschedulable"] is True
        assert "unschedulable" not in (await client.get(NODES, name)).get("spec", {})
        other = fresh("never")
        await client.create(NODES, {"metadata": {"name": other}}, dry_run=True)
        with pytest.raises(NotFoundError):
            await client.get(NODES, other)
        with pytest.raises(InvalidRequestError, match=r"metadata\.name"):
            await client.create(NODES, {"metadata": {"name": "Not A Name"}}, dry_run=True)
        await client.delete(NODES, name, seen=await client.get(NODES, name), dry_run=True)
        assert name_of(await client.get(NODES, name)) == name


@pytest.mark.trap("KU-17")
async def test_a_failed_test_of_a_patch_changes_nothing(cluster: Kubeconfigs) -> None:
    """A caller may pin what it saw of a single field too."""
    async with client_of(cluster) as client:
        seen = await make_node(client, rack="r1")
        test = {"op": "test", "path": "/metadata/labels/rack", "value": "r2"}
        with pytest.raises(InvalidRequestError):
            await client.patch(NODES, name_of(seen), [test, *CORDON], seen=seen)
        assert "unschedulable" not in (await client.get(NODES, name_of(seen))).get("spec", {})


async def test_a_listing_in_pages_is_whole(cluster: Kubeconfigs) -> None:
    """However many there are, each is in it once."""
    async with client_of(cluster, page=3) as client:
        batch = fresh("batch")
        names = {name_of(await make_node(client, batch=batch)) for _ in range(8)}
        pages = [page async for page in client.pages(NODES, labels=f"batch={batch}")]
        assert [len(page.items) for page in pages] == [3, 3, 2]
        assert {name_of(raw) for page in pages for raw in page.items} == names


async def test_fields_select_at_the_server(cluster: Kubeconfigs) -> None:
    """The pods of one node are asked for, not all pods."""
    async with client_of(cluster) as client:
        node = fresh("host")
        names = [fresh("pod") for _ in range(2)]
        for name, host in zip(names, (node, fresh("other")), strict=True):
            await client.create(PODS, _pod(name, host), namespace="default")
        found = await client.all(PODS, fields=f"spec.nodeName={node}")
        assert [name_of(raw) for raw in found] == names[:1]


async def test_a_cache_follows_what_others_do(cluster: Kubeconfigs) -> None:
    """Made, changed and deleted elsewhere: it shows without being asked for."""
    async with client_of(cluster) as client, client_of(cluster) as other:
        batch = fresh("batch")
        first = await make_node(client, batch=batch)
        cache = KindCache(
            client,
            NODES,
            lambda raw: (name_of(raw), bool(raw.get("spec", {}).get("unschedulable"))),
            labels=f"batch={batch}",
            indexes={"cordoned": lambda kept: [str(kept[1])]},
        )
        told: list[str] = []
        cache.listen(lambda key, kept: told.append(f"{key[1]} {kept is not None}"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.run)
            await until(lambda: cache.snapshot().known is Known.FRESH)
            second = await make_node(other, batch=batch)
            await until(lambda: len(list(cache.values())) == 2)
            await other.patch(NODES, name_of(second), CORDON, seen=second)
            await until(lambda: list(cache.by("cordoned", "True")) == [(name_of(second), True)])
            await other.delete(NODES, name_of(first), seen=await other.get(NODES, name_of(first)))
            await until(lambda: [kept[0] for kept in cache.values()] == [name_of(second)])
            tasks.cancel_scope.cancel()
        assert cache.snapshot().missed == 0
        assert told[-1] == f"{name_of(first)} False"


@pytest.mark.trap("KU-10")
async def test_a_kind_that_is_not_served_is_told_and_found_once_it_is(
    cluster: Kubeconfigs,
) -> None:
    """A CRD may be installed while we run; until then the cache says absent, not empty."""
    group = f"{fresh('g')}.interlock.test"
    kind = Kind(group, ("v1",), "valves", "Valve")
    async with client_of(cluster, quiet_s=1.0) as client:
        with pytest.raises(NotFoundError, match="not installed"):
            await client.get(kind, "one")
        cache = KindCache(client, kind, name_of)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cache.run)
            await until(lambda: cache.snapshot().known is Known.ABSENT)
            await _install(client, kind)
            await until(lambda: cache.snapshot().known is Known.FRESH, patience_s=30)
            await client.create(kind, {"metadata": {"name": "one"}, "spec": {"open": True}})
            await until(lambda: list(cache.values()) == ["one"])
            tasks.cancel_scope.cancel()


@pytest.mark.trap("KU-11")
async def test_a_kind_served_in_other_versions_only_says_which(cluster: Kubeconfigs) -> None:
    """An upgrade of a component is told by name, not read wrongly."""
    group = f"{fresh('g')}.interlock.test"
    kind = Kind(group, ("v1",), "valves", "Valve")
    async with client_of(cluster) as client:
        await _install(client, Kind(group, ("v7",), "valves", "Valve"))
        with pytest.raises(NotFoundError, match="as v7 only; we read v1"):
            await client.get(kind, "one")


@pytest.mark.trap("KU-12")
async def test_apply_owns_its_fields_and_is_never_forced(cluster: Kubeconfigs) -> None:
    """What another manager holds is a conflict that names it."""
    name = fresh("map")
    body = {"metadata": {"name": name, "namespace": "default"}, "data": {"a": "1"}}
    async with client_of(cluster) as ours, client_of(cluster, manager="another") as theirs:
        made = await theirs.apply(CONFIG_MAPS, body, namespace="default")
        writers = other_writers(made, ("data", "a"), ours="interlock")
        assert writers is not None
        assert [writer.manager for writer in writers] == ["another"]
        changed = {**body, "data": {"a": "2"}}
        with pytest.raises(ConflictError, match="another"):
            await ours.apply(CONFIG_MAPS, changed, namespace="default")
        more = {**body, "data": {"b": "3"}}
        await ours.apply(CONFIG_MAPS, more, namespace="default")
        assert (await ours.get(CONFIG_MAPS, name, "default"))["data"] == {"a": "1", "b": "3"}


async def test_a_scale_is_set_for_the_scale_that_was_seen(cluster: Kubeconfigs) -> None:
    """Two writers of one replica count do not overwrite each other."""
    async with client_of(cluster) as client:
        name = fresh("web")
        await client.create(DEPLOYMENTS, _deployment(name), namespace="default")
        seen = await client.get_scale(DEPLOYMENTS, name, "default")
        await client.scale(DEPLOYMENTS, name, 4, seen=seen, namespace="default")
        assert (await client.get(DEPLOYMENTS, name, "default"))["spec"]["replicas"] == 4
        with pytest.raises(ConflictError):
            await client.scale(DEPLOYMENTS, name, 9, seen=seen, namespace="default")


@pytest.mark.trap("KU-08")
async def test_an_eviction_may_be_refused_by_a_budget(cluster: Kubeconfigs) -> None:
    """A budget that allows no disruption now is heard, and the pod stays."""
    async with client_of(cluster) as client:
        name, app = fresh("pod"), fresh("app")
        await client.create(PODS, _pod(name, "", app=app), namespace="default")
        budget = {
            "metadata": {"name": app},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": app}}},
        }
        await client.create(DISRUPTION_BUDGETS, budget, namespace="default")
        running = await client.get(PODS, name, "default")
        ready: list[Json] = [{"type": "Ready", "status": "True"}]
        become: list[Json] = [
            {"op": "add", "path": "/status/phase", "value": "Running"},
            {"op": "add", "path": "/status/conditions", "value": ready},
        ]
        await client.patch(
            PODS, name, become, seen=running, namespace="default", subresource="status"
        )
        with pytest.raises(ComponentError, match="NOT_NOW"):
            await client.evict(name, "default")
        assert name_of(await client.get(PODS, name, "default")) == name


@pytest.mark.trap("KU-07")
async def test_a_pod_without_a_budget_is_evicted(cluster: Kubeconfigs) -> None:
    """It goes, and a rehearsal before leaves it."""
    async with client_of(cluster) as client:
        name = fresh("pod")
        await client.create(PODS, _pod(name, ""), namespace="default")
        await client.evict(name, "default", dry_run=True)
        assert name_of(await client.get(PODS, name, "default")) == name
        await client.evict(name, "default")
        with pytest.raises(NotFoundError):
            await client.get(PODS, name, "default")


async def test_what_a_persona_may_not_is_known_before_it_is_tried(cluster: Kubeconfigs) -> None:
    """`doctor` asks the server itself, and the server keeps to what it said."""
    patch_nodes, list_nodes = Access("patch", NODES), Access("list", NODES)
    async with client_of(cluster) as admin, client_of(cluster, "reader") as reader:
        assert await refused(admin, [patch_nodes, list_nodes]) == {}
        assert set(await refused(reader, [patch_nodes, list_nodes])) == {patch_nodes}
        seen = await make_node(admin)
        with pytest.raises(ComponentError, match="FORBIDDEN"):
            await reader.patch(NODES, name_of(seen), CORDON, seen=seen)


async def test_a_lease_tells_who_holds_it(cluster: Kubeconfigs) -> None:
    """Read before a node is touched."""
    async with client_of(cluster) as client:
        name = fresh("lease")
        spec = {
            "holderIdentity": "janitor-1",
            "leaseDurationSeconds": 60,
            "renewTime": f"{client.clock.now():%Y-%m-%dT%H:%M:%S.%fZ}",
        }
        made = await client.create(
            LEASES, {"metadata": {"name": name}, "spec": spec}, namespace="default"
        )
        held = read_lease(made)
        assert (held.holder, held.holds_at(client.clock.now())) == ("janitor-1", True)
        assert held.until is not None
        assert not held.holds_at(held.until)


async def _install(client: KubeClient, kind: Kind) -> None:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    await client.create(
        Kind(
            "apiextensions.k8s.io", ("v1",), "customresourcedefinitions", "CustomResourceDefinition"
        ),
        {
            "metadata": {"name": f"{kind.plural}.{kind.group}"},
            "spec": {
                "group": kind.group,
                "scope": "Cluster",
                "names": {"plural": kind.plural, "singular": "valve", "kind": kind.kind},
                "versions": [
                    {
                        "name": kind.versions[0],
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": schema},
                    }
                ],
            },
        },
    )
    with anyio.fail_after(20):
        while True:
            client.discovery.forget()
            try:
                await client.served(kind)
                return
            except NotFoundError:
                await anyio.sleep(0.05)


def _pod(name: str, node: str, **labels: str) -> Json:
    spec: Json = {"containers": [{"name": "main", "image": "example.org/main:1"}]}
    if node:
        spec["nodeName"] = node
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


def _deployment(name: str) -> Json:
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": _pod("x", "")["spec"]},
        },
    }
