"""Things that go wrong on request: named faults, each with a target and a moment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

import numpy as np

from interlock_plant.arrays import Array, Bools, Floats, Ints
from interlock_plant.parameters import LEAK_ISOLATION_S, PUMP_LOSS_FLOW
from interlock_plant.site import SITE_METER, SiteSpec
from interlock_tools.errors import InvalidRequestError


class FaultKind(Enum):
    """What can go wrong, and with what."""

    CAP_IGNORED = "cap_ignored"  # a node: its GPUs accept caps and do not follow them
    METER_FROZEN = "meter_frozen"  # site, feed, PDU, rack or node: its meter repeats one value
    LEAK = "leak"  # a rack: its leak sensor is wet, and its coolant valves shut within 2 s
    PUMP_LOSS = "pump_loss"  # a CDU: one of its two pumps stands still
    NODE_DOWN = "node_down"  # a node: dark


@dataclass(frozen=True)
class Fault:
    """One fault. It begins `at` (aware), or at once when that is None, and lasts until repaired."""

    kind: FaultKind
    target_id: str
    at: datetime | None = None

    def __post_init__(self) -> None:
        if self.at is not None and self.at.utcoffset() is None:
            raise InvalidRequestError("the moment of a fault must be aware")


@dataclass
class FaultState:
    """What is wrong now, in the shape in which the step needs it, and what is still to come."""

    waiting: tuple[Fault, ...]
    active: tuple[Fault, ...]
    obeys: Bools  # per GPU: follows its cap
    node_down: Bools  # per node
    pump_share: Floats  # per CDU: of its design flow
    leak_began_s: Ints  # per rack: second at which it began; -1 where it is dry
    frozen_w: dict[str, float]  # per meter

    @property
    def leaks(self) -> Bools:
        """Per rack: whether its leak sensor is wet."""
        return self.leak_began_s >= 0


class FaultModel:
    """Turns faults into changes of state, and back."""

    def __init__(self, site: SiteSpec) -> None:
        self._site = site
        meters = (SITE_METER, *site.feed_ids, *site.pdu_ids, *site.rack_ids, *site.node_ids)
        self._targets: dict[FaultKind, Sequence[str]] = {
            FaultKind.CAP_IGNORED: site.node_ids,
            FaultKind.METER_FROZEN: meters,
            FaultKind.LEAK: site.rack_ids,
            FaultKind.PUMP_LOSS: site.cdu_ids,
            FaultKind.NODE_DOWN: site.node_ids,
        }

    def none(self) -> FaultState:
        """Nothing is wrong."""
        site = self._site
        return FaultState(
            waiting=(),
            active=(),
            obeys=np.ones(site.gpu_count, dtype=np.bool_),
            node_down=np.zeros(len(site.nodes), dtype=np.bool_),
            pump_share=np.ones(len(site.cdus)),
            leak_began_s=np.full(len(site.racks), -1, dtype=np.int64),
            frozen_w={},
        )

    def check(self, fault: Fault, now: datetime) -> None:
        """Check that `fault` can happen here.

        Raises:
            InvalidRequestError: the site has no such target for this kind, or its moment is past.
        """
        if fault.target_id not in self._targets[fault.kind]:
            raise InvalidRequestError(
                f"{fault.kind.value}: {self._site.name} has no {fault.target_id!r} for it"
            )
        if fault.at is not None and fault.at < now:
            raise InvalidRequestError(
                f"{fault.kind.value}: {fault.at.isoformat()} is before {now.isoformat()}"
            )

    def begin(
        self, state: FaultState, fault: Fault, second: int, meter_w: Callable[[str], float]
    ) -> None:
        """Let `fault` begin; one that is already there changes nothing.

        Args:
            state: changed in place.
            fault: checked.
            second: since the plant's start.
            meter_w: what a meter shows now.
        """
        key = (fault.kind, fault.target_id)
        if any(key == (known.kind, known.target_id) for known in state.active):
            return
        state.active = (*state.active, fault)
        place = self._targets[fault.kind].index(fault.target_id)
        match fault.kind:
            case FaultKind.CAP_IGNORED:
                state.obeys = state.obeys & (self._site.node_of_gpu != place)
            case FaultKind.NODE_DOWN:
                state.node_down = _changed(state.node_down, place, True)
            case FaultKind.PUMP_LOSS:
                state.pump_share = _changed(state.pump_share, place, PUMP_LOSS_FLOW)
            case FaultKind.LEAK:
                state.leak_began_s = _changed(state.leak_began_s, place, second)
            case FaultKind.METER_FROZEN:
                state.frozen_w = {**state.frozen_w, fault.target_id: meter_w(fault.target_id)}

    def repair(self, state: FaultState, kind: FaultKind, target_id: str) -> None:
        """End the fault, or cancel it while it is still to come.

        Raises:
            InvalidRequestError: there is no such fault.
        """
        kept = [
            tuple(f for f in faults if (f.kind, f.target_id) != (kind, target_id))
            for faults in (state.waiting, state.active)
        ]
        if kept == [state.waiting, state.active]:
            raise InvalidRequestError(f"{target_id!r} has no fault {kind.value}")
        state.waiting, state.active = kept
        place = self._targets[kind].index(target_id)
        match kind:
            case FaultKind.CAP_IGNORED:
                state.obeys = state.obeys | (self._site.node_of_gpu == place)
            case FaultKind.NODE_DOWN:
                state.node_down = _changed(state.node_down, place, False)
            case FaultKind.PUMP_LOSS:
                state.pump_share = _changed(state.pump_share, place, 1.0)
            case FaultKind.LEAK:
                state.leak_began_s = _changed(state.leak_began_s, place, -1)
            case FaultKind.METER_FROZEN:
                state.frozen_w = {m: w for m, w in state.frozen_w.items() if m != target_id}

    def begin_due(
        self, state: FaultState, now: datetime, second: int, meter_w: Callable[[str], float]
    ) -> bool:
        """Let every waiting fault whose moment has come begin; returns whether any did."""
        due = tuple(fault for fault in state.waiting if fault.at is not None and fault.at <= now)
        state.waiting = tuple(fault for fault in state.waiting if fault not in due)
        for fault in due:
            self.begin(state, fault, second, meter_w)
        return bool(due)

    def flow_share(self, state: FaultState, second: int) -> Floats:
        """Per rack: coolant flow as a share of the design flow."""
        share = state.pump_share[self._site.cdu_of_rack]
        shut = state.leaks & (second - state.leak_began_s >= LEAK_ISOLATION_S)
        return np.where(shut, 0.0, share)


def _changed(values: Array, place: int, value: float) -> Array:
    """A copy with one entry changed."""
    changed = values.copy()
    changed[place] = value
    return changed
