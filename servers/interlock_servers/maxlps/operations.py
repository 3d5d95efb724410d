"""What may change in power: the limits of a node's GPUs, set and released.

A limit that goes down may starve work; one that goes up may break a budget. Both are computed from
the facts, and whether it worked is asked of the facility's meters, not of DPS or a node alone.
"""

from abc import abstractmethod
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field

from interlock_guardrails.facts import FactRegistry
from interlock_servers.maxlps.facts import POWER_GPU_LIMITS, POWER_GROUPS, POWER_TOPOLOGY
from interlock_servers.maxlps.meters import Meters
from interlock_servers.maxlps.models import CapResult
from interlock_servers.maxlps.picture import Caps, Picture
from interlock_servers.maxlps.port import Limits as SomeLimits
from interlock_servers.maxlps.port import PowerPort
from interlock_servers.maxlps.reach import (
    GRID_AGE_S,
    GRID_LIMIT,
    LIMITS_AGE_S,
    Limits,
    is_set,
    power_needs,
    raised,
    reach_of,
)
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.errors import ComponentError, InvalidRequestError, UnavailableError
from interlock_tools.fact import Claim, Fact, FactNeed, FactSet
from interlock_tools.identity import Target
from interlock_tools.operation import (
    Arguments,
    Effect,
    Expiry,
    Happened,
    Held,
    Operation,
    ReadBack,
    Verdict,
)

GRID_EVENT, GRID_EVENT_KIND, EVENT_OPEN = "grid.event", "grid_event", "open"
GRID_TERMS = "grid.terms"  # of the same event: whether it leaves out its feeds, or its end
NODES_AT_ONCE = 128  # of one call

NodeId = Annotated[str, Field(min_length=1, max_length=200)]
Watts = Annotated[int, Field(ge=1, le=10_000)]


class SetCapsArguments(Arguments):
    """Which nodes, and how many watts each of their GPUs may draw."""

    gpu_cap_w_by_node: Annotated[
        dict[NodeId, Watts],
        Field(
            min_length=1,
            max_length=4096,
            description="node id to watts per GPU, not per node",
        ),
    ]
    expires_in_s: Annotated[
        float | None,
        Field(
            gt=0,
            le=7 * 86_400,
            description="then raised limits go back down; lowered ones stay",
        ),
    ] = None
    for_event_id: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=200,
            description="correlation_id of the grid limit it follows; open in flex",
        ),
    ] = None


class ReleaseCapsArguments(Arguments):
    """Which nodes go back to their devices' default limit."""

    node_ids: Annotated[
        list[NodeId],
        Field(max_length=4096, description="empty: every node that is limited now"),
    ]


A = TypeVar("A", bound=Arguments)


class LimitOperation(Operation[A], Generic[A]):
    """What setting and releasing share: facts, reach, the act, and its verification."""

    effect = Effect.REVERSIBLE
    deadline_s = 130.0  # a BMS repeats a value that did not change after 100 s
    compensates = True
    compensation_repeats = True  # it looks first, and lowers only what is still raised

    def __init__(self, power: PowerPort, facts: FactRegistry, site_id: str) -> None:
        self._power = power
        self._facts = facts
        self._site = Target(kind="site", id=site_id)
        self._meters = Meters(facts, site_id)

    @abstractmethod
    def caps(self, arguments: A, picture: Picture) -> Caps:
        """The limit per GPU that each named node shall have, in watts."""

    def target(self, arguments: A) -> Target:
        """The site: limits share its budgets."""
        return self._site

    def facts(self, arguments: A) -> tuple[FactNeed, ...]:
        """Tree, groups and limits, the grid's limit, and a meter that lives."""
        return power_needs(self._site)

    def blast_radius(self, arguments: A, facts: FactSet) -> BlastRadius:
        """Nodes, jobs, tenants and watts; the floors and budgets that it would break."""
        picture = Picture.of_facts(facts, self._site)
        caps = self.caps(arguments, picture)
        if not caps:
            raise InvalidRequestError(f"{self.name}: the site has no node that it could be done to")
        views = [picture.node(node_id) for node_id in caps]
        for view in views:
            least_w, most_w, _ = view.limits
            if not least_w <= caps[view.node_id] <= most_w:
                raise InvalidRequestError(
                    f"gpu_cap_w_by_node: {view.node_id} takes {least_w:.0f} to {most_w:.0f} W per "
                    f"GPU, not {caps[view.node_id]}"
                )
        return reach_of(picture, caps, facts.value(GRID_LIMIT, self._site))

    async def execute(self, arguments: A, key: str) -> dict[str, Any]:
        """Lower first; raise only once every lowering is confirmed.

        A GPU whose present limit is not known may rise, so it waits too.

        Raises:
            ComponentError: some GPU did not take its limit; others may have.
            UnavailableError: no answer; the state is unknown.
        """
        picture = await self._picture()
        caps = self.caps(arguments, picture)
        lower: Limits = {}
        raise_: Limits = {}
        for node_id, watts in caps.items():
            for gpu_id, set_w in enumerate(picture.node(node_id).each_set_w):
                if set_w is None or watts > set_w:
                    raise_.setdefault(node_id, {})[gpu_id] = float(watts)
                elif watts < set_w:
                    lower.setdefault(node_id, {})[gpu_id] = float(watts)
        for part in (lower, raise_):
            if part:
                await self._set(part, key)
        return {"nodes_lowered": len(lower), "nodes_raised": len(raise_), "key": key}

    async def read_back(self, arguments: A) -> ReadBack:
        """Compare what is said to be set now with what was asked for.

        It never says no: where nothing is as asked, limits may still have moved (one was clamped),
        and bringing back finds out which.
        """
        picture = await self._picture()
        caps = self.caps(arguments, picture)
        wrong = sorted(node_id for node_id in caps if not is_set(picture, node_id, caps))
        happened = Happened.PARTLY if wrong else Happened.YES
        return ReadBack(happened=happened, evidence={"nodes_not_set": wrong[:20]})

    async def verify(self, arguments: A, before: FactSet, since: datetime) -> Verdict:
        """The limits read back, and every PDU and rack touched metered within what they allow.

        A rack without a meter is covered by its PDU's, which sees one disobedient node less well.
        """
        picture = await self._picture()
        caps = self.caps(arguments, Picture.of_facts(before, self._site))
        wrong = [node_id for node_id in caps if not is_set(picture, node_id, caps)]
        if wrong:
            evidence = {"nodes_not_set": sorted(wrong)[:20]}
            return Verdict(held=Held.NOT_YET, source="the limits read back", evidence=evidence)
        return await self._meters.within(picture, caps, since)

    async def bring_back(self, arguments: A, before: FactSet, key: str) -> dict[str, Any]:
        """Take back what was raised. What was lowered stays low: that is the safe side.

        Raises:
            ComponentError, UnavailableError: it could not be taken back.
        """
        earlier = Picture.of_facts(before, self._site)
        now = await self._picture()
        back, unknown = raised(earlier, now, self.caps(arguments, earlier))
        if back:
            await self._set(back, key)
        return {
            "nodes_lowered_again": sorted(back)[:20],
            "nodes_left_low": True,
            "nodes_unknown_before": unknown[:20],
        }

    async def _set(self, limits: SomeLimits, key: str) -> None:
        """Write them, so many nodes at a time that the first caps hold while others are sent."""
        nodes = list(limits)
        results: list[CapResult] = []
        for begin in range(0, len(nodes), NODES_AT_ONCE):
            part = {node_id: limits[node_id] for node_id in nodes[begin : begin + NODES_AT_ONCE]}
            results += await self._power.set_gpu_limits(part, change_id=key)
        clamped = [result for result in results if result.is_clamped]
        if clamped:
            first = clamped[0]
            raise ComponentError(
                "maxlps",
                "CLAMPED",
                f"{len(clamped)} GPUs took another limit than asked, first {first.node_id} GPU "
                f"{first.gpu_id}: {first.set_w} W for {first.asked_w} W",
            )

    async def _picture(self) -> Picture:
        """The site as it is shown now."""
        values: list[Any] = []
        for kind in (POWER_TOPOLOGY, POWER_GROUPS, POWER_GPU_LIMITS):
            need = FactNeed(kind=kind, subject=self._site, max_age_s=LIMITS_AGE_S)
            answer = await self._facts.fact(need)
            if not isinstance(answer, Fact):
                raise UnavailableError(f"{kind} is unknown: {answer.why}")
            values.append(answer.value)
        return Picture.of(*values)


class SetCaps(LimitOperation[SetCapsArguments]):
    """Limit the power of every GPU of the named nodes, in watts per GPU.

    Lowering slows work, raising takes from a budget. Take the map from plan_caps: one that breaks a
    floor or budget is refused.
    """

    name = "maxlps.set_caps"
    arguments = SetCapsArguments

    def expiry(self, arguments: SetCapsArguments, before: FactSet) -> Expiry | None:
        """Back to what stood before, for the nodes that were raised: the lower limit is safe."""
        if arguments.expires_in_s is None:
            return None
        picture = Picture.of_facts(before, self._site)
        raised = {
            node_id: int(min(known))
            for node_id, watts in arguments.gpu_cap_w_by_node.items()
            if (known := [w for w in picture.node(node_id).each_set_w if w is not None])
            and min(known) < watts
        }
        if not raised:
            return None
        return Expiry(
            after_s=arguments.expires_in_s,
            operation=self.name,
            arguments={"gpu_cap_w_by_node": raised},
        )

    def claims(self, arguments: SetCapsArguments) -> tuple[Claim, ...]:
        """That the grid asks for it, where the caller says so."""
        return tuple(
            Claim(need=need.model_copy(update={"kind": GRID_EVENT}), value=EVENT_OPEN)
            for need in _terms_of(arguments)
        )

    def facts(self, arguments: SetCapsArguments) -> tuple[FactNeed, ...]:
        """Also the terms of the event that it follows."""
        return (*super().facts(arguments), *_terms_of(arguments))

    def blast_radius(self, arguments: SetCapsArguments, facts: FactSet) -> BlastRadius:
        """With what the event leaves out: that is a decision beside its watts."""
        reach = super().blast_radius(arguments, facts)
        for need in _terms_of(arguments):
            terms = facts.value(need.kind, need.subject) or {}  # of none that is open: the most
            reach = reach.model_copy(
                update={name: terms.get(name, True) for name in ("all_feeds", "open_ended")}
            )
        return reach

    def caps(self, arguments: SetCapsArguments, picture: Picture) -> Caps:
        """The map itself."""
        for node_id in arguments.gpu_cap_w_by_node:
            picture.node(node_id)
        return arguments.gpu_cap_w_by_node


class ReleaseCaps(LimitOperation[ReleaseCapsArguments]):
    """Lift the GPU limits of nodes back to their devices' default, so power may rise.

    Once a grid limit has ended; refused while it, or a budget, would be broken.
    """

    name = "maxlps.release_caps"
    arguments = ReleaseCapsArguments

    def caps(self, arguments: ReleaseCapsArguments, picture: Picture) -> Caps:
        """The greatest limit of each named node; where none is named, of all that can be set."""
        named = arguments.node_ids or [view.node_id for view in picture.lit]
        return {node_id: int(picture.node(node_id).limits[1]) for node_id in named}


def maxlps_operations(
    power: PowerPort, facts: FactRegistry, site_id: str
) -> tuple[LimitOperation[Any], ...]:
    """Everything that may change here."""
    return (SetCaps(power, facts, site_id), ReleaseCaps(power, facts, site_id))


def _terms_of(arguments: SetCapsArguments) -> tuple[FactNeed, ...]:
    if arguments.for_event_id is None:
        return ()
    event = Target(kind=GRID_EVENT_KIND, id=arguments.for_event_id)
    return (FactNeed(kind=GRID_TERMS, subject=event, max_age_s=GRID_AGE_S),)
