"""The plant on a Kubernetes cluster: what several controllers share to see it and to write.

Nodes, jobs and pods are put there once; who then acts for kubelets and scheduler is
`twin_stand_ins`, and who repairs nodes is each controller.
"""

import copy
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import yaml

from interlock_plant.plant import Plant
from interlock_servers.nvsentinel.twin_mirror import Mirror
from interlock_servers.nvsentinel.twin_objects import (
    JOB,
    SERVES,
    budgets,
    namespaces,
    node_object,
    parts,
    pod_object,
    running,
    workload,
)
from interlock_servers.nvsentinel.twin_raw import condition, set_condition
from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.kinds import (
    CUSTOM_RESOURCES,
    DISRUPTION_BUDGETS,
    EVENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    Kind,
)
from interlock_tools.errors import ConflictError, FactoryError, NotFoundError

Json = dict[str, Any]
Load = Callable[[Iterable[Mapping[str, Any]]], None]
REPLICA_SETS: Final = Kind("apps", ("v1",), "replicasets", "ReplicaSet", namespaced=True)
DAEMON_SETS: Final = Kind("apps", ("v1",), "daemonsets", "DaemonSet", namespaced=True)
AT_ONCE: Final = 16  # writes in flight while the plant is put there
SERVED_WITHIN_S: Final = 15.0

log = logging.getLogger(__name__)


class Cluster:
    """One cluster with the plant on it, seen and written by controllers of one process.

    Attributes:
        mirrors: what is known of each kind that is watched.
        writes: how many writes the server took.
    """

    def __init__(
        self, client: KubeClient, plant: Plant, kinds: Sequence[tuple[Kind, str | None]] = ()
    ) -> None:
        """Describe it; `kinds` are watched besides nodes, pods and budgets, each in a namespace."""
        self.client = client
        self.plant = plant
        self.clock = client.clock
        self.writes = 0
        self.mirrors: dict[Kind, Mirror] = {
            NODES: Mirror(client, NODES),
            PODS: Mirror(client, PODS, index=_node_of),
            DISRUPTION_BUDGETS: Mirror(client, DISRUPTION_BUDGETS),
        }
        for kind, namespace in kinds:
            self.mirrors[kind] = Mirror(client, kind, namespace=namespace)
        self._stack = AsyncExitStack()
        self._waits: dict[tuple[str, ...], datetime] = {}
        self._names = 0

    async def __aenter__(self) -> Self:
        """Watch; returns once everything was listed.

        Raises:
            TimeoutError: the server did not list it in time.
        """
        await self._stack.__aenter__()
        tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(tasks.cancel_scope.cancel)
        for mirror in self.mirrors.values():
            tasks.start_soon(mirror.run)
        with anyio.fail_after(SERVED_WITHIN_S):
            for mirror in self.mirrors.values():
                await mirror.listed.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    # ── time ──────────────────────────────────────────────────────────────────────────────────

    @property
    def now(self) -> datetime:
        """The present moment of the plant's clock."""
        return self.clock.now()

    def stamp(self) -> str:
        """The present moment, as Kubernetes writes it."""
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def passed(self, seconds: float, *key: str) -> bool:
        """Whether so long has passed since this was first asked for the key."""
        return self.now >= self._waits.setdefault(key, self.now) + timedelta(seconds=seconds)

    def forget(self, *key: str) -> None:
        """Let the time of a key, and of those that begin with it, start anew."""
        for known in [known for known in self._waits if known[: len(key)] == key]:
            del self._waits[known]

    # ── what is there ─────────────────────────────────────────────────────────────────────────

    def node(self, name: str) -> Json | None:
        """One node."""
        return self.mirrors[NODES].get(name)

    def pods_on(self, node: str) -> list[Json]:
        """The pods that are bound to a node."""
        return self.mirrors[PODS].by(node)

    def all(self, kind: Kind) -> list[Json]:
        """Every object of a kind that is watched."""
        return self.mirrors[kind].values()

    def in_order(self, kind: Kind) -> list[Json]:
        """The same, the oldest first; of one second, by name."""
        return sorted(
            self.all(kind),
            key=lambda raw: (raw["metadata"]["creationTimestamp"], raw["metadata"]["name"]),
        )

    # ── writes ────────────────────────────────────────────────────────────────────────────────

    async def create(
        self, kind: Kind, body: Json, *, namespace: str | None = None, by: str
    ) -> Json | None:
        """Make an object; None where one of its name is there already."""
        served = await self.client.served(kind)
        whole = {**body, "apiVersion": served.api_version, "kind": kind.kind}
        try:
            made = await self._write("POST", served.path(namespace), whole, by)
        except ConflictError:
            return None
        self._keep(kind, made)
        return made

    async def update(
        self,
        kind: Kind,
        seen: Json,
        change: Callable[[Json], None],
        *,
        by: str,
        subresource: str | None = None,
    ) -> Json:
        """Change an object that nobody changed since it was seen; gives it as it is afterwards.

        Raises:
            ConflictError: somebody did; look again.
            FactoryError: the server refused, or did not answer.
        """
        changed = copy.deepcopy(seen)
        change(changed)
        if changed == seen:
            return seen
        served = await self.client.served(kind)
        about = seen["metadata"]
        path = served.path(about.get("namespace"), about["name"], subresource)
        whole = {**changed, "apiVersion": served.api_version, "kind": kind.kind}
        made = await self._write("PUT", path, whole, by)
        self._keep(kind, made)
        return made

    async def report(self, kind: Kind, seen: Json, values: Json, *new: Json, by: str) -> Json:
        """Set values and conditions of an object's status; gives it as it is afterwards.

        Raises:
            ConflictError: somebody changed it since it was seen; look again.
            FactoryError: the server refused, or did not answer.
        """

        def change(whole: Json) -> None:
            status = whole.setdefault("status", {})
            status.update(values)
            for each in new:
                set_condition(status.setdefault("conditions", []), each)

        return await self.update(kind, seen, change, by=by, subresource="status")

    async def replace_status(self, kind: Kind, seen: Json, status: Json, *, by: str) -> Json:
        """Give an object this status, whatever it had; raises as `report` does."""

        def change(whole: Json) -> None:
            whole["status"] = status

        return await self.update(kind, seen, change, by=by, subresource="status")

    async def set_finalizers(self, kind: Kind, seen: Json, wanted: list[str], *, by: str) -> None:
        """Give an object these finalizers; raises as `report` does."""

        def change(whole: Json) -> None:
            whole["metadata"]["finalizers"] = wanted

        await self.update(kind, seen, change, by=by)

    async def remove(self, kind: Kind, seen: Json, *, by: str, at_once: bool = False) -> None:
        """Delete what was seen; `at_once` without the time that a pod has to end."""
        served = await self.client.served(kind)
        about = seen["metadata"]
        options: Json = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": about["uid"]},
        }
        if at_once:
            options["gracePeriodSeconds"] = 0
        path = served.path(about.get("namespace"), about["name"])
        try:
            left = await self._write("DELETE", path, options, by)
        except NotFoundError:
            left = {}
        mirror = self.mirrors.get(kind)
        if mirror is None:
            return
        if (left.get("metadata") or {}).get("deletionTimestamp") and not at_once:
            mirror.put(left)
        else:
            mirror.drop(seen)

    async def evict(self, pod: Json) -> None:
        """Ask for a pod's eviction, and see what became of it.

        Raises:
            ComponentError: `NOT_NOW`: a budget forbids it now.
        """
        about = pod["metadata"]
        await self.client.evict(about["name"], about["namespace"])
        self.writes += 1
        try:
            self._keep(PODS, await self.client.get(PODS, about["name"], about["namespace"]))
        except NotFoundError:
            self.mirrors[PODS].drop(pod)

    async def say(self, node: Json, kind: str, reason: str, message: str, *, by: str) -> None:
        """One v1 Event about a node, in the namespace where NVSentinel's are."""
        self._names += 1
        about, now = node["metadata"], self.stamp()
        event = {
            "metadata": {"name": f"{about['name']}.{about['uid'][:8]}.{self._names:x}"},
            "involvedObject": {"kind": "Node", "name": about["name"], "uid": about["uid"]},
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": by, "host": about["name"]},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self.create(EVENTS, event, namespace="default", by=by)

    async def each(
        self, found: Iterable[Any], do: Callable[[Any], Awaitable[None]], *, by: str
    ) -> None:
        """Do something for each; what fails for one is tried again at the next step."""
        for one in found:
            try:
                await do(one)
            except (ConflictError, NotFoundError):
                continue  # it changed or went meanwhile: the next step sees how
            except FactoryError as error:
                log.warning("a controller was refused", extra={"by": by, "error": str(error)})

    async def _write(self, method: str, path: str, body: Json, by: str) -> Json:
        done = await self.client.connection.write(method, path, {"fieldManager": by}, body)
        self.writes += 1
        return done

    def _keep(self, kind: Kind, made: Json) -> None:
        if kind not in self.mirrors:
            return
        about = made["metadata"]
        if "deletionTimestamp" in about and not about.get("finalizers") and kind is not PODS:
            self.mirrors[kind].drop(made)  # with its last finalizer it is gone
        else:
            self.mirrors[kind].put(copy.deepcopy(made))

    # ── putting the plant there ───────────────────────────────────────────────────────────────

    async def install_kinds(self, definitions: Iterable[Json]) -> None:
        """Make CustomResourceDefinitions, and wait until they are served.

        Raises:
            TimeoutError: the server does not serve them in time.
        """
        wanted = list(definitions)
        for definition in wanted:
            await self.create(CUSTOM_RESOURCES, definition, by="helm")
        with anyio.fail_after(SERVED_WITHIN_S):
            for definition in wanted:
                name = definition["metadata"]["name"]
                while not _is_established(  # noqa: ASYNC110 (the server sets no event)
                    await self.client.get(CUSTOM_RESOURCES, name)
                ):
                    await anyio.sleep(0.05)
        self.client.discovery.forget()

    async def install_plant(
        self, gpus_per_pod: int | None = None, load: Load | None = None
    ) -> None:
        """Make namespaces, nodes, workloads, budgets and pods of the plant as it is now."""
        now, plant = self.stamp(), self.plant
        site = plant.site
        nodes = (node_object(site, place, now) for place in range(len(site.nodes)))
        await self._make(NAMESPACES, namespaces(plant), load)
        await self._make(NODES, nodes, load)
        await self._make(DISRUPTION_BUDGETS, budgets(plant, gpus_per_pod), load)
        placed = {job.job_id: parts(plant, job, gpus_per_pod) for job in plant.jobs}
        owners: dict[str, Json] = {}
        for kind in (REPLICA_SETS, JOBS):
            jobs = [
                job for job in plant.jobs if (job.job_class in SERVES) == (kind is REPLICA_SETS)
            ]
            bodies = (workload(job, len(placed[job.job_id])) for job in jobs)
            await self._make(kind, bodies, load)
            for made in await self.client.all(kind, labels=JOB) if jobs else ():
                version = f"{kind.group}/v1"
                owners[made["metadata"]["name"]] = {
                    **made,
                    "apiVersion": version,
                    "kind": kind.kind,
                }
        pods = (
            pod_object(site, job, part, f"{job.job_id}-{part}", owners[job.job_id], where)
            for job in plant.jobs
            for part, where in enumerate(placed[job.job_id])
        )
        await self._make(PODS, pods, load, running(now))

    async def _make(
        self, kind: Kind, bodies: Iterable[Json], load: Load | None, status: Json | None = None
    ) -> None:
        """Make objects of one kind, whose status is `status` where the server takes none."""
        served = await self.client.served(kind)
        if load is not None:
            for body in bodies:
                whole = {"status": status} if status is not None else {}
                load([{**body, **whole, "apiVersion": served.api_version, "kind": kind.kind}])
                await anyio.lowlevel.checkpoint()
            return
        waiting = iter(bodies)

        async def work() -> None:
            for body in waiting:
                namespace = body["metadata"].get("namespace")
                made = await self.create(kind, body, namespace=namespace, by="deployer")
                if made is not None and kind is NODES and made["spec"].get("taints"):
                    # admission taints every new node; the node controller takes it away again
                    await self.update(kind, made, _untaint, by="kube-controller-manager")
                if made is not None and status is not None:
                    await self.replace_status(kind, made, status, by="kubelet")

        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(work)


def definitions_in(folder: Path) -> list[Json]:
    """The CustomResourceDefinitions in the YAML files of a folder."""
    return [
        document
        for path in sorted(folder.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text("utf-8"))
        if document and document.get("kind") == "CustomResourceDefinition"
    ]


def job_of(pod: Json) -> str:
    """The job of a pod of the plant; empty where it is none."""
    return str((pod["metadata"].get("labels") or {}).get(JOB, ""))


def is_terminal(pod: Json) -> bool:
    """Whether a pod has ended, one way or the other."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _untaint(raw: Json) -> None:
    raw["spec"].pop("taints", None)


def _node_of(pod: Json) -> str:
    return str(pod["spec"].get("nodeName") or "")


def _is_established(definition: Json) -> bool:
    found = condition((definition.get("status") or {}).get("conditions"), "Established")
    return found is not None and found["status"] == "True"
