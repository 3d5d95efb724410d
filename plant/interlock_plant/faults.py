"""Things that go wrong on request: named faults, each with a target and a moment.

Correlated faults need no list of victims: a lost feed takes its racks and pumps, a lost CDU heats
every tray that it cools, because the plant is built that way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum

import numpy as np

from interlock_plant.arrays import Array, Bools, Floats, Ints
from interlock_plant.parameters import FOULED_K, LEAK_ISOLATION_S, PUMP_LOSS_FLOW
from interlock_plant.site import SITE_METER, SiteSpec
from interlock_tools.errors import InvalidRequestError


class FaultKind(Enum):
    """What can go wrong, and with what."""

    CAP_IGNORED = "cap_ignored"  # a node: its GPUs accept caps and do not follow them
    METER_FROZEN = "meter_frozen"  # site, feed, PDU, rack or node: its meter repeats one value
    LEAK = "leak"  # a rack or node: its leak sensor is wet, its coolant valves shut within 2 s
    PUMP_LOSS = "pump_loss"  # a CDU: one of its pumps stands still
    CDU_LOSS = "cdu_loss"  # a CDU: nothing flows
    COLD_PLATE = "cold_plate"  # a node: every GPU of the tray is 5 to 8 K warmer
    FEED_LOSS = "feed_loss"  # a feed: the utility does not deliver
    PDU_LOSS = "pdu_loss"  # a PDU: dead
    UPS_LOSS = "ups_loss"  # a UPS: in bypass, nothing rides through
    NODE_DOWN = "node_down"  # a node: dark
    GPU_LOST = "gpu_lost"  # a GPU: gone from the bus
    HBM_ERROR = "hbm_error"  # a GPU: memory errors, its work is ended
    LINK_DOWN = "link_down"  # a node: no network, its GPUs wait
    SOFTWARE = "software"  # a node: its part of the job has crashed


GPU_KINDS = frozenset({FaultKind.GPU_LOST, FaultKind.HBM_ERROR})


@dataclass(frozen=True)
class Fault:
    """One fault. It begins `at` (aware), or at once when that is None.

    It lasts until repaired, or `lasts_s`. `xid` is what the driver reports of it, if anything.
    """

    kind: FaultKind
    target_id: str
    at: datetime | None = None
    lasts_s: int | None = None
    xid: int | None = None

    def __post_init__(self) -> None:
        if self.at is not None and self.at.utcoffset() is None:
            raise InvalidRequestError("the moment of a fault must be aware")
        if self.lasts_s is not None and self.lasts_s < 1:
            raise InvalidRequestError(f"lasts_s must be at least 1, not {self.lasts_s}")


@dataclass
class FaultState:
    """What is wrong now, in the shape in which the step needs it, and what is still to come."""

    waiting: tuple[Fault, ...]  # in order of their moments
    active: tuple[Fault, ...]
    ends_s: Mapping[tuple[FaultKind, str], int]  # of those that end by themselves
    obeys: Bools  # per GPU: follows its cap
    gpu_gone: Bools
    gpu_stalled: Bools  # has power and does nothing
    node_down: Bools  # per node
    feed_lost: Bools
    pdu_lost: Bools
    pumps_lost: Ints  # per CDU
    fouled_k: Floats | None  # per node; None where there is none
    leak_began_s: Ints  # per rack: second at which it began; -1 where it is dry
    node_leak_began_s: Ints  # per node
    frozen_w: dict[str, float]  # per meter
    rng: np.random.Generator = field(repr=False)

    @property
    def leaks(self) -> Bools:
        """Per rack: whether the leak sensor of the rack itself is wet."""
        return self.leak_began_s >= 0


class FaultModel:
    """Turns faults into changes of state, and back."""

    def __init__(self, site: SiteSpec, *, seed: int) -> None:
        self._site = site
        self._seed = seed
        self._cdu_pumps = np.array([cdu.pumps for cdu in site.cdus])
        racks, nodes, pdus = _places(site.rack_ids), site.node_places, _places(site.pdu_ids)
        feeds, cdus = _places(site.feed_ids), _places(site.cdu_ids)
        meters = dict.fromkeys((SITE_METER, *feeds, *pdus, *racks, *nodes), 0)
        self._racks = racks
        self._targets: dict[FaultKind, Mapping[str, int]] = {
            FaultKind.CAP_IGNORED: nodes,
            FaultKind.METER_FROZEN: meters,
            FaultKind.LEAK: {**racks, **nodes},
            FaultKind.PUMP_LOSS: cdus,
            FaultKind.CDU_LOSS: cdus,
            FaultKind.COLD_PLATE: nodes,
            FaultKind.FEED_LOSS: feeds,
            FaultKind.PDU_LOSS: pdus,
            FaultKind.UPS_LOSS: _places(site.ups_ids),
            FaultKind.NODE_DOWN: nodes,
            FaultKind.LINK_DOWN: nodes,
            FaultKind.SOFTWARE: nodes,
        }

    def none(self) -> FaultState:
        """Nothing is wrong."""
        site = self._site
        return FaultState(
            waiting=(),
            active=(),
            ends_s={},
            obeys=np.ones(site.gpu_count, dtype=np.bool_),
            gpu_gone=np.zeros(site.gpu_count, dtype=np.bool_),
            gpu_stalled=np.zeros(site.gpu_count, dtype=np.bool_),
            node_down=np.zeros(len(site.nodes), dtype=np.bool_),
            feed_lost=np.zeros(len(site.feeds), dtype=np.bool_),
            pdu_lost=np.zeros(len(site.pdus), dtype=np.bool_),
            pumps_lost=np.zeros(len(site.cdus), dtype=np.int64),
            fouled_k=None,
            leak_began_s=np.full(len(site.racks), -1, dtype=np.int64),
            node_leak_began_s=np.full(len(site.nodes), -1, dtype=np.int64),
            frozen_w={},
            rng=np.random.default_rng([self._seed, 6]),
        )

    def check(self, fault: Fault, now: datetime) -> None:
        """Check that `fault` can happen here.

        Raises:
            InvalidRequestError: the site has no such target for this kind, or its moment is past.
        """
        if self._place(fault.kind, fault.target_id) is None:
            raise InvalidRequestError(
                f"{fault.kind.value}: {self._site.name} has no {fault.target_id!r} for it"
            )
        if fault.at is not None and fault.at < now:
            raise InvalidRequestError(
                f"{fault.kind.value}: {fault.at.isoformat()} is before {now.isoformat()}"
            )

    def wait(self, state: FaultState, fault: Fault) -> None:
        """Let a checked fault with a moment wait for it."""
        state.waiting = tuple(sorted((*state.waiting, fault), key=_moment))

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
        if fault.lasts_s is not None:
            state.ends_s = {**state.ends_s, key: second + fault.lasts_s}
        self._set(state, fault.kind, fault.target_id, second, meter_w)

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
        state.ends_s = {key: at for key, at in state.ends_s.items() if key != (kind, target_id)}
        self._clear(state, kind, target_id)
        for fault in state.active:  # another fault may have the same effect
            self._set(state, fault.kind, fault.target_id, None, None)

    def begin_due(
        self, state: FaultState, now: datetime, second: int, meter_w: Callable[[str], float]
    ) -> bool:
        """Let every waiting fault whose moment has come begin; returns whether any did."""
        if not state.waiting or _moment(state.waiting[0]) > now:
            return False
        due = tuple(fault for fault in state.waiting if _moment(fault) <= now)
        state.waiting = state.waiting[len(due) :]
        for fault in due:
            self.begin(state, fault, second, meter_w)
        return True

    def ended(self, state: FaultState, second: int) -> list[tuple[FaultKind, str]]:
        """The faults whose time is over."""
        return [key for key, ends_s in state.ends_s.items() if ends_s <= second]

    def pump_share(self, state: FaultState, lit: Bools) -> Floats:
        """Per CDU: what its pumps move, as a share of the design flow."""
        if not state.pumps_lost.any() and lit.all():
            return np.ones(len(lit))
        left = self._cdu_pumps - np.minimum(state.pumps_lost, self._cdu_pumps)
        some = np.where(left < self._cdu_pumps, PUMP_LOSS_FLOW, 1.0)
        return np.where((left == 0) | ~lit, 0.0, some)

    def valve_share(self, state: FaultState, second: int) -> Floats:
        """Per node: whether its coolant valves are open."""
        of_rack = _is_shut(state.leak_began_s, second)[self._site.rack_of_node]
        return np.where(of_rack | _is_shut(state.node_leak_began_s, second), 0.0, 1.0)

    def _place(self, kind: FaultKind, target_id: str) -> int | None:
        if kind in GPU_KINDS:
            return self._site.gpu_place(target_id)
        return self._targets[kind].get(target_id)

    def _set(
        self,
        state: FaultState,
        kind: FaultKind,
        target_id: str,
        second: int | None,
        meter_w: Callable[[str], float] | None,
    ) -> None:
        """Bring about the effect; without a moment only what has no memory."""
        place = self._place(kind, target_id)
        if place is None:
            raise InvalidRequestError(f"{kind.value}: there is no {target_id!r}")
        nodes = self._site.node_of_gpu
        match kind:
            case FaultKind.CAP_IGNORED:
                state.obeys = state.obeys & (nodes != place)
            case FaultKind.NODE_DOWN:
                state.node_down = _changed(state.node_down, place, True)
            case FaultKind.FEED_LOSS:
                state.feed_lost = _changed(state.feed_lost, place, True)
            case FaultKind.PDU_LOSS:
                state.pdu_lost = _changed(state.pdu_lost, place, True)
            case FaultKind.PUMP_LOSS:
                lost = max(int(state.pumps_lost[place]), 1)
                state.pumps_lost = _changed(state.pumps_lost, place, lost)
            case FaultKind.CDU_LOSS:
                state.pumps_lost = _changed(state.pumps_lost, place, 2)
            case FaultKind.GPU_LOST:
                state.gpu_gone = _changed(state.gpu_gone, place, True)
            case FaultKind.HBM_ERROR:
                state.gpu_stalled = _changed(state.gpu_stalled, place, True)
            case FaultKind.LINK_DOWN | FaultKind.SOFTWARE:
                state.gpu_stalled = state.gpu_stalled | (nodes == place)
            case FaultKind.LEAK if second is not None and target_id in self._racks:
                state.leak_began_s = _changed(state.leak_began_s, place, second)
            case FaultKind.LEAK if second is not None:
                state.node_leak_began_s = _changed(state.node_leak_began_s, place, second)
            case FaultKind.COLD_PLATE if second is not None:
                fouled_k = np.zeros(len(self._site.nodes))
                fouled_k = fouled_k if state.fouled_k is None else state.fouled_k
                state.fouled_k = _changed(fouled_k, place, state.rng.uniform(*FOULED_K))
            case FaultKind.METER_FROZEN if meter_w is not None:
                state.frozen_w = {**state.frozen_w, target_id: meter_w(target_id)}
            case _:
                pass  # a UPS keeps its own state

    def _clear(self, state: FaultState, kind: FaultKind, target_id: str) -> None:
        place = self._place(kind, target_id)
        if place is None:
            return
        nodes = self._site.node_of_gpu
        match kind:
            case FaultKind.CAP_IGNORED:
                state.obeys = state.obeys | (nodes == place)
            case FaultKind.NODE_DOWN:
                state.node_down = _changed(state.node_down, place, False)
            case FaultKind.FEED_LOSS:
                state.feed_lost = _changed(state.feed_lost, place, False)
            case FaultKind.PDU_LOSS:
                state.pdu_lost = _changed(state.pdu_lost, place, False)
            case FaultKind.PUMP_LOSS | FaultKind.CDU_LOSS:
                state.pumps_lost = _changed(state.pumps_lost, place, 0)
            case FaultKind.GPU_LOST:
                state.gpu_gone = _changed(state.gpu_gone, place, False)
            case FaultKind.HBM_ERROR:
                state.gpu_stalled = _changed(state.gpu_stalled, place, False)
            case FaultKind.LINK_DOWN | FaultKind.SOFTWARE:
                state.gpu_stalled = state.gpu_stalled & (nodes != place)
            case FaultKind.LEAK if target_id in self._racks:
                state.leak_began_s = _changed(state.leak_began_s, place, -1)
            case FaultKind.LEAK:
                state.node_leak_began_s = _changed(state.node_leak_began_s, place, -1)
            case FaultKind.COLD_PLATE if state.fouled_k is not None:
                fouled_k = _changed(state.fouled_k, place, 0.0)
                state.fouled_k = fouled_k if fouled_k.any() else None
            case FaultKind.METER_FROZEN:
                state.frozen_w = {m: w for m, w in state.frozen_w.items() if m != target_id}
            case _:
                pass


def at_moment(fault: Fault, start: datetime, second: int) -> Fault:
    """The same fault, `second` after `start`."""
    return replace(fault, at=start + timedelta(seconds=second))


def _moment(fault: Fault) -> datetime:
    if fault.at is None:
        raise InvalidRequestError("a fault that waits needs a moment")
    return fault.at


def _places(names: tuple[str, ...]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


def _is_shut(began_s: Ints, second: int) -> Bools:
    return (began_s >= 0) & (second - began_s >= LEAK_ISOLATION_S)


def _changed(values: Array, place: int, value: float) -> Array:
    """A copy with one entry changed."""
    changed = values.copy()
    changed[place] = value
    return changed
