"""A site without DPS: the same port for facts and operations, over agents of its nodes.

Power tree, groups and safe values come from the settings, because no component here knows them;
limits and power come from the nodes, a GPU by its place on its host as DPS counts them.

Each limit that is set ends by itself at the safe value of its node when we are no longer heard;
`keep` is the sign of life, and whoever uses this must go on calling it.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from interlock_servers.devices.client import NodeClient, NodeState, NodeView
from interlock_servers.devices.models import GpuReading, LimitOutcome, Outcome, known
from interlock_servers.devices.node_models import Cap, CapState, HeldCap, NodeAnswer
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
from interlock_servers.maxlps.node_settings import NodePowerSettings
from interlock_servers.maxlps.port import Limits
from interlock_tools.canonical import digest
from interlock_tools.clock import Clock
from interlock_tools.errors import (
    ComponentError,
    FactoryError,
    InvalidRequestError,
    UnavailableError,
)


class Doubt(NamedTuple):
    """Why the caps of a change may not last: all of them, or those above their safe value.

    One below it stays as it is unless nobody knows it: letting it go would raise it.
    """

    why: str
    of_all: bool

    def is_of(self, cap: HeldCap) -> bool:
        """Whether this cap must not last."""
        return self.of_all or cap.limit_w > cap.safe_w


Doubts = Callable[[Iterable[HeldCap]], Awaitable[Mapping[str, Doubt]]]


class Kept(NamedTuple):
    """What became of the caps that we hold, by node, where it is worth a word.

    Attributes:
        lost: nodes where a cap is no longer held: it has ended at its safe value.
        let_go: why caps were not renewed: they end at their safe value by themselves.
        changed: where somebody else changed a limit that we hold.
        silent: nodes that did not answer; their caps end by themselves if that goes on.
    """

    lost: tuple[str, ...] = ()
    let_go: Mapping[str, str] = {}
    changed: tuple[str, ...] = ()
    silent: Mapping[str, str] = {}


async def no_doubts(caps: Iterable[HeldCap]) -> Mapping[str, Doubt]:
    """Every cap may last."""
    del caps
    return {}


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
        self._kept: dict[str, dict[str, HeldCap]] = {}

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
        """
        asked = sorted(set(node_ids) & set(self._nodes.node_ids))
        if not asked:
            return {}
        views = await self._nodes.read(asked)
        return {
            node_id: NodePower(
                node_id=node_id,
                gpu_count=self._gpu_count(view.answer),
                power_w=None,
                gpus=tuple(map(_limit_of, view.answer.gpus)),
            )
            for node_id, view in views.items()
            if view.state is NodeState.FRESH and view.answer is not None
        }

    async def nodes_status(self, node_ids: Iterable[str]) -> dict[str, NodeStatus]:
        """Whether these nodes may be written to, and why not."""
        asked = sorted(set(node_ids) & set(self._nodes.node_ids))
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

    async def set_gpu_limits(self, limits: Limits, *, change_id: str = "") -> tuple[CapResult, ...]:
        """Set or clear limits, each of one GPU; sent once, never again.

        Args:
            limits: by node and GPU, watts of that one GPU, or None for its default.
            change_id: the change of the guard that allows it.

        Returns:
            What each device says that it took, in the order asked.

        Raises:
            InvalidRequestError: empty, a GPU that is not there, or no change; nothing was sent.
            UnavailableError: a node is not fresh, so nothing was sent; or one gave no answer, and
                the state is unknown: read back.
            ComponentError: another controller holds a node, so nothing was sent anywhere; or some
                GPU did not take its limit, and the others may have: read back.
        """
        if not limits or not all(limits.values()):
            raise InvalidRequestError("no GPU is named; an empty request is never sent")
        if not change_id:
            raise InvalidRequestError("no change is named that allows it; nothing was sent")
        views = await self._nodes.read(list(limits))
        self._check_masters(views)
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
        return self._results(limits, names, caps, answers, change_id)

    async def keep(self, doubts: Doubts = no_doubts) -> Kept:
        """Our sign of life for the caps that we hold; call it several times within `hold_s`.

        Which those are the nodes say, so that it goes on after a restart where it was.

        Args:
            doubts: by change, why caps of it may not last.
        """
        before = {node_id: dict(caps) for node_id, caps in self._kept.items()}
        views = await self._nodes.read()
        held = {node_id: self._held(views[node_id], before.get(node_id, {})) for node_id in views}
        doubted = await doubts([cap for caps in held.values() for cap in caps.values()])
        kept: dict[str, list[str]] = {}
        let_go: dict[str, str] = {}
        for node_id, caps in held.items():
            for key, cap in caps.items():
                doubt = doubted.get(cap.change_id)
                if doubt is not None and doubt.is_of(cap):
                    let_go[node_id] = doubt.why
                else:
                    kept.setdefault(node_id, []).append(key)
        answers = await self._nodes.renew(kept, expires_in_s=self._settings.hold_s)
        lost, silent = set[str](), dict[str, str]()
        for node_id, answer in answers.items():
            if isinstance(answer, FactoryError):
                silent[node_id] = str(answer)  # it may hold them still: they are asked for again
                self._kept[node_id] = {key: held[node_id][key] for key in kept[node_id]}
                continue
            self._kept[node_id] = {cap.key: cap for cap in answer}
            if set(kept[node_id]) - self._kept[node_id].keys():
                lost.add(node_id)
        for node_id, caps in before.items():
            if node_id not in kept:
                self._kept.pop(node_id, None)
            if caps.keys() - held[node_id].keys():
                lost.add(node_id)
        changed = sorted(
            node_id
            for node_id, caps in held.items()
            if any(cap.state is CapState.REVERTED for cap in caps.values())
        )
        return Kept(tuple(sorted(lost)), let_go, tuple(changed), silent)

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    def _gpu_count(self, answer: NodeAnswer) -> int:
        """How many GPUs it has: places are counted from 0, and a gap is one that is not shown."""
        shown = 1 + max((gpu.identity.index for gpu in answer.gpus), default=-1)
        return max(shown, self._settings.gpus_per_node or 0)

    def _held(self, view: NodeView, before: dict[str, HeldCap]) -> dict[str, HeldCap]:
        """Our caps on a node as it says now; where it does not answer also what we remember."""
        ours = self._nodes.controller_id
        said = () if view.answer is None else view.answer.held
        held = {cap.key: cap for cap in said if cap.controller_id == ours}
        return held | before if view.why else held

    def _check_masters(self, views: Mapping[str, NodeView]) -> None:
        """Nothing is sent where another controller holds a cap: two masters of one GPU would fight.

        Raises:
            ComponentError: one does.
        """
        for node_id, view in views.items():
            for cap in () if view.answer is None else view.answer.held:
                if cap.controller_id != self._nodes.controller_id:
                    why = (
                        f"{cap.controller_id} holds {cap.limit_w:g} W on GPU {cap.key} of "
                        f"{node_id}; one controller at a time, so nothing was sent"
                    )
                    raise ComponentError(COMPONENT, "TWO_MASTERS", why)

    def _cap(self, node_id: str, key: str, limit_w: float) -> Cap:
        safe_w = self._settings.safe_w_by_node.get(node_id, self._settings.safe_w)
        return Cap(key, limit_w, safe_w, self._settings.hold_s)

    def _results(
        self,
        limits: Limits,
        names: Mapping[tuple[str, str], int],
        caps: Mapping[str, list[Cap]],
        answers: Mapping[str, tuple[LimitOutcome, ...] | FactoryError],
        change_id: str,
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
                asked_of = {cap.key: cap for cap in caps[node_id]}
                for outcome in answer:
                    gpu_id = names[node_id, outcome.key]
                    asked_w = limits[node_id][gpu_id]
                    results[node_id, gpu_id] = CapResult(node_id, gpu_id, asked_w, outcome.after_w)
                    if outcome.outcome not in (Outcome.REFUSED, Outcome.IGNORED):
                        held = self._as_held(asked_of[outcome.key], change_id)
                        self._kept.setdefault(node_id, {})[outcome.key] = held
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

    def _as_held(self, cap: Cap, change_id: str) -> HeldCap:
        return HeldCap(
            key=cap.key,
            limit_w=cap.limit_w,
            safe_w=cap.safe_w,
            left_s=cap.expires_in_s,
            state=CapState.HELD,
            controller_id=self._nodes.controller_id,
            change_id=change_id,
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
