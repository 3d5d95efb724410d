"""A site without DPS: what `DpsClient` offers to facts and operations, over agents of its nodes.

Power tree, groups and safe values come from the settings, because no component here knows them;
limits and power come from the nodes, a GPU by its place on its host as DPS counts them.

Each limit that is set ends by itself at the safe value of its node when we are no longer heard;
`keep` is the sign of life, and whoever uses this must go on calling it.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from interlock_servers.devices.client import NodeClient, NodeState, NodeView
from interlock_servers.devices.models import GpuReading, LimitOutcome, Outcome, known
from interlock_servers.devices.node_models import Cap
from interlock_servers.devices.settings import NodesSettings
from interlock_servers.maxlps import COMPONENT
from interlock_servers.maxlps.models import (
    CapResult,
    Entity,
    GpuLimit,
    NodePower,
    NodeStatus,
    ResourceGroup,
    Topology,
    power_tree,
)
from interlock_tools.canonical import digest
from interlock_tools.clock import Clock
from interlock_tools.errors import (
    ComponentError,
    FactoryError,
    InvalidRequestError,
    UnavailableError,
)

Limits = Mapping[str, Mapping[int, float | None]]


class EntitySettings(BaseModel):
    """One entity of the power tree, as DPS would list it; nodes are of kind `ComputerSystem`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    kind: str = Field(min_length=1, max_length=100)
    budget_w: float | None = Field(default=None, gt=0)
    children: tuple[str, ...] = ()


class GroupSettings(BaseModel):
    """The nodes of one piece of work, with what was promised for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    node_ids: tuple[str, ...]
    tenant: str | None = None
    workload_class: str | None = None
    slo_floor: float | None = Field(default=None, gt=0, le=1)
    priority: int | None = Field(default=None, ge=0)


class NodePowerSettings(BaseModel):
    """A site whose GPUs are reached through agents of its nodes.

    Attributes:
        site_id: whose limits these are.
        agents: where they are.
        entities: the power tree with its budgets.
        groups: who works where.
        hold_s: how long a limit lasts without a sign of life.
        safe_w: of each GPU of a node, what it goes back to then; it must fit the budgets above.
        safe_w_by_node: where it differs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site_id: str = Field(min_length=1, max_length=200)
    agents: NodesSettings
    entities: tuple[EntitySettings, ...] = Field(min_length=1)
    groups: tuple[GroupSettings, ...] = ()
    hold_s: float = Field(default=120.0, ge=5, le=86_400)
    safe_w: float = Field(gt=0, le=20_000)
    safe_w_by_node: dict[str, float] = {}


class NodePowerClient:
    """Reads and limits a site's GPUs through its node agents.

    Attributes:
        clock: of whoever stamps its answers.
        writes: how many were sent; what was read before the last is not what holds.
    """

    def __init__(self, settings: NodePowerSettings, nodes: NodeClient, clock: Clock) -> None:
        self.clock = clock
        self.writes = 0
        self._settings = settings
        self._nodes = nodes
        self._kept: dict[str, set[str]] = {}

    # ── reads ─────────────────────────────────────────────────────────────────────────────────

    async def active_topology(self) -> Topology:
        """The tree of the settings.

        Raises:
            ComponentError: it is no tree, or a node of it has no agent, or the other way round.
        """
        entities = [
            Entity(each.name, each.kind, each.budget_w, each.children)
            for each in self._settings.entities
        ]
        tree = power_tree(self._settings.site_id, entities)
        topology = Topology(self._settings.site_id, digest({"root": tree.as_json()}), tree)
        apart = set(topology.node_ids) ^ set(self._nodes.node_ids)
        if apart:
            names = ", ".join(sorted(apart)[:5])
            why = f"nodes and agents differ, such as {names}; a node without a budget is not capped"
            raise ComponentError(COMPONENT, "BAD_TOPOLOGY", why)
        return topology

    async def active(self) -> Topology:
        """The same: here the tree costs no call."""
        return await self.active_topology()

    async def resource_groups(self) -> tuple[ResourceGroup, ...]:
        """The groups of the settings, by name."""
        groups = (
            ResourceGroup(
                name=each.name,
                node_ids=tuple(sorted(each.node_ids)),
                activation_status="active",
                tenant=each.tenant,
                workload_class=each.workload_class,
                slo_floor=each.slo_floor,
                priority=each.priority,
            )
            for each in self._settings.groups
        )
        return tuple(sorted(groups, key=lambda group: group.name))

    async def node_power(self, node_ids: Iterable[str]) -> dict[str, NodePower]:
        """Power and limits of these nodes; one that is not fresh is absent, as one that is dark.

        The power of a whole node is not known to its GPUs.

        Raises:
            NotFoundError: a node without an agent.
        """
        asked = sorted(set(node_ids))
        if not asked:
            return {}
        views = await self._nodes.read(asked)
        return {
            node_id: NodePower(
                node_id=node_id,
                gpu_count=len(view.answer.gpus),
                power_w=None,
                gpus=tuple(map(_limit_of, view.answer.gpus)),
            )
            for node_id, view in views.items()
            if view.state is NodeState.FRESH and view.answer is not None
        }

    async def nodes_status(self, node_ids: Iterable[str]) -> dict[str, NodeStatus]:
        """Whether these nodes may be written to, and why not."""
        asked = sorted(set(node_ids))
        group_of = {node: group.name for group in self._settings.groups for node in group.node_ids}
        views = await self._nodes.read(asked) if asked else {}
        return {
            node_id: NodeStatus(
                node_id=node_id,
                inaccessible_since=self._since(view),
                last_access_at=view.observed_at,
                resource_group=group_of.get(node_id, ""),
                policy_name="",
                errors=tuple(filter(None, (view.why,))),
            )
            for node_id, view in views.items()
        }

    # ── the write ─────────────────────────────────────────────────────────────────────────────

    async def set_gpu_limits(self, limits: Limits, *, change_id: str) -> tuple[CapResult, ...]:
        """Set or clear limits, each of one GPU; sent once, never again.

        Args:
            limits: by node and GPU, watts of that one GPU, or None for its default.
            change_id: the change of the guard that allows it.

        Returns:
            What each device says that it took, in the order asked.

        Raises:
            InvalidRequestError: empty, or a GPU that is not there; nothing was sent.
            UnavailableError: a node is not fresh, so nothing was sent; or one gave no answer, and
                the state is unknown: read back.
            ComponentError: some GPU did not take its limit; the others may have: read back.
        """
        if not limits or not all(limits.values()):
            raise InvalidRequestError("no GPU is named; an empty request is never sent")
        views = await self._nodes.read(list(limits))
        caps: dict[str, list[Cap]] = {}
        names: dict[tuple[str, str], int] = {}
        for node_id, gpus in limits.items():
            by_id = {g.identity.index: g for g in _fresh(views[node_id])}
            for gpu_id, watts in gpus.items():
                if gpu_id not in by_id:
                    raise InvalidRequestError(f"{node_id} has no GPU {gpu_id}")
                reading = by_id[gpu_id]
                wanted_w = known(reading.limits.default_w) if watts is None else watts
                if wanted_w is None:
                    raise InvalidRequestError(f"{node_id}/{gpu_id} does not tell its default")
                key = reading.identity.key
                caps.setdefault(node_id, []).append(self._cap(node_id, key, wanted_w))
                names[node_id, key] = gpu_id
        self.writes += 1
        try:
            answers = await self._nodes.set_limits(caps, change_id=change_id)
        finally:
            self.writes += 1  # what was read meanwhile may be of before it, too
        return self._results(limits, names, answers)

    async def keep(self) -> tuple[str, ...]:
        """Our sign of life for every limit that we set; call it several times within `hold_s`.

        Returns:
            The nodes where some limit is no longer held: it has ended at its safe value.
        """
        kept = {node_id: sorted(keys) for node_id, keys in self._kept.items() if keys}
        if not kept:
            return ()
        answers = await self._nodes.renew(kept, expires_in_s=self._settings.hold_s)
        lost = []
        for node_id, answer in answers.items():
            if isinstance(answer, FactoryError):
                continue  # it may hold them still: they are asked for again
            held = {cap.key for cap in answer}
            if held != set(kept[node_id]):
                lost.append(node_id)
            self._kept[node_id] = held
        return tuple(sorted(lost))

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    def _cap(self, node_id: str, key: str, limit_w: float) -> Cap:
        safe_w = self._settings.safe_w_by_node.get(node_id, self._settings.safe_w)
        return Cap(key, limit_w, safe_w, self._settings.hold_s)

    def _results(
        self,
        limits: Limits,
        names: Mapping[tuple[str, str], int],
        answers: Mapping[str, tuple[LimitOutcome, ...] | FactoryError],
    ) -> tuple[CapResult, ...]:
        results: dict[tuple[str, int], CapResult] = {}
        silent: list[str] = []
        failed: list[str] = []
        for node_id, answer in answers.items():
            if isinstance(answer, UnavailableError):
                silent.append(str(answer))
            elif isinstance(answer, FactoryError):
                failed.append(str(answer))
            else:
                for outcome in answer:
                    gpu_id = names[node_id, outcome.key]
                    asked_w = limits[node_id][gpu_id]
                    results[node_id, gpu_id] = CapResult(node_id, gpu_id, asked_w, outcome.after_w)
                    if outcome.outcome not in (Outcome.REFUSED, Outcome.IGNORED):
                        self._kept.setdefault(node_id, set()).add(outcome.key)
                    if outcome.outcome not in (Outcome.APPLIED, Outcome.CLAMPED):
                        why = f"{node_id}/{gpu_id}: {outcome.outcome.value} {outcome.why}"
                        failed.append(why.strip())
        done = f"{len(results)} of {len(names)} limits were answered: read back"
        if silent:
            raise UnavailableError(f"{'; '.join(silent[:3])}; {done}")
        if failed:
            raise ComponentError(COMPONENT, "GPU_NOT_OK", f"{'; '.join(failed[:5])}; {done}")
        return tuple(
            results[node_id, gpu_id] for node_id, gpus in limits.items() for gpu_id in gpus
        )

    def _since(self, view: NodeView) -> datetime | None:
        if view.state is NodeState.FRESH:
            return None
        return view.observed_at or self.clock.now()


def _fresh(view: NodeView) -> tuple[GpuReading, ...]:
    if view.state is not NodeState.FRESH or view.answer is None:
        raise UnavailableError(
            f"{view.node_id} is {view.state.value} ({view.why}); nothing was sent"
        )
    return view.answer.gpus


def _limit_of(gpu: GpuReading) -> GpuLimit:
    return GpuLimit(
        gpu_id=gpu.identity.index,
        power_w=known(gpu.power_w),
        set_w=known(gpu.limits.now_w),
        min_w=known(gpu.limits.min_w),
        max_w=known(gpu.limits.max_w),
        temperature_c=known(gpu.temperature_c),
    )
