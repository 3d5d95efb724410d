"""What may change in resource groups of DPS: what each call means for power, and for whom.

A policy that raises, a group that is removed and one that may take from others are the same calls
as their harmless twins: what they are is computed from the facts. Nothing here touches a topology.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

from interlock_guardrails.facts import FactRegistry
from interlock_servers.maxlps.group_arguments import GroupArguments
from interlock_servers.maxlps.group_client import GroupClient
from interlock_servers.maxlps.group_facts import DPS_GROUPS, DPS_NODES, DPS_POLICIES
from interlock_servers.maxlps.group_models import GroupState
from interlock_servers.maxlps.group_scene import Scene
from interlock_servers.maxlps.meters import Meters
from interlock_servers.maxlps.picture import Caps, Picture
from interlock_servers.maxlps.reach import (
    IDENTITY_AGE_S,
    LIMITS_AGE_S,
    METER_POWER,
    is_set,
    power_needs,
    raised,
    reach_of,
    where,
)
from interlock_servers.maxlps.wire import failed
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.errors import InvalidRequestError, UnavailableError
from interlock_tools.fact import Fact, FactNeed, FactSet
from interlock_tools.identity import Target
from interlock_tools.operation import (
    DryRun,
    Effect,
    Happened,
    Held,
    Operation,
    ReadBack,
    Verdict,
)

READ_BACK = "DPS read back; nobody else knows its groups"
A = TypeVar("A", bound=GroupArguments)
Policies = Mapping[str, str]  # of nodes


class GroupOperation(Operation[A], Generic[A]):
    """What all changes of groups share: facts, reach, rehearsal, verification, taking back.

    Attributes:
        at_rest: whether it never reaches hardware.
    """

    effect = Effect.REVERSIBLE
    deadline_s = 130.0  # a BMS repeats a value that did not change after 100 s
    compensates = True
    compensation_repeats = True  # it looks first, and lowers only what is still raised
    at_rest: ClassVar[bool] = False

    def __init__(self, groups: GroupClient, facts: FactRegistry, site_id: str) -> None:
        self._groups = groups
        self._facts = facts
        self._site = Target(kind="site", id=site_id)
        self._meters = Meters(facts, site_id)

    # ── what each of them says of itself ──────────────────────────────────────────────────────

    @abstractmethod
    def check(self, arguments: A, scene: Scene) -> None:
        """Refuse what can never work.

        Raises:
            InvalidRequestError: it names what does not exist, or what it is too late for.
        """

    def policies(self, arguments: A, scene: Scene) -> Policies:
        """The policy that each node of it shall have; empty where none is named."""
        del arguments, scene
        return {}

    def freed(self, arguments: A, scene: Scene) -> Sequence[str]:
        """The nodes that go back to the topology's policy, whichever that is."""
        del arguments, scene
        return ()

    def is_live(self, arguments: A, scene: Scene) -> bool:
        """Whether hardware follows at once: the group is active."""
        return not self.at_rest and scene.group(arguments.group)["status"] == "active"

    def takes(self, arguments: A) -> bool:
        """Whether DPS may take power from other groups for it."""
        del arguments
        return False

    def losers(self, arguments: A, scene: Scene) -> frozenset[str]:
        """Who is worse off, beside those whose limits fall."""
        del arguments, scene
        return frozenset()

    @abstractmethod
    def stands(self, arguments: A, group: GroupState | None) -> bool:
        """Whether DPS's own list shows it done."""

    @abstractmethod
    async def act(self, arguments: A, scene: Scene) -> dict[str, Any]:
        """The one call."""

    # ── what follows from it ──────────────────────────────────────────────────────────────────

    def target(self, arguments: A) -> Target:
        """The site: groups share its budgets."""
        return self._site

    def facts(self, arguments: A) -> tuple[FactNeed, ...]:
        """As a change of limits, and the groups, policies and reach of DPS."""
        return self._needs()

    def blast_radius(self, arguments: A, facts: FactSet) -> BlastRadius:
        """Whom it reaches: its nodes, and everybody that power may be taken from."""
        scene = Scene.of_facts(facts, self._site)
        self.check(arguments, scene)
        wanted, freed = self.policies(arguments, scene), self.freed(arguments, scene)
        caps = self.caps(arguments, scene)
        scene.reached(caps)
        reach = where(scene.picture, {*wanted, *freed})
        if caps:
            reach = reach_of(self.pictured(arguments, scene), caps, scene.grid)
        if self.takes(arguments):
            if not reach.power_rise_w:
                raise InvalidRequestError(
                    "allow_reprovision: nothing rises, so there is nothing to take from others for"
                )
            lost = scene.losers(arguments.group, [*caps])
            picture = self.pictured(arguments, scene)
            reach = reach_of(picture, {**lost, **caps}, scene.grid)
        return reach.model_copy(
            update={
                "jobs": reach.jobs | {arguments.group},
                "power_taken_from": reach.power_taken_from | self.losers(arguments, scene),
            }
        )

    def pictured(self, arguments: A, scene: Scene) -> Picture:
        """The power picture in which its nodes work for the group."""
        del arguments
        return scene.picture

    def caps(self, arguments: A, scene: Scene) -> Caps:
        """What each GPU of each node may draw afterwards; empty where no hardware follows."""
        if not self.is_live(arguments, scene):
            return {}
        wanted = self.policies(arguments, scene)
        exact = {node_id: scene.cap(node_id, policy) for node_id, policy in wanted.items()}
        return exact | scene.released(self.freed(arguments, scene))

    async def dry_run(self, arguments: A) -> DryRun | None:
        """DPS's own rehearsal, strict; None where no policy is named that it could rehearse.

        With power that may be taken from others it is told and decides nothing.
        """
        scene = await self._scene()
        self.check(arguments, scene)
        notes = await self._not_fitting(self.policies(arguments, scene))
        if notes is None:
            return None
        return DryRun(would_succeed=not notes or self.takes(arguments), notes=tuple(notes))

    async def execute(self, arguments: A, key: str) -> dict[str, Any]:
        """Rehearse once more where hardware follows, then the one call, strict.

        Raises:
            ComponentError: DPS failed, or it no longer fits; a part may be done where it says so.
            UnavailableError: no answer; the state is unknown.
        """
        scene = await self._scene()
        wanted = self.policies(arguments, scene)
        if self.is_live(arguments, scene) and not self.takes(arguments):
            notes = await self._not_fitting(wanted)
            if notes:
                raise failed("NOT_FITTING", f"nothing was sent: {'; '.join(notes)}")
        before = scene.groups.get(arguments.group, {}).get("policies", {})
        told = await self.act(arguments, scene)
        return {**told, "policies_before": {node: pair[0] for node, pair in before.items()}}

    async def read_back(self, arguments: A) -> ReadBack:
        """Look at DPS's own list of groups.

        Where hardware may follow it never says no: DPS may still be at it, and limits may have
        moved.
        """
        stands = self.stands(arguments, await self._group(arguments.group))
        missed = Happened.NO if self.at_rest else Happened.PARTLY
        return ReadBack(happened=Happened.YES if stands else missed)

    async def verify(self, arguments: A, before: FactSet, since: datetime) -> Verdict:
        """The group as DPS lists it; where watts move, also limits and the facility's meters."""
        earlier = Scene.of_facts(before, self._site)
        group = await self._group(arguments.group)
        if not self.stands(arguments, group):
            shows = {"shows": None if group is None else _shown(group)}
            return Verdict(held=Held.NOT_YET, source="DPS read back", evidence=shows)
        caps = self.caps(arguments, earlier)
        if not caps:
            return Verdict(held=Held.YES, source=READ_BACK, evidence={"hardware": "not touched"})
        picture = (await self._scene()).picture
        exact = self.policies(arguments, earlier)
        wrong = sorted(node_id for node_id in exact if not is_set(picture, node_id, caps))
        if wrong:
            evidence = {"nodes_not_set": wrong[:20]}
            return Verdict(held=Held.NOT_YET, source="DPS read back", evidence=evidence)
        return await self._meters.within(picture, caps, since)

    async def compensate(self, arguments: A, before: FactSet) -> dict[str, Any]:
        """Lower again what was raised, GPU by GPU; what was lowered stays low.

        The group keeps its new policy on paper: it is people who decide about that.

        Raises:
            ComponentError, UnavailableError: it could not be taken back.
        """
        earlier = Scene.of_facts(before, self._site)
        now = (await self._scene()).picture
        back, unknown = raised(earlier.picture, now, self.caps(arguments, earlier))
        if back:
            await self._groups.dps.set_gpu_limits(back)
        return {
            "nodes_lowered_again": sorted(back)[:20],
            "nodes_left_low": True,
            "nodes_unknown_before": unknown[:20],
        }

    # ── shared ────────────────────────────────────────────────────────────────────────────────

    def _needs(self) -> tuple[FactNeed, ...]:
        ages = {
            DPS_GROUPS: IDENTITY_AGE_S,
            DPS_POLICIES: IDENTITY_AGE_S,
            DPS_NODES: LIMITS_AGE_S,
        }
        more = (FactNeed(kind=k, subject=self._site, max_age_s=s) for k, s in ages.items())
        return (*power_needs(self._site), *more)

    async def _not_fitting(self, wanted: Policies) -> list[str] | None:
        """Why DPS would not apply these policies as they are; None where there is none."""
        if not wanted:
            return None
        notes: list[str] = []
        for policy in sorted(set(wanted.values())):
            nodes = sorted(node_id for node_id, name in wanted.items() if name == policy)
            found = await self._groups.dps.validate_allocation(nodes, policy)
            if found.downgraded:
                notes.append(f"{policy} would be downgraded on {len(nodes)} nodes")
            if not found.would_succeed:
                notes += [f"{policy} does not fit on {len(nodes)} nodes", *found.notes]
        return notes

    async def _group(self, name: str) -> GroupState | None:
        found = {group.name: group for group in await self._groups.groups()}
        return found.get(name)

    async def _scene(self) -> Scene:
        """The site as DPS and the grid show it now."""
        facts: list[Fact] = []
        for need in self._needs():
            if need.kind == METER_POWER:  # it may be silent now: `verify` waits for it
                continue
            answer = await self._facts.fact(need)
            if not isinstance(answer, Fact):
                raise UnavailableError(f"{need.kind} is unknown: {answer.why}")
            facts.append(answer)
        return Scene.of_facts(FactSet(facts), self._site)


def _shown(group: GroupState) -> dict[str, Any]:
    """What of a group explains why it is not as asked: its state, and lesser policies applied."""
    lesser = {n: list(p) for n, p in group.policies.items() if p[0] != p[1]}
    return {
        "status": group.status,
        "policy": group.policy,
        "priority": group.priority,
        "requested_and_applied": dict(sorted(lesser.items())[:20]),
    }
