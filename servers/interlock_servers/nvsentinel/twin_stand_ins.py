"""Who keeps a cluster that has no controllers of its own: kubelets, scheduler, owners, budgets.

They move pods and the plant's jobs together: a pod that is gone leaves its GPUs idle, a pod that
starts elsewhere takes its part of the job with it.
"""

from collections.abc import Mapping
from typing import Any, Final

from interlock_plant.faults import GPU_KINDS, Fault, FaultKind
from interlock_plant.jobs import Job
from interlock_servers.nvsentinel.twin_cluster import (
    REPLICA_SETS,
    Cluster,
    Json,
    is_terminal,
    job_of,
)
from interlock_servers.nvsentinel.twin_objects import (
    JOB,
    PART,
    SERVES,
    booted,
    crashed,
    pod_object,
    ready,
    running,
)
from interlock_servers.nvsentinel.twin_raw import set_condition
from interlock_servers.transports.kube.kinds import DISRUPTION_BUDGETS, JOBS, NODES, PODS
from interlock_tools.errors import InvalidRequestError

Key = tuple[str, str]  # namespace and name of a pod
Part = tuple[str, int]  # of which job, and which of its pods
CRASH_S: Final = 5.0  # after which a process notices that its GPU is gone
START_S: Final = 3.0
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
KUBELET, CONTROLLERS = "kubelet", "kube-controller-manager"


class StandIns:
    """Keeps pods and nodes as kubelets, scheduler and the core controllers do."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._plant = cluster.plant
        self._lit = dict.fromkeys(cluster.plant.site.node_ids, True)
        self._where: dict[Part, tuple[str, list[int]]] = {}
        self._owners: dict[str, Json] = {}
        self._pods_of: dict[Part, set[Key]] = {}  # those that run it
        self._present: dict[Key, Part] = {}  # the same the other way round
        self._away: set[Part] = set()
        self._idle: set[str] = set()  # nodes whose part of a job has no pod
        self._made = 0
        self._busy: set[Key] = set()  # pods that are under way to another state
        self._counted: set[str] = set()  # budgets that nobody else counts
        self._first = True

    async def reconcile(self) -> None:
        """Take one step: nodes first, then pods, owners and budgets."""
        pods = self._cluster.mirrors[PODS]
        touched = set(pods.take_changed()) | self._busy
        if self._first:
            self._first = False
            await self._learn()
        dark = [name for name, lit in self._now_lit().items() if lit != self._lit[name]]
        await self._cluster.each(dark, self._show_node, by=KUBELET)
        touched |= {_key(pod) for node in self._broken() for pod in self._cluster.pods_on(node)}
        self._busy = set()
        found = [pod for key in sorted(touched) if (pod := pods.get(key[1], key[0])) is not None]
        await self._cluster.each(found, self._run_pod, by=KUBELET)
        touched |= set(pods.take_changed())
        parts = {part for key in touched if (part := self._present.get(key)) is not None}
        for key in touched:
            self._note_pod(key, pods.get(key[1], key[0]))
        missing = self._missing(parts)
        await self._cluster.each(missing, self._replace, by=CONTROLLERS)
        jobs = {part[0] for part in (*parts, *missing)}
        changed = self._cluster.mirrors[DISRUPTION_BUDGETS].take_changed()
        if jobs or changed:
            await self._cluster.each(
                self._cluster.all(DISRUPTION_BUDGETS), self._count, by=CONTROLLERS
            )

    # ── nodes ─────────────────────────────────────────────────────────────────────────────────

    def _now_lit(self) -> Mapping[str, bool]:
        plant = self._plant
        return dict(zip(plant.site.node_ids, plant.node_is_lit.tolist(), strict=True))

    async def _show_node(self, name: str) -> None:
        lit = self._now_lit()[name]
        node = self._cluster.node(name)
        if node is not None:
            new = ready(lit, self._cluster.stamp())

            def change(raw: Json) -> None:
                set_condition(raw["status"].setdefault("conditions", []), new)
                if lit:
                    raw["status"].setdefault("nodeInfo", {}).update(
                        booted(name, self._cluster.stamp())
                    )

            node = await self._cluster.update(NODES, node, change, by=KUBELET, subresource="status")

            def taint(raw: Json) -> None:
                taints = [
                    each for each in raw["spec"].get("taints", []) if each["key"] != UNREACHABLE
                ]
                taints += [] if lit else [{"key": UNREACHABLE, "effect": "NoSchedule"}]
                raw["spec"].pop("taints", None)
                if taints:
                    raw["spec"]["taints"] = taints

            await self._cluster.update(NODES, node, taint, by=CONTROLLERS)
        self._lit[name] = lit

    def _broken(self) -> dict[str, set[int]]:
        """Nodes with GPUs whose processes cannot go on."""
        site, found = self._plant.site, dict[str, set[int]]()
        for fault in self._plant.faults:
            gpu = site.gpu_place(fault.target_id) if fault.kind in GPU_KINDS else None
            if gpu is not None:
                found.setdefault(site.node_ids[site.node_of_gpu[gpu]], set()).add(gpu)
        return found

    # ── pods ──────────────────────────────────────────────────────────────────────────────────

    async def _learn(self) -> None:
        """Which pod is which part of a job, and who owns them."""
        for job in self._plant.jobs:
            kind = REPLICA_SETS if job.job_class in SERVES else JOBS
            self._owners[job.job_id] = await self._cluster.client.get(
                kind, job.job_id, job.tenant_id
            )
            self._owners[job.job_id].setdefault("kind", kind.kind)
        by_node: dict[tuple[str, str], list[int]] = {}
        for job in self._plant.jobs:
            for gpu in job.gpu_indices:
                node = self._plant.site.node_ids[self._plant.site.node_of_gpu[gpu]]
                by_node.setdefault((job.job_id, node), []).append(gpu)
        taken: dict[tuple[str, str], int] = {}
        for pod in sorted(self._cluster.all(PODS), key=_part_number):
            job_id, node = job_of(pod), pod["spec"].get("nodeName", "")
            gpus = by_node.get((job_id, node))
            if gpus is None:
                continue
            start = taken.get((job_id, node), 0)
            end = start + _gpus(pod)
            taken[job_id, node] = end
            self._where[job_id, _part_number(pod)] = (node, gpus[start:end])
        self._pods_of = {part: set() for part in self._where}

    async def _run_pod(self, pod: Json) -> None:
        """One step of a pod: it starts, crashes, or ends."""
        about, key = pod["metadata"], _key(pod)
        node = str(pod["spec"].get("nodeName") or "")
        if "deletionTimestamp" in about:
            grace_s = float(about.get("deletionGracePeriodSeconds", 0))
            if not node or self._cluster.passed(grace_s, "end", about["uid"]):
                await self._cluster.remove(PODS, pod, by=KUBELET, at_once=True)
                self._cluster.forget("end", about["uid"])
            else:
                self._busy.add(key)
            return
        if is_terminal(pod) or not job_of(pod):
            return
        gpus = self._where.get((job_of(pod), _part_number(pod)), ("", []))[1]
        if node and self._broken().get(node, set()) & set(gpus):
            self._busy.add(key)
            if self._cluster.passed(CRASH_S, "crash", about["uid"]):
                await self._set_status(pod, crashed(pod["status"], self._cluster.stamp()))
            return
        if node and (pod.get("status") or {}).get("phase") != "Running":
            self._busy.add(key)
            if self._cluster.passed(START_S, "start", about["uid"]):
                await self._set_status(pod, running(self._cluster.stamp()))

    async def _set_status(self, pod: Json, status: Json) -> None:
        await self._cluster.replace_status(PODS, pod, status, by=KUBELET)

    # ── owners and scheduler ──────────────────────────────────────────────────────────────────

    def _note_pod(self, key: Key, pod: Json | None) -> None:
        """Keep count of the pods that run each part."""
        before = self._present.pop(key, None)
        if before is not None:
            self._pods_of[before].discard(key)
        if pod is None or not pod["spec"].get("nodeName") or _is_over(pod):
            return
        part = (job_of(pod), _part_number(pod))
        if part in self._where:
            self._present[key] = part
            self._pods_of[part].add(key)

    def _missing(self, touched: set[Part]) -> list[Part]:
        """The parts of jobs that no pod runs, and whose node is therefore idle."""
        self._away = {part for part in self._away | touched if not self._pods_of[part]}
        idle = {self._where[part][0] for part in self._away}
        for node in sorted(idle - self._idle):
            self._stall(node, stalled=True)
        for node in sorted(self._idle - idle):
            self._stall(node, stalled=False)
        self._idle = idle
        return sorted(self._away)

    def _stall(self, node: str, *, stalled: bool) -> None:
        """Nothing runs on a node while its pods are away: no work, and its GPUs idle."""
        if stalled:
            self._plant.inject(Fault(FaultKind.SOFTWARE, node))
            return
        ours = Fault(FaultKind.SOFTWARE, node)
        if ours in self._plant.faults:
            self._plant.repair(FaultKind.SOFTWARE, node)

    async def _replace(self, part: Part) -> None:
        """Make the pod that is missing where there is room; let it wait, unbound, where not."""
        job = next(job for job in self._plant.jobs if job.job_id == part[0])
        waiting = self._waiting(part)
        node, gpus = self._where[part]
        to = self._room_for(node, gpus)
        if to is None:
            if waiting is None:
                await self._make(job, part, None)
            return
        if to != node:
            self._stall(node, stalled=False)
            self._idle.discard(node)
            first = self._plant.site.node_places
            shift = int(
                self._plant.site.first_gpu[first[to]] - self._plant.site.first_gpu[first[node]]
            )
            self._plant.move(job.job_id, node, to)
            gpus = [gpu + shift for gpu in gpus]
            self._where[part] = (to, gpus)
        if waiting is not None:
            await self._cluster.remove(PODS, waiting, by=CONTROLLERS, at_once=True)
        for pod in self._cluster.pods_on(node):  # what crashed there is of no more use
            if is_terminal(pod) and (job_of(pod), _part_number(pod)) == part:
                await self._cluster.remove(PODS, pod, by=CONTROLLERS, at_once=True)
        await self._make(job, part, (to, gpus))

    async def _make(self, job: Job, part: Part, placed: tuple[str, list[int]] | None) -> None:
        self._made += 1
        name = f"{job.job_id}-{part[1]}-{self._made:x}"
        pod = pod_object(self._plant.site, job, part[1], name, self._owners[job.job_id], placed)
        if placed is None:
            sizes = {"nvidia.com/gpu": str(len(self._where[part][1]))}
            pod["spec"]["containers"][0]["resources"] = {"requests": sizes, "limits": sizes}
        made = await self._cluster.create(PODS, pod, namespace=job.tenant_id, by=CONTROLLERS)
        if made is not None and placed is None:
            why = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0 nodes are available: insufficient nvidia.com/gpu",
            }
            await self._set_status(made, {"phase": "Pending", "conditions": [why]})

    def _waiting(self, part: Part) -> Json | None:
        for pod in self._cluster.pods_on(""):
            if (job_of(pod), _part_number(pod)) == part and not _is_over(pod):
                return pod
        return None

    def _room_for(self, node: str, gpus: list[int]) -> str | None:
        """Where it can run: where it was, else a free node that is like it."""
        if self._takes_pods(node) and not self._broken().get(node, set()) & set(gpus):
            return node
        site = self._plant.site
        size = site.nodes[site.node_places[node]].gpu_count
        if len(gpus) < size:
            return None  # a part of a node stays with the other parts
        busy = {int(site.node_of_gpu[gpu]) for job in self._plant.jobs for gpu in job.gpu_indices}
        for place, other in enumerate(site.nodes):
            if place in busy or other.gpu_count != size or not self._takes_pods(other.node_id):
                continue
            if other.node_id not in self._broken():
                return other.node_id
        return None

    def _takes_pods(self, name: str) -> bool:
        node = self._cluster.node(name)
        if node is None or not self._lit[name]:
            return False
        spec = node.get("spec") or {}
        return not spec.get("unschedulable") and not any(
            taint["effect"] != "PreferNoSchedule" for taint in spec.get("taints", [])
        )

    # ── budgets ───────────────────────────────────────────────────────────────────────────────

    async def _count(self, budget: Json) -> None:
        """What a disruption budget allows now."""
        about, spec = budget["metadata"], budget["spec"]
        uid = about["uid"]
        if uid not in self._counted and (budget.get("status") or {}).get("observedGeneration"):
            return  # this cluster counts by itself
        self._counted.add(uid)
        wanted = spec["selector"]["matchLabels"].get(JOB)
        pods = [
            pod
            for pod in self._cluster.all(PODS)
            if job_of(pod) == wanted and pod["metadata"].get("namespace") == about["namespace"]
        ]
        healthy = sum(
            (pod.get("status") or {}).get("phase") == "Running" and not _is_over(pod)
            for pod in pods
        )
        least = spec.get("minAvailable", 0)
        if not isinstance(least, int):
            raise InvalidRequestError(f"{about['name']}: the twin counts pods, not {least!r}")
        status = {
            "observedGeneration": about.get("generation", 0),
            "expectedPods": len([part for part in self._where if part[0] == wanted]),
            "currentHealthy": healthy,
            "desiredHealthy": least,
            "disruptionsAllowed": max(0, healthy - least),
        }

        def change(raw: Json) -> None:
            raw["status"] = {**(raw.get("status") or {}), **status}
            raw["status"].pop("disruptedPods", None)

        if {**(budget.get("status") or {}), **status} != budget.get("status"):
            await self._cluster.update(
                DISRUPTION_BUDGETS, budget, change, by=CONTROLLERS, subresource="status"
            )


def _is_over(pod: Json) -> bool:
    return is_terminal(pod) or "deletionTimestamp" in pod["metadata"]


def _part_number(pod: Json) -> int:
    return int((pod["metadata"].get("labels") or {}).get(PART, -1))


def _gpus(pod: Json) -> int:
    limits: dict[str, Any] = pod["spec"]["containers"][0].get("resources", {}).get("limits", {})
    return int(limits.get("nvidia.com/gpu", 0))


def _key(pod: Json) -> tuple[str, str]:
    return pod["metadata"].get("namespace", ""), pod["metadata"]["name"]
